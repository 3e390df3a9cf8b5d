"""MLflow: runs, replay after an outage, the model registry.

The only package that imports MLflow, and only inside functions, since the import takes seconds. May import ``spec``,
``ledger``, ``machine`` and what is below them. Start with ``tracker``.
"""
