"""The stage select on real photos, with figures written down instead of trained: folds, front and rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import NoWinner
from orchestrator.ledger.segments import EventKind
from orchestrator.sweep import data, select
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.probabilities import missing_jobs
from tests.support.printed_lines import PrintedLines
from trainers.config import TrialConfig

Open = Callable[..., SweepContext]


def add_trial(sweep: SweepContext, number: int, folds: Sequence[float], speed: float = math.nan) -> None:
    about: dict[str, Any] = {"trial": f"t{number}", "stage": "search"}
    config = TrialConfig(backbone="small_cnn", hidden=number).to_dict()
    proposal = {"ask": number, "parameters": {"hidden": number}}
    created = {"config": config, "name": "", "number": number, "proposal": proposal}
    sweep.ledger.append(EventKind.TRIAL, state="PENDING", payload=created, **about)
    sweep.ledger.append(EventKind.TRIAL, state="RUNNING", **about)
    for epoch in (1, 2):
        for fold, value in enumerate(folds if len(folds) > 1 else (), start=1):
            sweep.ledger.append(EventKind.EPOCH, epoch=epoch, fold=fold, val_accuracy=value, **about)
        figures = {"val_accuracy": float(np.mean(folds)), "val_loss": 0.5, "images_per_s": speed, "seconds": 1.0}
        sweep.ledger.append(EventKind.EPOCH, epoch=epoch, **figures, **about)
    sweep.ledger.append(EventKind.TRIAL, state="COMPLETED", epoch=2, **about)


def predicts(monkeypatch: pytest.MonkeyPatch, asked: list[tuple[Any, str]]) -> None:
    """In place of workers: a fit is right about half of the images, under flip about ten more."""

    def predict_missing(sweep: SweepContext, groups: Sequence[Sequence[str]], split: str) -> None:
        asked.append(([list(group) for group in groups], split))
        for fit in (fit for group in groups for fit in group):
            for policy, hits in (("whole", 50), ("flip", 60)):
                path = sweep.paths.probabilities(fit, split, policy)
                path.parent.mkdir(parents=True, exist_ok=True)
                right = np.arange(100) < hits
                hashes = [f"{i:064x}" for i in range(100)]
                answers = {"probabilities": np.stack([right, ~right], 1), "labels": np.zeros(100, np.int32)}
                np.savez(path, sha256=hashes, **answers)

    monkeypatch.setattr(select, "predict_missing", predict_missing)


def test_with_folds_the_winner_is_the_best_over_all_their_images(
    open_sweep: Open, printed: PrintedLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = open_sweep(folds=2)
    manifest = data.prepare_data(sweep)
    first, second = data.fold_sizes(manifest)
    add_trial(sweep, 1, (0.9, 0.5))
    add_trial(sweep, 2, (0.8, 0.9))
    asked: list[Any] = []
    predicts(monkeypatch, asked)
    winner = select.select(sweep, manifest)
    assert (winner.trial, winner.policy, winner.front) == ("t2", "flip", ())
    correct = round(0.8 * first) + round(0.9 * second)
    assert f"({correct} of {first + second} images in 2 folds)" in winner.reason
    assert "002 small_cnn hidden=2 (t2)" in winner.reason
    assert asked == [([["t2"]], "validation")]
    assert "front" not in winner.to_dict()
    [job] = missing_jobs(sweep, ["other"], "validation")
    assert job["folds"] == 2
    [job] = missing_jobs(sweep, ["other"], "test")
    assert job["folds"] == 0


def test_the_front_and_the_rule_reach_the_record(
    open_sweep: Open, printed: PrintedLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = open_sweep(objective="[val_accuracy, images_per_s]", choose="{at_least: {images_per_s: 50}}")
    manifest = data.prepare_data(sweep)
    for number, (accuracy, speed) in enumerate(((0.9, 10.0), (0.8, 60.0), (0.7, 55.0)), start=1):
        add_trial(sweep, number, (accuracy,), speed)
    predicts(monkeypatch, [])
    winner = select.select(sweep, manifest)
    assert winner.trial == "t2"
    rows = [(row["trial"], row["chosen"]) for row in winner.to_dict()["front"]]
    assert rows == [("t1", False), ("t2", True)]
    assert sweep.state().stages["select"]["winner"] == winner.to_dict()
    assert "within the bounds (at least 50.0 images/s)" in winner.reason
    told = [line for line in printed.lines if "images/s" in line]
    assert told[0].strip().startswith("90.")
    assert told[1].strip().startswith("* ")
    before = len(sweep.ledger.events())
    assert select.select(sweep, manifest) == winner
    assert len(sweep.ledger.events()) == before, "what is in the record already is not recorded again"


def test_no_trial_within_the_bounds_ends_the_sweep_with_a_sentence(open_sweep: Open) -> None:
    sweep = open_sweep(choose="{at_least: {val_accuracy: 0.99}}")
    manifest = data.prepare_data(sweep)
    add_trial(sweep, 1, (0.9,))
    with pytest.raises(
        NoWinner, match=r"has at least 99.00 % validation accuracy; 001 small_cnn hidden=1 \(t1\) comes n"
    ):
        select.select(sweep, manifest)
