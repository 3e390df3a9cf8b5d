"""Trains and predicts; knows nothing of Ray, MLflow, Optuna or the orchestrator."""
