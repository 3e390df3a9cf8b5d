"""orch from Python: the names of ``orchestrator.api``, loaded lazily through ``orchestrator``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import orchestrator as orch
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    paths = SweepPaths(tmp_path / "runs" / "tiny")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.STAGE, stage="search", state="BEGUN")
        config = {"backbone": "small_cnn", "dropout": 0.2}
        ledger.append(EventKind.TRIAL, trial="t1", state="PENDING", stage="search", payload={"config": config})
    return paths.root


def test_a_sweep_is_opened_and_read(sweep: Path) -> None:
    view = orch.open_sweep(sweep)
    assert (view.folder, view.stage) == (sweep, "search")
    assert view.trials["id"].tolist() == ["t1"]
    assert view.leaderboard.empty
    assert orch.sweeps(sweep.parent) == [sweep]


def test_a_shipped_file_is_loaded_by_its_name() -> None:
    assert orch.load_spec("quick", ["budget.trials=3"]).budget.trials == 3


def test_what_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match="no sweep"):
        orch.open_sweep(tmp_path)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = orch.nothing_here


def test_the_import_loads_nothing_heavy() -> None:
    heavy = {"ray", "tensorflow", "mlflow", "optuna", "pandas"}
    code = f"import sys, orchestrator as o; o.sweeps; print({heavy} & {{*sys.modules}})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
