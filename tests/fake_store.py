"""Fresh MLflow stores for tests. Making the tables of one takes seconds, so it is done once and copied."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from orchestrator.mlflow_store import connect


@functools.cache
def _migrated() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="orch-test-store-"))
    connect(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


def new_store(folder: Path) -> str:
    """The URI of an empty store whose database lies in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_migrated(), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"
