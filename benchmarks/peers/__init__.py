"""The same work as users of other tools would write it. Scripts of a search know nothing of orch.

Each script is ``python -m benchmarks.peers.NAME TASK.json REPORT.json``; ``benchmarks/task.py`` writes the one and
``benchmarks/sides.py`` reads the other.
"""
