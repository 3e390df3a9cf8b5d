"""The same work as users of other tools would write it. No file here knows orch: a script and what it imports.

Each script is ``python -m benchmarks.peers.NAME TASK.json REPORT.json``; ``benchmarks/task.py`` writes the one and
``benchmarks/sides.py`` reads the other.
"""
