"""Training one network: the loop, its steps, what it reads, prefilling the store.

May import ``data`` and everything below it. Start with ``loop``.
"""
