"""Prediction with trained networks: whole splits for the leaderboard, and the registered model.

May import everything in ``trainers`` except ``export``. Start with ``model``: the format and use of a served folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.serving.model import ServedModel


def _load_pyfunc(data_path: str) -> ServedModel:
    """Load a registered model. MLflow calls this: each registered model names this package as its ``loader_module``."""
    from trainers.serving.model import ServedModel

    return ServedModel(Path(data_path))
