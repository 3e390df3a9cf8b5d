"""What this machine has: cores, GPUs, memory, versions, writable folders.

May import ``paths`` and ``errors``. Start with ``environment``.
"""
