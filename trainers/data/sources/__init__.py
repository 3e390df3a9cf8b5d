"""From a source of photos to a listing: folders, pairs, tables, archives, built-ins. Opens no image.

May import ``data.listing`` and everything below ``data``. Start with ``read``.
"""
