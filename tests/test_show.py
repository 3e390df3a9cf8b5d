"""What a sweep's folder says, from the ledger alone."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path

import pytest
from rich.console import Console
from sweep_on_disk import ROW, WINNER, write_sweep

from orchestrator import show
from orchestrator.errors import OrchError


def test_describe_has_exactly_the_keys_that_programs_rely_on(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    found = show.describe(tmp_path / "tiny")
    assert list(found) == ["name", "stage", "states", "trials", "winner", "leaderboard", "mlflow"]
    assert found["name"] == "tiny"
    assert found["stage"] == "finished"
    assert found["states"] == {"COMPLETED": 1, "PRUNED": 1, "FAILED": 1}
    assert found["winner"] == WINNER
    assert found["leaderboard"] == [ROW]
    assert found["mlflow"] == "run-1"
    assert [list(trial) for trial in found["trials"]] == [
        ["id", "state", "reason", "epochs", "val_accuracy", "config"]
    ] * 3
    first, pruned, failed = found["trials"]
    assert (first["id"], first["state"], first["epochs"], first["val_accuracy"]) == ("aaaaaaaaa1", "COMPLETED", 2, 0.95)
    assert first["config"]["backbone"] == "small_cnn"
    assert (pruned["state"], pruned["reason"]) == ("PRUNED", "stopped at rung 1")
    assert (failed["state"], failed["val_accuracy"]) == ("FAILED", None)
    json.dumps(found, allow_nan=False)


def test_retrained_models_are_no_trials_of_the_search(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    sweep = show.read_sweep(tmp_path / "tiny")
    assert "aaaaaaaaa9" in sweep.state.trials
    assert "aaaaaaaaa9" not in [trial["id"] for trial in show.describe(tmp_path / "tiny")["trials"]]


def test_a_sweep_that_only_just_began_is_described(tmp_path: Path) -> None:
    (tmp_path / "new" / "ledger").mkdir(parents=True)
    found = show.describe(tmp_path / "new")
    assert found == {
        "name": "new",
        "stage": "",
        "states": {},
        "trials": [],
        "winner": None,
        "leaderboard": [],
        "mlflow": None,
    }


def test_status_of_a_running_sweep_says_how_it_goes_and_how_long_it_takes(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny", ended="RUNNING")
    sweep = show.read_sweep(tmp_path / "tiny")
    text = "\n".join(show.status_lines(sweep, now_s=1_000_000.0 + 240))
    assert "tiny: in the stage search" in text
    assert "3 of 4 ended; 1 RUNNING, 1 COMPLETED, 1 PRUNED, 1 FAILED" in text
    assert "0.950 on validation: aaaaaaaaa1" in text
    assert "45 trials an hour over 0:04:00" in text
    assert "about 0:01:20 of search" in text
    assert "the loss became NaN in epoch 1" in text
    assert f"orch sweep --resume --out {tmp_path / 'tiny'}" in text


def test_progress_counts_the_time_in_which_trials_ran(tmp_path: Path) -> None:
    write_sweep(tmp_path / "stopped", ended="INTERRUPTED")
    done = show.progress(show.read_sweep(tmp_path / "stopped"), now_s=9e9)
    assert (done.ended, done.total, done.running, done.elapsed_s) == (3, 4, 0, 180.0)
    assert done.per_hour == pytest.approx(60.0)
    assert done.left_s == pytest.approx(60.0)


def test_progress_before_the_first_trial_has_no_rate(tmp_path: Path) -> None:
    (tmp_path / "new" / "ledger").mkdir(parents=True)
    done = show.progress(show.read_sweep(tmp_path / "new"), now_s=0.0)
    assert (done.ended, done.elapsed_s) == (0, 0.0)
    assert math.isnan(done.per_hour)
    assert math.isnan(done.left_s)


@pytest.mark.parametrize(
    ("ended", "reason", "words"),
    [
        ("FINISHED", "", "tiny: finished"),
        ("STOPPED", "until search, as asked", "in the stage search (stopped, until search, as asked)"),
        ("INTERRUPTED", "", "in the stage search (interrupted)"),
    ],
)
def test_the_stage_in_words(tmp_path: Path, ended: str, reason: str, words: str) -> None:
    write_sweep(tmp_path / "tiny", ended=ended, reason=reason)
    assert words in show.status_lines(show.read_sweep(tmp_path / "tiny"), 0.0)[0]


def test_show_prints_winner_reason_leaderboard_trials_and_what_to_type_next(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny")
    text = io.StringIO()
    show.print_sweep(tmp_path / "tiny", Console(file=text, width=140, highlight=False))
    shown = text.getvalue()
    for part in (
        "winner: trial aaaaaaaaa1, model ensemble, policy whole",
        "because aaaaaaaaa1 has the highest validation accuracy.",
        "winner/ensemble",
        "the best 2 of 3 trials",
        "aaaaaaaaa3 003 small_cnn drop=0.2: the loss became NaN in epoch 1 (logs/aaaaaaaaa3.log)",
        f"next: orch promote best {tmp_path / 'tiny'}",
    ):
        assert part in shown, part


def test_trials_trained_in_full_come_before_pruned_ones_that_looked_better(tmp_path: Path) -> None:
    write_sweep(tmp_path / "tiny", ended="RUNNING")
    best = show.read_sweep(tmp_path / "tiny").best()
    assert [record.id for record in best] == ["aaaaaaaaa1", "aaaaaaaaa4", "aaaaaaaaa2"]


def test_finding_a_sweep_by_path_by_name_and_the_newest(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for age, (name, ended) in enumerate([("old", "FINISHED"), ("new", "INTERRUPTED")]):
        paths = write_sweep(runs / name, ended=ended)
        os.utime(paths.ledger, (1000 + age, 1000 + age))
    assert show.find_sweep(str(runs / "old"), runs=runs) == runs / "old"
    assert show.find_sweep("old", runs=runs) == runs / "old"
    assert show.find_sweep(None, runs=runs) == runs / "new"
    assert show.find_sweep(None, finished=True, runs=runs) == runs / "old"
    assert show.newest_unfinished(runs) == runs / "new"
    assert show.newest_store(runs) == "sqlite:////x/mlflow.db"
    with pytest.raises(OrchError, match=r"there is no sweep 'odl'\. Below .*runs/ there is new, old\."):
        show.find_sweep("odl", runs=runs)


def test_nothing_to_find_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match=r"no finished sweep\. Below .* none yet; orch sweep FILE makes one"):
        show.find_sweep(None, finished=True, runs=tmp_path)
    write_sweep(tmp_path / "done")
    with pytest.raises(
        OrchError, match=r"no unfinished sweep\. Below .* there is done\..*--resume --out .*--trials \+20"
    ):
        show.newest_unfinished(tmp_path)
    with pytest.raises(OrchError, match="is not a sweep's folder: there is no ledger/ in it"):
        show.read_sweep(tmp_path)


def test_json_ready_leaves_no_value_that_json_has_no_word_for() -> None:
    import numpy as np

    from orchestrator.ledger import TrialState

    values = {
        "nan": math.nan,
        "infinite": (math.inf, 1.5),
        "numpy": np.float32(0.5),
        "count": np.int64(3),
        "flag": np.bool_(True),
        "state": TrialState.COMPLETED,
        "path": Path("a/b"),
        1: {"x"},
    }
    assert show.json_ready(values) == {
        "nan": None,
        "infinite": [None, 1.5],
        "numpy": 0.5,
        "count": 3,
        "flag": True,
        "state": "COMPLETED",
        "path": "a/b",
        "1": ["x"],
    }
