"""A sweep's folder, and finding it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.folder import find_sweep, newest_unfinished, read_sweep
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.tracking.cursor import newest_store
from tests.support.sweep_on_disk import write_sweep


def test_finding_a_sweep_by_path_by_name_and_the_newest(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for age, (name, ended) in enumerate([("old", "FINISHED"), ("new", "INTERRUPTED")]):
        paths = write_sweep(runs / name, ended=ended)
        os.utime(paths.ledger, (1000 + age, 1000 + age))
    assert find_sweep(str(runs / "old"), runs=runs) == runs / "old"
    assert find_sweep("old", runs=runs) == runs / "old"
    assert find_sweep(None, runs=runs) == runs / "new"
    assert find_sweep(None, finished=True, runs=runs) == runs / "old"
    assert newest_unfinished(runs) == runs / "new"
    assert newest_store(runs) == "sqlite:////x/mlflow.db"
    with pytest.raises(OrchError, match=r"there is no sweep 'odl'\. Below .*runs/ there is new, old\."):
        find_sweep("odl", runs=runs)


def test_nothing_to_find_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match=r"no finished sweep.*orch sweep FILE"):
        find_sweep(None, finished=True, runs=tmp_path)
    write_sweep(tmp_path / "done")
    with pytest.raises(
        OrchError, match=r"no unfinished sweep\. Below .* there is done\..*--resume --out .*--trials \+20"
    ):
        newest_unfinished(tmp_path)
    with pytest.raises(OrchError, match="is not a sweep's folder: there is no ledger/ in it"):
        read_sweep(tmp_path)


def test_a_prefill_is_no_stage_that_a_sweep_is_in(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append(EventKind.STAGE, stage=Stage.SEARCH, state="BEGUN")
        ledger.append(EventKind.STAGE, stage=Stage.PREFILL, state="ENDED", payload={"for": "t"})
    assert read_sweep(tmp_path).stage == Stage.SEARCH
