"""Pure decisions and statistics: selection, leaderboard, comparisons, importance, export reports, the gate.

May import ``objectives``, ``paths``, ``plain_json`` and ``errors``. Start with ``selection``.
"""
