"""A sweep from a file to a leaderboard: one module per stage.

A stage reads the ledger and the sweep's folder, does what is missing there and records events; it prints nothing. So
``--resume`` needs no case of its own: it runs the same stages again.

May import ``report`` and everything below it. Start with ``pipeline``: the order of the stages.
"""
