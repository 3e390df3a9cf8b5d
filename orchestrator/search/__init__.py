"""The search on Ray Tune and Optuna: sampling, early stopping, the queue of trials, recording.

``run`` drives Tune, ``sampling`` drives Optuna, and ``next_step``, ``settings`` and ``source`` import neither, so that
a plan simulates with the same decisions. May import ``cluster``, ``spec``, ``ledger`` and the packages below them.
Start with ``run``, then read ``recorder``.
"""
