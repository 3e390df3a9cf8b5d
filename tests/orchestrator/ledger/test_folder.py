"""A sweep's folder, and finding it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.folder import Wanted, find_sweep, newest_unfinished, read_sweep
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
    assert find_sweep(None, Wanted.FINISHED, runs=runs) == runs / "old"
    assert newest_unfinished(runs) == runs / "new"
    assert newest_store(runs) == "sqlite:////x/mlflow.db"
    with pytest.raises(OrchError, match=r"there is no sweep 'odl'\. The sweeps in .*runs/: new, old\."):
        find_sweep("odl", runs=runs)


def write_failed(root: Path, age: int, reason: str = "class 'hat' has 2 images;\nat least 3 are needed.") -> None:
    """A sweep that failed while it read its photos."""
    with Ledger(root / "ledger") as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        ledger.append(EventKind.STAGE, stage=Stage.DATA, state="BEGUN")
        ledger.append(EventKind.SWEEP, state="FAILED", reason=reason)
    os.utime(root / "ledger", (1000 + age, 1000 + age))


def test_newer_sweeps_without_trials_are_passed_over_and_named(tmp_path: Path) -> None:
    told: list[str] = []
    os.utime(write_sweep(tmp_path / "old").ledger, (1001, 1001))
    write_failed(tmp_path / "bad", 2)
    for wanted, what in ((Wanted.STARTED, "has no trials to show"), (Wanted.FINISHED, "is not finished")):
        assert find_sweep(None, wanted, tmp_path, told.append) == tmp_path / "old"
        assert told.pop() == (
            f"{tmp_path}/bad is newer but {what}: it failed in the stage data: class 'hat' has 2 images; at least 3 "
            "are needed."
        )
    write_failed(tmp_path / "worse", 3, "no photos.")
    assert find_sweep(None, Wanted.STARTED, tmp_path, told.append) == tmp_path / "old"
    assert told.pop().startswith(f"{tmp_path}/worse is newer, as is 1 other, but has no trials to show: it failed")
    assert find_sweep(None, Wanted.ANY, tmp_path, told.append) == tmp_path / "worse"
    assert find_sweep("bad", Wanted.STARTED, tmp_path, told.append) == tmp_path / "bad"
    assert told == []


def test_where_no_sweep_has_trials_the_newest_says_why(tmp_path: Path) -> None:
    write_failed(tmp_path / "bad", 1)
    write_failed(tmp_path / "worse", 2, "no photos.")
    assert find_sweep(None, Wanted.STARTED, tmp_path) == tmp_path / "worse"
    with pytest.raises(
        OrchError, match=r"no finished sweep.* The newest, .*worse, failed in the stage data: no photos\."
    ):
        find_sweep(None, Wanted.FINISHED, tmp_path)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("RUNNING", "it was interrupted in the stage search."),
        ("INTERRUPTED", "it was interrupted in the stage search: why."),
        ("STOPPED", "it stopped in the stage search: why."),
    ],
)
def test_an_unfinished_sweep_says_how_far_it_came(tmp_path: Path, state: str, words: str) -> None:
    told: list[str] = []
    os.utime(write_sweep(tmp_path / "old").ledger, (1001, 1001))
    write_sweep(tmp_path / "new", ended=state, reason="why.")
    assert find_sweep(None, Wanted.FINISHED, tmp_path, told.append) == tmp_path / "old"
    assert told == [f"{tmp_path}/new is newer but is not finished: {words}"]


def test_an_extension_that_was_interrupted_leaves_the_leaderboard_to_be_found(tmp_path: Path) -> None:
    told: list[str] = []
    paths = write_sweep(tmp_path / "more")
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.STAGE, stage=Stage.LEADERBOARD, state="ENDED")
        ledger.append(EventKind.SWEEP, state="FINISHED")
        ledger.append(EventKind.SWEEP, state="RUNNING")
        ledger.append(EventKind.STAGE, stage=Stage.SEARCH, state="BEGUN")
        ledger.append(EventKind.SWEEP, state="INTERRUPTED", reason="why.")
    assert find_sweep(None, Wanted.FINISHED, tmp_path, told.append) == tmp_path / "more"
    assert told == [f"{tmp_path}/more was interrupted in the stage search: why; its last leaderboard is used."]
    assert newest_unfinished(tmp_path) == tmp_path / "more"


def test_nothing_to_find_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match=r"no finished sweep.*orch sweep FILE"):
        find_sweep(None, Wanted.FINISHED, runs=tmp_path)
    write_sweep(tmp_path / "done")
    with pytest.raises(
        OrchError, match=r"no unfinished sweep\. The sweeps in .*: done\..*--resume --out .*--trials \+20"
    ):
        newest_unfinished(tmp_path)
    with pytest.raises(OrchError, match="is not a sweep's folder: there is no ledger/ in it"):
        read_sweep(tmp_path)


def test_a_prefill_is_no_stage_that_a_sweep_is_in(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        ledger.append(EventKind.STAGE, stage=Stage.SEARCH, state="BEGUN")
        ledger.append(EventKind.STAGE, stage=Stage.PREFILL, state="ENDED", payload={"for": "t"})
    assert read_sweep(tmp_path).stage == Stage.SEARCH
