"""Sweeps that 42b062d began: the folder of one that was killed, and of one that is finished."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.ledger.state import derive
from tests.support.since_42b062d import orch, unpack

DONE = {"5ee56bc370", "f81d248060"}
"""Trials that had ended when the driver was killed."""
BEGUN = "5a4eb66f5c"
"""The trial that had not."""
WINNER, SEEDS = "b796751d9f", ["cc71357969", "6cf779da59"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "orch-cache"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sweep ``finished``, for tests that change nothing in it."""
    return unpack(tmp_path_factory.mktemp("finished"), "finished")


@pytest.mark.slow
def test_a_killed_search_goes_on_and_trains_no_finished_trial_again(tmp_path: Path, cache: Path) -> None:
    folder = unpack(tmp_path, "killed")
    before = read_events(folder / "killed" / "ledger")
    assert {t for t, record in derive(before).trials.items() if record.state.is_final} == DONE
    weights = {trial: (folder / "killed" / "models" / trial / "weights.npz").read_bytes() for trial in DONE}
    done = orch(folder, cache, "sweep", "--resume", "--out", "killed", "--trials", "5", "--until", "search")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "resumed with 2 trials done" in done.stdout
    events = read_events(folder / "killed" / "ledger")
    assert events[: len(before)] == before
    assert not [event for event in events[len(before) :] if event.trial in DONE]
    trials = derive(events).trials
    assert len(trials) == 5
    assert {*DONE, BEGUN} < trials.keys()
    assert all(record.state.is_final for record in trials.values())
    assert all((folder / "killed" / "models" / t / "weights.npz").read_bytes() == weights[t] for t in DONE)


def test_a_finished_sweep_is_shown(finished: Path, cache: Path) -> None:
    done = orch(finished, cache, "show", "finished", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["stage"] == "finished"
    assert shown["winner"]["trial"] == WINNER
    assert {t["id"] for t in shown["trials"]} == {WINNER, "6ad0643ba6", "ede09e9fe9"}
    assert [row["accuracy"] for row in shown["leaderboard"]] == pytest.approx([0.9192, 0.9109, 0.9025], abs=5e-5)


def test_a_finished_sweep_has_a_status(finished: Path, cache: Path) -> None:
    done = orch(finished, cache, "status", "finished")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 ended" in done.stdout


def test_a_finished_sweep_is_compared(finished: Path, cache: Path) -> None:
    done = orch(finished, cache, "compare", "finished")
    assert done.returncode == 0, done.stderr
    assert "359 photos of the test split" in done.stdout
    assert "90.7" in done.stdout


def test_the_tables_of_a_finished_sweep_are_read_by_pandas(finished: Path) -> None:
    ledger = pd.read_parquet(finished / "finished" / "ledger")
    assert len(ledger) == len(read_events(finished / "finished" / "ledger"))
    board = pd.read_parquet(finished / "finished" / "leaderboard.parquet")
    assert board.loc[board["winner"], "model"].tolist() == ["winner/ensemble"]


@pytest.mark.slow
def test_a_finished_sweep_is_exported(tmp_path: Path, cache: Path) -> None:
    folder = unpack(tmp_path, "finished")
    done = orch(folder, cache, "export", "finished", "--to", "tflite", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "finished" / "exports" / "report.json").read_text())
    assert report["original"]["accuracy"] == pytest.approx(0.9192, abs=5e-5)
    assert report["original"]["largest_change"] < 1e-5
    (export,) = report["exports"]
    assert (export["name"], export["state"]) == ("tflite", "kept")
    assert (folder / "finished" / "exports" / export["file"]).is_file()


@pytest.mark.slow
def test_a_finished_sweep_takes_more_trials(tmp_path: Path, cache: Path) -> None:
    """With another winner perhaps: to the end. Quicker, of a killed one and without the end: above."""
    folder = unpack(tmp_path, "finished")
    before = read_events(folder / "finished" / "ledger")
    done = orch(folder, cache, "sweep", "--resume", "--out", "finished", "--trials", "+2")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "resumed with 3 trials done" in done.stdout
    events = read_events(folder / "finished" / "ledger")
    state = derive(events)
    searched = {trial for trial, record in state.trials.items() if record.stage == "search"}
    assert len(searched) == 5
    old = {trial for trial, record in derive(before).trials.items() if record.stage == "search"}
    assert not [
        e for e in events[len(before) :] if e.trial in old and e.kind == EventKind.EPOCH and e.stage == "search"
    ]
    assert json.loads(orch(folder, cache, "show", "finished", "--json").stdout)["stage"] == "finished"
