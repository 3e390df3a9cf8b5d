"""Answering photos with trained networks: whole splits for the leaderboard, and the registered model.

May import everything in ``trainers`` but ``export``. Start with ``model``: a served folder and how it answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainers.serving.model import ServedModel


def _load_pyfunc(data_path: str) -> ServedModel:
    """MLflow's loader: every registered model names this package as its ``loader_module``."""
    from trainers.serving.model import ServedModel

    return ServedModel(Path(data_path))
