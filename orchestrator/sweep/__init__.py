"""A sweep from a file to a leaderboard: one module per stage.

May import ``report`` and everything below it. Start with ``pipeline``: the order of the stages.
"""
