"""The traced step: losses, clipping, decay, class weights, mixing, and the reset between trials."""

from __future__ import annotations

import math
import weakref
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from tests.support import two_devices
from tests.support.tiny_fits import CLASSES, config, figures, job
from trainers.backbones import Backbone
from trainers.config import StepKind
from trainers.contract import Distillation
from trainers.errors import TrainerError
from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix
from trainers.training import steps
from trainers.training.loop import open_fit
from trainers.training.mixing import mix
from trainers.training.steps import CompiledNetwork, soft_cross_entropy

EVEN = np.array([4, 4, 4])
TWICE = ("/device:CPU:0", "/device:CPU:0")
"""Two parts of each batch on one device."""
PICTURES = np.random.default_rng(4).integers(0, 256, (9, 16, 16, 3), np.uint8)
THEIRS = np.random.default_rng(5).integers(0, len(CLASSES), 9).astype(np.int32)


def compiled(loss: str = "categorical_crossentropy", **values) -> CompiledNetwork:
    """A head alone over 64 features, reset."""
    trial = config(unfrozen_layers=0, **values)
    architecture = Architecture.of(trial, "none", len(CLASSES))
    made = CompiledNetwork(Network(architecture, Prefix(architecture.prefix)), replace(StepKind.of(trial), loss=loss))
    made.reset(trial, 0, EVEN, 1)
    return made


def train_once(made: CompiledNetwork, x: np.ndarray, y: np.ndarray, rate: float, seed: list[int]) -> tuple[float, int]:
    """(loss, hits) of one step."""
    offsets, rates = np.array([0, len(x)], np.int32), np.array([rate], np.float32)
    losses, hits = made.train(x, y, offsets, rates, np.ones(1, np.float32), np.array([seed], np.int64))
    return float(losses[0]), int(hits[0])


def one_step(made: CompiledNetwork, x: np.ndarray, y: np.ndarray, rate: float) -> tuple[float, np.ndarray, np.ndarray]:
    """(loss, kernel before, kernel after)."""
    before = np.asarray(made.network.kernel).copy()
    loss, _ = train_once(made, x, y, rate, [0, 0])
    return loss, before, np.asarray(made.network.kernel)


X = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)


Y = np.random.default_rng(1).integers(0, len(CLASSES), 8).astype(np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "categorical_focal_crossentropy"])
def test_the_loss_is_that_of_the_paper(loss, smoothing):
    made = compiled(loss, smoothing=smoothing, optimizer="sgd")
    logits = X @ np.asarray(made.network.kernel)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = np.eye(len(CLASSES))[Y] * (1 - smoothing) + smoothing / len(CLASSES)
    weight = (1 - p) ** 2 if "focal" in loss else 1.0
    expected = -(target * weight * np.log(p)).sum(1).mean()
    assert one_step(made, X, Y, 0.0)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("clip_norm", "bound"), [(0.5, 0.5), (0.0, math.inf)])
def test_clipping_bounds_the_update(clip_norm, bound):
    made = compiled(optimizer="sgd", clip_norm=clip_norm)
    _, before, after = one_step(made, 100 * X, Y, 1.0)
    moved = np.linalg.norm(after - before) / 1.9  # Nesterov's first step is 1 + momentum gradients long
    assert moved == pytest.approx(bound, rel=0.02) if clip_norm else moved > 10


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_weight_decay_is_decoupled_and_only_on_kernels(optimizer):
    plain, decayed = (compiled(optimizer=optimizer, weight_decay=decay) for decay in (0.0, 0.3))
    rate = 0.1
    _, before, without = one_step(plain, X, Y, rate)
    _, _, with_decay = one_step(decayed, X, Y, rate)
    np.testing.assert_allclose(with_decay, without - rate * 0.3 * before, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(decayed.network.bias), np.asarray(plain.network.bias))


