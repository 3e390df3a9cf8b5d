"""`orch sync`: send MLflow what it missed of a sweep."""

from __future__ import annotations

from pathlib import Path

from orchestrator.machine.places import require_record
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import load_spec
from orchestrator.tracking.mlflow_writer import SyncResult
from orchestrator.tracking.settings import tracking_settings
from orchestrator.tracking.tracker import synchronise


def sync_folder(folder: Path) -> SyncResult:
    """Send MLflow the events and files that it lacks of the sweep in ``folder``. Raises OrchError."""
    require_record(folder)
    return synchronise(folder, tracking_settings(load_spec(str(SweepPaths(folder).spec), check_machine=False)))
