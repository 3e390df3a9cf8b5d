"""orch decides, schedules and records; it never imports TensorFlow.

Every package below may import ``trainers``; the packages' own ``__init__`` name what else.

``import orchestrator as orch`` gives the names of ``orchestrator.api``, loaded on first use. Start reading with
``docs/architecture.md``, then ``sweep.pipeline``.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    import importlib

    api = importlib.import_module("orchestrator.api")
    if name.startswith("_") or not hasattr(api, name):
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    return getattr(api, name)