def test_reset_forgets_the_optimizer():
    made = compiled()
    fresh = [a.copy() for a in made.state()]
    one_step(made, X, Y, 0.1)
    assert not all(np.array_equal(a, b) for a, b in zip(made.state(), fresh, strict=True))
    made.reset(config(unfrozen_layers=0), 0, EVEN, 1)
    assert all(np.array_equal(a, b) for a, b in zip(made.state(), fresh, strict=True))


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "categorical_focal_crossentropy"])
def test_class_weights_multiply_the_loss_of_each_example(loss):
    trial, counts = config(unfrozen_layers=0, optimizer="sgd", smoothing=0.1, balance="class_weights"), [2, 12, 4]
    made = compiled(loss, optimizer="sgd", smoothing=0.1)
    made.reset(trial, 0, np.array(counts), 1)
    logits = X @ np.asarray(made.network.kernel)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    target = np.eye(len(CLASSES))[Y] * 0.9 + 0.1 / len(CLASSES)
    each = -(target * ((1 - p) ** 2 if "focal" in loss else 1.0) * np.log(p)).sum(1)
    weights = np.array([3.0, 0.5, 1.5])[Y]  # 18 / (3 counts)
    assert one_step(made, X, Y, 0.0)[0] == pytest.approx((weights * each).mean(), rel=1e-5)
    made.reset(config(unfrozen_layers=0, optimizer="sgd", smoothing=0.1), 0, np.array(counts), 1)
    assert one_step(made, X, Y, 0.0)[0] == pytest.approx(each.mean(), rel=1e-5)  # and are gone for the next trial


@pytest.mark.parametrize(
    ("balance", "shares"), [("none", [1 / 9, 2 / 3, 2 / 9]), ("class_weights", [1 / 3] * 3), ("sampling", [1 / 3] * 3)]
)
def test_logit_adjustment_is_reported_the_prior_that_training_sees(balance, shares):
    made = compiled(head="logit_adjusted")
    made.reset(config(unfrozen_layers=0, head="logit_adjusted", balance=balance), 0, np.array([2, 12, 4]), 1)
    adjusted = np.exp(made.network.log_prior.numpy())
    np.testing.assert_allclose(adjusted / adjusted.sum(), shares, rtol=1e-5)


@pytest.mark.parametrize("values", [{"mixup": 0.5}, {"cutmix": 1.0, "balance": "class_weights"}])
def test_a_mixed_step_trains_the_mixed_label_and_counts_the_larger_one(values):
    trial, counts = config(smoothing=0.1, optimizer="sgd", **values), np.array([2, 12, 4])
    architecture = Architecture.of(trial, "none", len(CLASSES))
    made = CompiledNetwork(Network(architecture, Prefix(architecture.prefix)), StepKind.of(trial))
    made.reset(trial, 0, counts, 1)
    images = np.random.default_rng(3).integers(0, 256, (8, 16, 16, 3), np.uint8)
    seed = tf.constant([5, 8], tf.int64)
    alphas = (tf.constant(trial.mixup, tf.float32), tf.constant(trial.cutmix, tf.float32))
    pictures, label = mix(images, np.eye(len(CLASSES), dtype=np.float32)[Y], *alphas, seed)
    trained, _ = made.network.training_logits(pictures, label, seed)
    target = label.numpy() * 0.9 + 0.1 / len(CLASSES)
    weights = label.numpy() @ (np.array([3.0, 0.5, 1.5]) if trial.balance == "class_weights" else np.ones(3))
    expected = -(target * tf.nn.log_softmax(trained).numpy()).sum(1) * weights
    loss, hits = train_once(made, images, Y, 0.0, [5, 8])
    assert loss == pytest.approx(expected.mean(), rel=1e-4)
    assert hits == (trained.numpy().argmax(1) == label.numpy().argmax(1)).sum()


def test_without_mixing_one_trace_serves_every_alpha_and_with_it_one_more(manifest, cache):
    steps._networks.clear()
    seen = [open_fit(job(manifest, cache, **values)).compiled for values in ({}, {"mixup": 0.2}, {"cutmix": 0.7})]
    assert seen[0] is not seen[1]
    assert seen[1] is seen[2]
    epochs = [figures(open_fit(job(manifest, cache, mixup=alpha)).run_epoch()) for alpha in (0.2, 0.8)]
    assert epochs[0] != epochs[1]


def test_evicted_networks_are_freed_at_once(monkeypatch):
    monkeypatch.setattr(steps, "MAX_CACHED_NETWORKS", 1)
    steps._networks.clear()
    seen, functions = [], []
    for number in range(4):
        trial = config(unfrozen_layers=0, hidden=8 * (number % 2))
        made = steps.compiled(Architecture.of(trial, "none", len(CLASSES)), StepKind.of(trial))
        train_once(made, X, Y, 0.01, [0, 0])
        seen.append(weakref.ref(made))
        del made
        functions.append(len(context.context().list_function_names()))
    assert len(steps._networks) == 1
    assert [each() is None for each in seen] == [True, True, True, False]
    assert functions[3] == functions[1]


