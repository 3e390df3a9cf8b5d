"""The search on Ray Tune and Optuna: sampling, scheduling, the queue of trials, recording.

The only package besides ``cluster`` that imports Ray or Optuna. May import ``cluster``, ``spec``, ``ledger`` and what
is below. Start with ``run``.
"""
