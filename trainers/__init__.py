"""Trains and predicts; knows nothing of Ray, MLflow, Optuna or the orchestrator.

Every package may import ``errors``, ``wording`` and ``files``; the packages' own ``__init__`` name what else.
"""
