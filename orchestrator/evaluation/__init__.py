"""Pure decisions and figures: selection, leaderboard, comparisons, the promotion gate.

May import ``objectives``, ``paths`` and ``errors``. Start with ``selection``.
"""
