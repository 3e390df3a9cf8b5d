"""The record of a sweep: events in checksummed Parquet segments, and the state derived from them.

May import ``objectives``, ``paths`` and ``errors``. Start with ``ledger``; ``segments`` is the file format.
"""
