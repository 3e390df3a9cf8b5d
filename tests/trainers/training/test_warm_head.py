"""A head that is trained first, on the frozen backbone's features, and begins a deeper training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_fits import config, figures, job
from trainers.config import TrialConfig, head_first
from trainers.data.manifest import Manifest
from trainers.training import prefill
from trainers.training.loop import TrainingFit, open_fit

DEEP = {"unfrozen_layers": 8, "warm_head": 3, "hidden": 8}


def head_of(fit: TrainingFit) -> list[np.ndarray]:
    return [np.array(array) for array in fit.compiled.network.head_state()]


def fit_of(manifest: Path, cache: Path, **values: object) -> TrainingFit:
    fit = open_fit(job(manifest, cache, seed=2, **values))
    assert isinstance(fit, TrainingFit)
    return fit


def test_the_head_is_that_of_a_trial_of_the_head_alone(manifest: Path, cache: Path) -> None:
    """Trained for as many epochs, with the same seed; the learning rate of 0 keeps it as it begins."""
    alone = fit_of(manifest, cache, unfrozen_layers=0, hidden=8, epochs=3)
    for _ in range(3):
        alone.run_epoch()
    expected = head_of(alone)
    deep = fit_of(manifest, cache, **DEEP)
    before = head_of(deep)
    assert deep.start is not None
    deep._begin_with(deep.start)
    for found, wanted, random in zip(head_of(deep), expected, before, strict=True):
        np.testing.assert_array_equal(found, wanted)
        assert (found != random).any()


def test_only_the_first_epoch_trains_it(manifest: Path, cache: Path) -> None:
    fit = fit_of(manifest, cache, **DEEP)
    fit.run_epoch()
    assert fit.start is None
    assert fit.run_epoch().epoch == 2


def test_the_first_epoch_begins_better(manifest: Path, cache: Path) -> None:
    # Batches of a random backbone are normalised otherwise than by its untrained statistics.
    values = {**DEEP, "batch_norm": "frozen"}
    losses = [fit_of(manifest, cache, **{**values, "warm_head": n}).run_epoch().loss for n in (0, 20)]
    assert losses[1] < losses[0]


@pytest.mark.parametrize("values", [{}, {"unfrozen_layers": "all", "mixup": 0.4}, {"multiplier": 2.0}])
def test_stored_features_change_nothing(manifest: Path, cache: Path, values: dict) -> None:
    asked = job(manifest, cache, seed=2, **{**DEEP, **values})
    epochs = []
    for share in (True, False):
        fit = open_fit(dataclasses.replace(asked, share=share))
        epochs.append([figures(fit.run_epoch()) for _ in range(2)])
    # Frozen layers run in batches of other sizes, which some processors round differently.
    for stored, recomputed in zip(*epochs, strict=True):
        assert stored == pytest.approx(recomputed, rel=1e-5)


def test_a_prefill_computes_its_features_too(manifest: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    asked = job(manifest, cache, **DEEP)
    built = prefill.fill(asked.to_dict())
    originals = len(Manifest.read(manifest).split("train").table)
    plain = prefill.fill(job(manifest, tmp_path / "other", unfrozen_layers=8, hidden=8).to_dict())
    assert built["features"] == plain["features"] + originals
    again = prefill.fill(asked.to_dict())
    assert (again["features"], again["images"], again["stored"]) == (0, 0, True)


def test_what_the_head_keeps_of_a_configuration() -> None:
    deep = config(**DEEP, head="arcface", margin=0.3, dropout=0.2, smoothing=0.1, multiplier=3.0, mixup=0.2, ema=0.9)
    first = head_first(deep)
    assert (first.unfrozen_layers, first.epochs, first.warm_head, first.multiplier) == (0, 3, 0, 1.0)
    assert (first.head, first.margin, first.hidden, first.dropout) == ("arcface", 0.3, 8, 0.2)
    assert not first.prefix().mixes
    assert (first.ema, first.batch_norm, first.bottom_rate) == (0.0, TrialConfig().batch_norm, 1.0)
    assert config(unfrozen_layers=0, warm_head=3) == config(unfrozen_layers=0)


def test_fits_that_share_their_start_train_the_same_head_first(manifest: Path, cache: Path) -> None:
    heads = []
    for seed, start in ((1, 0), (2, 0), (2, None)):
        fit = open_fit(dataclasses.replace(job(manifest, cache, seed=seed, **DEEP), start_seed=start))
        assert isinstance(fit, TrainingFit)
        assert fit.start is not None
        fit._begin_with(fit.start)
        heads.append(head_of(fit))
    for one, other, own in zip(*heads, strict=True):
        np.testing.assert_array_equal(one, other)
        assert (one != own).any()
