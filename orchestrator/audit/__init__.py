"""The audit of a finished sweep: its figures, files and choices once more, from files alone and with other code.

May import ``ledger``, ``spec``, ``tracking`` and what is below them; never ``evaluation``, ``report`` or ``sweep``,
whose figures it checks. Start with ``audit``; ``figures`` holds the formulas.
"""
