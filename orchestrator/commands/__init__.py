"""What a verb does when it is not a sweep: compare, export, promote, predict, preview, sync, doctor, cache.

May import ``sweep`` and everything below it; prints nothing but through what the caller passes. Start with
``promote``.
"""
