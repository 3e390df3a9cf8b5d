"""The same work as users of other tools would write it. Scripts of a search know nothing of orch.

Each script is ``python -m benchmarks.peers.NAME TASK.json REPORT.json``; ``benchmarks/common/task.py`` writes the
one and ``benchmarks/common/sides.py`` reads the other.
"""
