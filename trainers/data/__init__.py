"""From a source of photos to a manifest: reading, duplicates, splits, the data report.

May import ``images`` and everything below it. Start with ``build``.
"""
