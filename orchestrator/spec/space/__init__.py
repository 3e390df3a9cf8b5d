"""The ``search`` section of the file: which fields vary, and how.

May import ``spec.mistakes`` and ``spec.base``. Start with ``space``: cases, fields, and the space itself.
"""
