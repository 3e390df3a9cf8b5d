"""Trials that draw their copies and random crops anew in each epoch: to the last bit, wherever the images come from."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.places import ROOT
from tests.support.tiny_fits import figures, job
from trainers.contract import FitJob
from trainers.store.inventory import contents, rows_of
from trainers.store.shelf import Shelf
from trainers.training.balance import example_order, occurrences
from trainers.training.features import FreshRows
from trainers.training.loop import TrainingFit, open_fit
from trainers.training.prefill import fill

CASES: dict[str, dict[str, Any]] = {
    "copies": {"unfrozen_layers": "all", "multiplier": 2.0, "recipe": "contest"},
    "copies of the central square": {"unfrozen_layers": "all", "multiplier": 1.5, "view": "centre_crop"},
    "crops": {"unfrozen_layers": "all", "view": "random_crop", "batch_norm": "measured"},
    "sampled crops and copies": {
        "unfrozen_layers": "all",
        "view": "random_crop",
        "multiplier": 1.5,
        "recipe": "contest",
        "copies": "proportional",
        "balance": "sampling",
    },
    "mixed": {"mixup": 0.4, "multiplier": 2.0, "steps": "originals"},
    "crops and copies, mixed": {
        "cutmix": 1.0,
        "multiplier": 2.0,
        "view": "random_crop",
        "recipe": "rand",
        "decode": "needed",
    },
}


def fresh(manifest: Path, cache: Path, case: str, seed: int = 0, **more: Any) -> FitJob:
    asked = job(manifest, cache, seed, **{**CASES[case], "draws": "fresh", **more})
    assert asked.config.draws == more.get("draws", "fresh")
    return asked


def opened(asked: FitJob) -> TrainingFit:
    fit = open_fit(asked)
    assert isinstance(fit, TrainingFit)
    return fit


def epochs(asked: FitJob) -> list[dict[str, float]]:
    fit = open_fit(asked)
    return [figures(fit.run_epoch()) for _ in range(asked.config.epochs)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fits", [True, False])
def test_neither_sharing_nor_room_in_the_store_changes_a_digit(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, fits: bool
) -> None:
    asked = fresh(manifest, tmp_path / "roomy", case)
    expected = epochs(asked)
    if not fits:
        monkeypatch.setattr(Shelf, "has_room_for", lambda shelf, keys, row_bytes: False)
    small = dataclasses.replace(asked, share=False, cache=str(tmp_path / "small"), threads=3)
    assert epochs(small) == expected
    assert (tmp_path / "small" / "images").exists() is fits


@pytest.mark.parametrize("case", CASES)
def test_every_epoch_and_seed_sees_other_copies_and_the_same_labels(manifest: Path, cache: Path, case: str) -> None:
    fit = opened(fresh(manifest, cache, case))
    places = np.arange(len(fit.train))
    drawn = [fit.train.in_epoch(epoch).take(places) for epoch in (0, 0, 1)]
    drawn.append(opened(fresh(manifest, cache, case, seed=1)).train.in_epoch(0).take(places))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    first = 0 if fit.config.view == "random_crop" else fit.originals
    for other in drawn[2:]:
        np.testing.assert_array_equal(other[:first], drawn[0][:first])
        changed = (other[first:] != drawn[0][first:]).any((1, 2, 3))
        assert changed.mean() > 0.6
    fixed = opened(fresh(manifest, cache, case, draws="fixed"))
    np.testing.assert_array_equal(fixed.train.labels, fit.train.labels)
    np.testing.assert_array_equal(fixed.train.in_epoch(0).take(places), fixed.train.in_epoch(1).take(places))


def test_an_example_that_an_epoch_takes_again_is_drawn_again(manifest: Path, cache: Path) -> None:
    fit = opened(fresh(manifest, cache, "sampled crops and copies"))
    for epoch in range(2):
        order = example_order(fit.train.labels, "sampling", 0, epoch)
        found = fit.train.of_epoch(epoch, order)
        drawn = found.take(np.arange(len(order)))
        assert len(np.unique(order)) < len(order) - 3
        assert len({image.tobytes() for image in drawn}) == len(order)
        np.testing.assert_array_equal(found.take(np.arange(7, 12)), drawn[7:12])  # whatever was taken before
        once = occurrences(order) == 0
        np.testing.assert_array_equal(drawn[once], fit.train.in_epoch(epoch).take(order[once]))
        originals = order < fit.originals
        assert 0 < originals.sum() < len(order)
    fixed = opened(fresh(manifest, cache, "sampled crops and copies", draws="fixed"))
    np.testing.assert_array_equal(fixed.train.of_epoch(1, order).take(np.arange(9)), fixed.train.rows.take(order[:9]))


@pytest.mark.parametrize("case", CASES)
def test_validation_images_are_never_drawn(manifest: Path, cache: Path, case: str) -> None:
    drawn, fixed = (opened(fresh(manifest, cache, case, draws=draws)).validation for draws in ("fresh", "fixed"))
    assert drawn is not None
    assert fixed is not None
    assert not isinstance(drawn.rows, FreshRows)
    places = np.arange(len(drawn))
    np.testing.assert_array_equal(drawn.rows.take(places), fixed.rows.take(places))


def test_images_are_drawn_ahead_of_the_step(manifest: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fresh(manifest, cache, "copies")
    expected = epochs(asked)
    monkeypatch.setattr(FreshRows, "chunk_bytes", 10 * 16 * 16 * 3)
    take, on_the_training_thread = FreshRows.take, []

    def noting(rows: FreshRows, indices: np.ndarray) -> np.ndarray:
        on_the_training_thread.append(threading.current_thread() is threading.main_thread())
        return take(rows, indices)

    monkeypatch.setattr(FreshRows, "take", noting)
    for found, wanted in zip(epochs(asked), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-12)  # losses are summed chunk by chunk
    assert on_the_training_thread == [False] * 3 * 8  # chunks of one batch of 8


@pytest.mark.parametrize("case", ["copies", "crops and copies, mixed"])
def test_a_prefill_stores_originals_alone(manifest: Path, tmp_path: Path, case: str) -> None:
    done = fill(fresh(manifest, tmp_path, case).to_dict())
    held = contents(tmp_path).shelves
    train, validation = 30, 15
    wanted = validation if CASES[case].get("view") == "random_crop" else train + validation
    assert (done["images"], sum(rows_of(shelf).rows for shelf in held)) == (wanted, wanted)
    assert done["stored"]
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    epochs(fresh(manifest, tmp_path, case, epochs=2))
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_head_that_is_trained_first_keeps_fixed_images(manifest: Path, cache: Path) -> None:
    values = {"warm_head": 2, "hidden": 8}
    fit = opened(fresh(manifest, cache, "crops", **values))
    assert fit.start is not None
    assert fit.start.job.config.draws == "fixed"
    assert not isinstance(fit.start.rows.rows, FreshRows)
    shared = fresh(manifest, cache, "crops", **values)
    for own, other in zip(epochs(shared), epochs(dataclasses.replace(shared, share=False)), strict=True):
        assert own == pytest.approx(other, rel=1e-5)  # features computed in other batches


RESUME = """
import json, sys
from pathlib import Path
from tests.support.tiny_fits import figures
from trainers.contract import FitJob
from trainers.training.loop import open_fit
fit = open_fit(FitJob.from_dict(json.loads(sys.argv[1])))
fit.restore(Path(sys.argv[2]))
print(json.dumps([figures(fit.run_epoch()) for _ in range(2)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["crops and copies, mixed", "sampled crops and copies"])
def test_a_new_process_goes_on_to_the_last_digit(manifest: Path, cache: Path, tmp_path: Path, case: str) -> None:
    asked = fresh(manifest, cache, case)
    expected = epochs(asked)
    fit = open_fit(asked)
    fit.run_epoch()
    fit.save(tmp_path / "saved")
    given = [json.dumps(asked.to_dict()), str(tmp_path / "saved")]
    done = subprocess.run([sys.executable, "-c", RESUME, *given], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == expected[1:]
