"""The row store: rows computed once and shared by trials, sweeps and processes.

Immutable, checksummed segments under a size limit; a process may read, write or die at any time. Imports no other
package. Start with ``shelf``.
"""
