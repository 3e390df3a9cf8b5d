"""The row store: what is computed once and shared by trials, sweeps and processes.

Immutable, checksummed segments with bounded size; any process may read, write or die at any time. May import
``errors``. Start with ``shelf``.
"""