def test_a_margin_that_is_not_yet_whole_is_blended_in():
    """f = (1 - share) cos + share turned (Liu et al. 2017, section 4.1, with share = 1 / (1 + lambda))."""
    made = compiled(head="cosface", margin=0.3)
    x, target = tf.constant(X), tf.one_hot(Y, len(CLASSES))
    seed = tf.constant([0, 0], tf.int64)
    none, half, whole = (made.network.training_logits(x, target, seed, share)[0].numpy() for share in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(half, (none + whole) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(whole, made.network.training_logits(x, target, seed)[0].numpy())
    assert (none >= whole).all()
    assert (none > whole).any()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_lower_layers_learn_at_a_lower_rate(manifest, cache, optimizer):
    """The first step of the lowest layer is bottom_rate times the one without it; the head's is the same."""
    steps_of = {}
    for rate in (1.0, 0.1):
        values = {"optimizer": optimizer, "bottom_rate": rate, "unfrozen_layers": "all", "weight_decay": 0.1}
        fit = open_fit(job(manifest, cache, batch_size=64, warmup=0.0, clip_norm=0.0, **values))
        before = [np.array(v) for v in fit.compiled.variables]
        fit.run_epoch()
        steps_of[rate] = [np.array(v) - b for v, b in zip(fit.compiled.variables, before, strict=True)]
    depths = fit.compiled.network.depths()
    assert fit.batches == 1
    assert (max(depths), depths[0], depths[-1]) == (1.0, 1.0, 0.0)
    assert sorted(depths, reverse=True) == depths
    for depth, plain, graded in zip(depths, steps_of[1.0], steps_of[0.1], strict=True):
        np.testing.assert_allclose(graded, plain * 0.1**depth, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("parts", [2, 3, 8, 20])
def test_a_batch_in_parts_takes_the_step_of_the_whole(parts):
    """Also where the parts are uneven, and where there are more parts than examples."""
    values = {"optimizer": "sgd", "smoothing": 0.1, "balance": "class_weights", "clip_norm": 0.5, "batch_size": 32}
    network = {"backbone": "tests.support.tiny_fits:RESIDUAL", "image_size": 24, "unfrozen_layers": "all"}
    trial = config(**network, batch_norm="frozen", accumulation_steps=parts, **values)
    whole = config(**network, batch_norm="frozen", **values)
    images = np.random.default_rng(2).integers(0, 256, (8, 24, 24, 3), np.uint8)
    seen = []
    for each in (whole, trial):
        architecture = Architecture.of(each, "none", len(CLASSES))
        made = CompiledNetwork(Network(architecture, Prefix(architecture.prefix)), StepKind.of(each))
        made.reset(each, 0, np.array([8, 4, 2]), 1)
        before = made.network.state()
        seen.append((*train_once(made, images, Y, 0.1, [0, 0]), before, made.network.state()))
    (loss, hits, before, after), (parts_loss, parts_hits, _, parts_after) = seen
    assert (parts_loss, parts_hits) == (pytest.approx(loss, rel=1e-5), hits)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(before, after, strict=True))
    for one, other in zip(after, parts_after, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


class HalfUsed(keras.layers.Layer):
    """Adds a weight to its input, and has another that nothing depends on."""

    def build(self, input_shape):
        self.used = self.add_weight((input_shape[-1],), "zeros", name="used")
        self.unused = self.add_weight((2, 2), "ones", name="unused")

    def call(self, inputs):
        return inputs + self.used


def build_half_used(input_shape, include_top, weights):
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, HalfUsed()(keras.layers.Conv2D(4, 3, strides=2)(inputs)))


HALF_USED = Backbone("half_used", f"{__name__}:build_half_used", "tf", 16, 8, 3, imagenet=False)
"""A network with a variable that has no gradient: ``tests.trainers.training.test_steps:HALF_USED``."""


@pytest.mark.parametrize(
    ("parts", "devices", "optimizer", "precision"),
    [
        (1, (), "sgd", "float32"),
        (2, (), "adam", "float32"),
        (1, TWICE, "rmsprop", "float32"),
        (2, TWICE, "sgd", "float32"),
        (2, TWICE, "adam", "mixed_float16"),
    ],
)
def test_a_variable_without_a_gradient_keeps_its_value(parts, devices, optimizer, precision):
    network = {"backbone": f"{__name__}:HALF_USED", "unfrozen_layers": "all", "optimizer": optimizer}
    trial = config(**network, accumulation_steps=parts, clip_norm=0.5)
    architecture = Architecture.of(trial, "none", len(CLASSES), precision)
    made = CompiledNetwork(Network(architecture, Prefix(architecture.prefix)), StepKind.of(trial), devices)
    made.reset(trial, 0, EVEN, 1)
    before = {v.name: np.array(v) for v in made.variables}
    for step in range(2):
        train_once(made, PICTURES, THEIRS, 0.1, [0, step])
    after = {v.name: np.array(v) for v in made.variables}
    assert [name for name in before if np.array_equal(before[name], after[name])] == ["unused"]


def test_each_part_draws_a_dropout_of_its_own():
    made = compiled(optimizer="sgd", dropout=0.5, batch_size=8)
    parted = CompiledNetwork(made.network, replace(made.kind, accumulated=True))
    parted.reset(config(unfrozen_layers=0, dropout=0.5, optimizer="sgd", batch_size=8), 0, EVEN, 1)
    parted.numbers.parts.assign(8)
    _, before, after = one_step(parted, np.repeat(X[:1], 8, 0), np.zeros(8, np.int32), 1.0)
    assert (after != before).any(1).mean() > 0.9  # with one mask for all parts, half of the features do not move


def last_block(devices: tuple[str, ...] = (), **values) -> tuple[CompiledNetwork, np.ndarray]:
    """The last block of ``small_cnn`` over 16 px, reset, and its rows of ``PICTURES``."""
    trial = config(**values)
    architecture = Architecture.of(trial, "none", len(CLASSES))
    prefix = Prefix(architecture.prefix)
    made = CompiledNetwork(Network(architecture, prefix), StepKind.of(trial), devices)
    made.reset(trial, 0, EVEN, 1)
    return made, prefix(PICTURES).numpy()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("count", [9, 8, 2])
def test_a_divided_batch_is_the_whole_step(optimizer, count):
    """Mean loss, clipping after the sum, dropout, class weights: nothing depends on the number of parts."""
    values = {"batch_norm": "frozen", "optimizer": optimizer, "clip_norm": 0.1, "dropout": 0.5, "hidden": 4}
    values |= {"balance": "class_weights", "weight_decay": 0.1, "smoothing": 0.1}
    found = []
    for devices in ((), TWICE, (TWICE * 2)[: min(4, count)]):
        made, rows = last_block(devices, **values)
        made.numbers.class_weights.assign([3.0, 0.5, 1.5])
        steps = [train_once(made, rows[:count], THEIRS[:count], 0.1, [7, step]) for step in range(3)]
        found.append((steps, made.state()))
    (whole, state), *parts = found
    assert len({loss for loss, _ in whole}) == 3
    for steps, parted in parts:
        assert [hits for _, hits in steps] == [hits for _, hits in whole]
        np.testing.assert_allclose([loss for loss, _ in steps], [loss for loss, _ in whole], rtol=1e-5)
        for one, other in zip(state, parted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_the_parts_of_an_accumulated_batch_are_divided_too():
    found = []
    for devices, parts in [((), 1), (TWICE, 2)]:
        values = {"batch_norm": "frozen", "optimizer": "sgd", "clip_norm": 0.1, "accumulation_steps": parts}
        made, rows = last_block(devices, **values)
        found.append(([train_once(made, rows, THEIRS, 0.1, [7, step]) for step in range(3)], made.state()))
    (whole, state), (divided, parted) = found
    np.testing.assert_allclose(divided, whole, rtol=1e-5)
    for one, other in zip(state, parted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_batch_norms_see_their_own_part_and_their_statistics_become_the_mean():
    """As without SyncBatchNorm elsewhere: normalised by the part; moving statistics weighted by the parts' sizes."""
    moved = {}
    for name, devices, chosen in [
        ("whole", (), slice(0, 9)),
        ("parts", TWICE, slice(0, 9)),
        ("first", (), slice(0, 4)),
        ("second", (), slice(4, 9)),
    ]:
        made, rows = last_block(devices, batch_norm="inherited")
        train_once(made, rows[chosen], THEIRS[chosen], 0.0, [0, 0])
        moved[name] = [v.numpy() for v in made.network.norms.moving]
    (mean, variance), whole = moved["parts"], moved["whole"]
    expected = [4 / 9 * a + 5 / 9 * b for a, b in zip(moved["first"], moved["second"], strict=True)]
    np.testing.assert_allclose(mean, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance, expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean, whole[0], rtol=1e-5, atol=1e-6)  # the variance between parts is not in theirs
    assert (variance <= whole[1] + 1e-6).all()
    assert (variance < whole[1] - 1e-5).any()


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_divided_too(precision):
    found = []
    for devices in ((), TWICE):
        trial = config(batch_norm="frozen", optimizer="sgd", clip_norm=0.0)
        architecture = Architecture.of(trial, "none", len(CLASSES), precision)
        prefix = Prefix(architecture.prefix)
        made = CompiledNetwork(Network(architecture, prefix), StepKind.of(trial), devices)
        made.reset(trial, 0, EVEN, 1)
        found.append([train_once(made, prefix(PICTURES).numpy(), THEIRS, 0.05, [0, step])[0] for step in range(4)])
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)
    assert found[0][-1] < found[0][0]


def test_a_batch_smaller_than_the_number_of_gpus_is_a_sentence(manifest, cache):
    wanted = replace(job(manifest, cache, batch_size=1), devices=1)
    open_fit(wanted)
    with pytest.raises(TrainerError, match="a batch of 1 examples cannot be divided among 2 GPUs; choose a larger"):
        open_fit(replace(wanted, devices=2))


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    found = two_devices.compare(tmp_path)
    equal = [name for name in two_devices.CASES if not name.endswith("batch norms") or name.startswith("frozen")]
    assert len(equal) == 5
    for name in equal:
        one, two = found[name]["1"], found[name]["2"]
        assert len(one) == two_devices.EPOCHS
        for here, there in zip(one, two, strict=True):
            assert there == pytest.approx(here, abs=1e-4, nan_ok=True), name
        assert one[-1]["loss"] < one[0]["loss"]
    both = [f"CPU:{number} {kind}" for number in (0, 1) for kind in ("Conv2D", "Conv2DBackpropFilter")]
    assert all(found["places"]["2"].get(each) for each in both), found["places"]
    for name in ("trained batch norms", "measured batch norms"):  # per device: other curves, as good an end
        one, two = found[name]["1"], found[name]["2"]
        assert one[0]["loss"] != pytest.approx(two[0]["loss"], abs=1e-4)
        assert two[-1]["val_accuracy"] == pytest.approx(one[-1]["val_accuracy"], abs=0.05)


def test_soft_cross_entropy_is_that_of_both_at_the_temperature() -> None:
    teacher = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]])
    soft = teacher ** (1 / 2) / (teacher ** (1 / 2)).sum(1, keepdims=True)
    p = np.exp(logits / 2) / np.exp(logits / 2).sum(1, keepdims=True)
    found = soft_cross_entropy(tf.constant(teacher, tf.float32), tf.constant(logits, tf.float32), 2.0)
    np.testing.assert_allclose(found, -4 * (soft * np.log(p)).sum(1), rtol=1e-5)
    certain = soft_cross_entropy(tf.constant([[1.0, 0.0, 0.0]]), tf.constant(logits[:1], tf.float32), 1.0)
    np.testing.assert_allclose(certain, -np.log(np.exp(2) / np.exp([2.0, 1, 0]).sum()), rtol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_a_distilled_kind_learns_in_shares_from_the_teacher_and_from_the_labels(alpha: float) -> None:
    trial = config(unfrozen_layers=0, smoothing=0.1)
    architecture = Architecture.of(trial, "none", len(CLASSES))
    made = CompiledNetwork(Network(architecture, Prefix(architecture.prefix)), StepKind.of(trial, distilled=True))
    made.reset(trial, 0, EVEN, 1)
    made.learn_from(Distillation("", 3.0, alpha))
    logits = X @ np.asarray(made.network.kernel) + np.asarray(made.network.bias)
    teacher = np.random.default_rng(2).dirichlet(np.ones(len(CLASSES)), len(X)).astype(np.float32)
    offsets, one = np.array([0, len(X)], np.int32), np.ones(1, np.float32)
    losses, _ = made.train(X, Y, offsets, 0 * one, one, np.array([[0, 0]], np.int64), teacher)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    hard = -((0.9 * np.eye(len(CLASSES))[Y] + 0.1 / len(CLASSES)) * log_p).sum(1).mean()
    soft = float(np.mean(soft_cross_entropy(tf.constant(teacher), tf.constant(logits), 3.0)))
    assert losses[0] == pytest.approx(alpha * soft + (1 - alpha) * hard, rel=1e-4)
