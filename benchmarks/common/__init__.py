"""What the benchmarks share: their tasks, sides, measurements and the pages that hold the results.

May import everything in the project. Start with ``versus``: two sides of one task, measured in turn.
"""
