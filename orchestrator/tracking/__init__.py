"""MLflow: runs, replay after an outage, the model registry.

The only package that imports MLflow, and only inside functions. May import ``spec``, ``ledger`` and what is below.
Start with ``tracker``.
"""
