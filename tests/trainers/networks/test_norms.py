"""The trained batch norms' moving statistics: with a momentum that fits, measured again, or frozen."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.support.tiny_fits import config, job
from trainers.networks.backbone import preprocess
from trainers.networks.norms import adapted_momentum
from trainers.training.loop import TrainingFit, open_fit

SEEDED = 5


def fit_of(manifest: Path, cache: Path, **values: object) -> TrainingFit:
    fit = open_fit(job(manifest, cache, seed=SEEDED, unfrozen_layers=8, **values))
    assert isinstance(fit, TrainingFit)
    return fit


def norms_of(fit: TrainingFit) -> list[keras.layers.BatchNormalization]:
    tail = fit.compiled.network.tail
    assert tail is not None
    return [layer for layer in tail.layers if isinstance(layer, keras.layers.BatchNormalization)]


def statistics(fit: TrainingFit) -> list[np.ndarray]:
    return [np.array(v) for norm in norms_of(fit) for v in (norm.moving_mean, norm.moving_variance)]


@pytest.mark.parametrize(
    ("steps", "momentum"), [(1, 0.5), (10, 0.5), (20, 0.75), (50, 0.9), (55, 1 - 1 / 11), (500, 0.99)]
)
def test_an_adapted_momentum_averages_over_a_fifth_of_an_epoch(steps: int, momentum: float) -> None:
    assert adapted_momentum(steps) == pytest.approx(momentum)


def test_the_adapted_momentum_is_set_for_each_trial_and_never_above_the_backbones(manifest: Path, cache: Path) -> None:
    long = fit_of(manifest, cache, batch_norm="adapted", batch_size=1)
    momentum = long.compiled.network.norms.momentum
    assert float(momentum) == pytest.approx(min(0.9, adapted_momentum(long.batches)))
    short = fit_of(manifest, cache, batch_norm="adapted", batch_size=8)
    assert short.compiled is long.compiled  # one traced step serves both
    assert float(momentum) == pytest.approx(adapted_momentum(short.batches))
    long.take_turn(long.state())
    assert float(momentum) == pytest.approx(min(0.9, adapted_momentum(long.batches)))
    very_long = fit_of(manifest, cache, batch_norm="adapted", batch_size=1, multiplier=20.0)
    assert adapted_momentum(very_long.batches) > 0.9
    assert float(momentum) == pytest.approx(0.9)


def test_measured_statistics_are_those_of_the_training_images(manifest: Path, cache: Path) -> None:
    """The first trained batch norm's, whose input depends on no other; the others follow from it."""
    fit = fit_of(manifest, cache, batch_norm="measured", multiplier=2.0)
    fit.run_epoch()
    tail, (first, *others) = fit.compiled.network.tail, norms_of(fit)
    assert tail is not None
    assert others
    before = keras.Model(tail.input, first.input)
    rows = fit.train.rows.take(np.arange(fit.originals))
    seen = np.asarray(before(rows, training=False))
    assert fit.originals < len(fit.train)  # copies are left out
    np.testing.assert_allclose(np.array(first.moving_mean), seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.array(first.moving_variance), seen.var((0, 1, 2)), rtol=1e-3, atol=1e-5)
    assert float(fit.compiled.network.norms.momentum) == pytest.approx(adapted_momentum(fit.batches))


@pytest.mark.parametrize("values", [{}, {"draws": "fresh", "mixup": 0.2}], ids=["fixed", "fresh"])
def test_statistics_are_those_of_inference_where_training_sees_random_crops(
    manifest: Path, cache: Path, values: dict[str, object]
) -> None:
    fit = fit_of(manifest, cache, batch_norm="measured", view="random_crop", multiplier=1.5, **values)
    fit.run_epoch()
    tail, (first, *_) = fit.compiled.network.tail, norms_of(fit)
    assert tail is not None
    crops = fit_of(manifest, cache, view="centre_crop", **values).train.rows.take(np.arange(fit.originals))
    assert (fit.train.in_epoch(0).take(np.arange(fit.originals)) != crops).any()
    x = preprocess(fit.compiled.network.row, crops) if fit.compiled.network.from_images else crops
    seen = np.asarray(keras.Model(tail.input, first.input)(x, training=False))
    np.testing.assert_allclose(np.array(first.moving_mean), seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.array(first.moving_variance), seen.var((0, 1, 2)), rtol=1e-3, atol=1e-5)


def test_statistics_of_several_batches_are_their_mean(manifest: Path, cache: Path) -> None:
    fit = fit_of(manifest, cache, batch_norm="measured")
    network, (first, *_) = fit.compiled.network, norms_of(fit)
    assert network.tail is not None
    before = keras.Model(network.tail.input, first.input)
    rows = fit.train.rows.take(np.arange(9))
    means = [np.asarray(before(rows[i : i + 3], training=False)).mean((0, 1, 2)) for i in (0, 3, 6)]
    network.measure_norms(rows[:6], np.array([0, 3, 6], np.int32), 0)
    network.measure_norms(rows[6:], np.array([0, 3], np.int32), 2)
    np.testing.assert_allclose(np.array(first.moving_mean), np.mean(means, 0), rtol=1e-4, atol=1e-5)


def test_measuring_changes_no_weight_and_is_repeatable(manifest: Path, cache: Path) -> None:
    fit = fit_of(manifest, cache, batch_norm="measured")
    fit.run_epoch()
    kernels = [np.array(v) for v in fit.compiled.variables]
    found = statistics(fit)
    fit.epoch -= 1
    fit._measure_norms()
    for one, other in zip([*kernels, *found], [*map(np.array, fit.compiled.variables), *statistics(fit)], strict=True):
        np.testing.assert_array_equal(one, other)


def test_frozen_batch_norms_stay_while_convolutions_are_trained(manifest: Path, cache: Path) -> None:
    fit = fit_of(manifest, cache, batch_norm="frozen")
    everything = [np.array(v) for norm in norms_of(fit) for v in norm.weights]
    kernels = [np.array(v) for v in fit.compiled.variables]
    assert not any(v is w for v in fit.compiled.variables for norm in norms_of(fit) for w in norm.weights)
    fit.run_epoch()
    after = [np.array(v) for norm in norms_of(fit) for v in norm.weights]
    assert all((a == b).all() for a, b in zip(everything, after, strict=True))
    assert all((a != np.array(b)).any() for a, b in zip(kernels, fit.compiled.variables, strict=True))


def test_where_no_layer_is_trained_every_way_is_the_same_trial() -> None:
    assert config(unfrozen_layers=0, batch_norm="measured") == config(unfrozen_layers=0)
    assert config(unfrozen_layers=1, batch_norm="measured") != config(unfrozen_layers=1)


def test_the_inherited_momentum_is_the_layers_own_constant(manifest: Path, cache: Path) -> None:
    fit = fit_of(manifest, cache)
    assert {layer.momentum for layer in norms_of(fit)} == {0.9}
    assert not fit.compiled.network.norms.is_measured
