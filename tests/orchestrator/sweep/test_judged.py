"""The winner that the last finished leaderboard judged."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.folder import Sweep, read_sweep
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.sweep.judged import (
    HALF_TOLERANCE,
    TOLERANCE,
    JudgedWinner,
    difference,
    judged_answers,
    judged_in,
    judged_winner,
    tolerance,
)
from tests.support.tiny_fits import CLASSES, write_manifest
from trainers.calibration import Calibration, tempered
from trainers.data.manifest import Manifest
from trainers.serving.model import MODEL_FILE

FIRST = JudgedWinner({"trial": "t1", "policy": "flip"}, {"accuracy": 0.9}, ("a", "b"))
SECOND = JudgedWinner({"trial": "t2", "policy": "whole"}, {"accuracy": 0.8}, ("c",))


def sweep_of(folder: Path, *judged: JudgedWinner, fits: list[str], policy: str) -> Sweep:
    """A sweep with a leaderboard for each of ``judged``; its winner's folder holds ``fits``."""
    paths = SweepPaths(folder)
    paths.winner.mkdir(parents=True)
    (paths.winner / MODEL_FILE).write_text(json.dumps({"fits": fits, "policy": policy}))
    with Ledger(paths.ledger) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        for each in judged:
            ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload=each.to_dict())
        ledger.append(EventKind.STAGE, stage="leaderboard", state="BEGUN", payload={"reads_test": 1})
    return read_sweep(folder)


def test_the_last_leaderboard_counts(tmp_path: Path) -> None:
    assert judged_winner(sweep_of(tmp_path / "a", FIRST, fits=["a", "b"], policy="flip")) == FIRST
    assert judged_winner(sweep_of(tmp_path / "b", FIRST, SECOND, fits=["c"], policy="whole")) == SECOND


@pytest.mark.parametrize(("fits", "policy"), [(["a", "b"], "flip"), (["c"], "flip"), (["c", "d"], "whole")])
def test_another_model_in_the_winners_folder_is_refused(tmp_path: Path, fits: list[str], policy: str) -> None:
    sweep = sweep_of(tmp_path / "s", FIRST, SECOND, fits=fits, policy=policy)
    with pytest.raises(OrchError, match="was given more to do after its last leaderboard and did not finish"):
        judged_winner(sweep)


def test_without_a_leaderboard_or_a_model_there_is_no_winner(tmp_path: Path) -> None:
    with pytest.raises(OrchError, match="has no finished leaderboard, so no winner; resume it: `orch sweep --resume"):
        judged_winner(sweep_of(tmp_path / "a", fits=["a"], policy="flip"))
    sweep = sweep_of(tmp_path / "b", FIRST, fits=["a", "b"], policy="flip")
    (sweep.paths.winner / MODEL_FILE).unlink()
    with pytest.raises(OrchError, match="has no finished leaderboard"):
        judged_winner(sweep)


def answers(precision: str, device: str) -> dict[str, np.ndarray]:
    return {"precision": np.array(precision), "device": np.array(device)}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([answers("float32", "cpu")] * 2, {"precision": "float32", "device": "cpu", "tolerance": TOLERANCE}),
        (
            [answers("mixed_float16", "gpu")],
            {"precision": "mixed_float16", "device": "gpu", "tolerance": HALF_TOLERANCE},
        ),
        (
            [answers("float32", "cpu"), answers("float32,mixed_float16", "cpu,gpu")],
            {"precision": "float32,mixed_float16", "device": "cpu,gpu", "tolerance": HALF_TOLERANCE},
        ),
        ([answers("float32", "cpu"), {"labels": np.zeros(1)}], {}),
    ],
)
def test_the_precision_of_stored_probabilities_decides_the_tolerance(members: list, expected: dict) -> None:
    assert judged_in(members) == expected


def test_the_machine_that_continues_a_sweep_does_not_change_how_its_winner_is_compared(tmp_path: Path) -> None:
    half = dataclasses.replace(FIRST, judged_in=judged_in([answers("mixed_float16", "gpu")]))
    for name, judged, expected in (("a", half, HALF_TOLERANCE), ("b", FIRST, TOLERANCE)):
        sweep = sweep_of(tmp_path / name, judged, fits=["a", "b"], policy="flip")
        with Ledger(sweep.paths.ledger) as ledger:
            machine = {"precision": "auto", "machine": {"cpus": 2, "gpus": 0, "gpus_per_trial": 0}}
            ledger.append(EventKind.SWEEP, state="RUNNING", payload=machine)
        sweep = read_sweep(sweep.paths.root)
        again = judged_winner(sweep)
        assert (again, tolerance(sweep, again)) == (judged, expected)


class Answering:
    """A model that gives the same probabilities for every photo."""

    def __init__(self, rows: np.ndarray) -> None:
        self.said = [json.dumps(dict(zip(CLASSES, row.tolist(), strict=True))) for row in rows]

    def predict(self, frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"probabilities": self.said[: len(frame)]})


@pytest.mark.parametrize("temperature", [None, 1.0, 0.4, 2.0])
def test_a_calibrated_model_is_compared_with_calibrated_answers(tmp_path: Path, temperature: float | None) -> None:
    sweep = sweep_of(tmp_path / "s", SECOND, fits=["c"], policy="whole")
    write_manifest(tmp_path / "pictures", {"train": 2, "test": 4}).rename(sweep.paths.manifest)
    manifest = Manifest.read(sweep.paths.manifest)
    test = manifest.split("test")
    row = np.linspace(0.6, 0.1, len(CLASSES))
    rows = np.tile(row / row.sum(), (len(test.table), 1))
    path = sweep.paths.probabilities("c", "test", "whole")
    path.parent.mkdir(parents=True)
    np.savez(path, probabilities=rows, labels=test.labels(), sha256=test.table["sha256"].to_numpy(str))
    calibration = None if temperature is None else Calibration(temperature)
    found = judged_answers(sweep, dataclasses.replace(SECOND, calibration=calibration), manifest)
    assert len(found.photos) == found.wanted > 0
    assert found.tolerance == TOLERANCE / min(1.0, temperature or 1.0)
    assert difference(found, Answering(tempered(rows, temperature or 1.0))) == ""
    if temperature not in (None, 1.0):
        assert "does not answer as it was judged" in difference(found, Answering(rows))
