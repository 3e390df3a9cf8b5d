"""Pure decisions and statistics: selection, leaderboard, comparisons, importance of parameters,
export reports, the promotion gate.

May import ``objectives``, ``paths``, ``plain_json`` and ``errors``. Start with ``selection``.
"""
