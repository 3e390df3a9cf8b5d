"""Trains and predicts; knows nothing of Ray, MLflow, Optuna or the orchestrator.

Every package may import ``errors``, ``wording`` and ``files``; the packages' own ``__init__`` name what else.
"""

import os

# TensorFlow reads it once, when it is imported. By itself it uses oneDNN only on CPUs with AVX-512 VNNI or AMX, though
# training is twice as fast with it on those with AVX2 alone (docs/decisions/0024-onednn-on-every-cpu.md).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
