"""Training a network: the loop, its traced steps, the rows it reads, prefilling the store, measuring a worker.

May import ``data`` and everything below it. Start with ``loop``.
"""
