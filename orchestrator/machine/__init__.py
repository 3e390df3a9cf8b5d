"""What this machine has: cores, GPUs, memory, versions, writable folders, standard streams.

May import ``paths`` and ``errors``. Start with ``environment``.
"""
