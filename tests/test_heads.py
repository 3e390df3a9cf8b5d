"""Heads against the papers' equations, written again in plain numpy."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_fits import config

from trainers.heads import HEADS, arcface_margin, cosface_margin, default_scale, head
from trainers.model import Architecture, Network, Prefix

CLASSES, UNITS = 4, 6
SEED = tf.constant([0, 0], tf.int64)


def network(name: str, **values) -> Network:
    """A head over ``UNITS`` hidden units of ``small_cnn``."""
    chosen = config(head=name, unfrozen_layers=0, hidden=UNITS, **values)
    architecture = Architecture.of(chosen, "none", CLASSES)
    made = Network(architecture, Prefix(architecture))
    made.reset(chosen, seed=3)
    return made


def numpy_logits(name: str, x: np.ndarray, w: np.ndarray, true: np.ndarray, scale: float, margin: float) -> np.ndarray:
    """The papers' logits in training: x (n, d), w (d, classes), true (n,)."""
    if name == "softmax":
        return x @ w
    cosines = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (w / np.linalg.norm(w, axis=0, keepdims=True))
    out = cosines.copy()
    for i, y in enumerate(true):
        angle = math.acos(np.clip(cosines[i, y], -1, 1))
        if name == "cosface":
            out[i, y] = math.cos(angle) - margin
        elif name == "arcface":
            turned = math.cos(angle + margin)
            out[i, y] = turned if angle < math.pi - margin else math.cos(angle) - margin * math.sin(margin)
    return scale * out


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("softmax", {}),
        ("normface", {}),
        ("normface", {"scale": 3.0}),
        ("cosface", {}),
        ("cosface", {"scale": 20.0, "margin": 0.35}),
        ("arcface", {}),
        ("arcface", {"scale": 20.0, "margin": 0.5}),
        ("arcface", {"margin": 1.5}),
    ],
)
def test_training_logits_are_the_papers(name, values):
    made = network(name, **values)
    random = np.random.default_rng(0)
    x = random.normal(size=(16, 64)).astype(np.float32)
    true = random.integers(0, CLASSES, 16)
    hidden = np.maximum(x @ np.asarray(made.hidden.kernel) + np.asarray(made.hidden.bias), 0)
    scale = values.get("scale", default_scale(CLASSES))
    margin = values.get("margin", head(name).default_margin or 0.0)
    trained, plain = made.training_logits(tf.constant(x), tf.one_hot(true, CLASSES), SEED)
    kernel = np.asarray(made.kernel)
    np.testing.assert_allclose(trained, numpy_logits(name, hidden, kernel, true, scale, margin), atol=1e-4)
    without = numpy_logits("softmax" if name == "softmax" else "normface", hidden, kernel, true, scale, 0)
    np.testing.assert_allclose(plain, without, atol=1e-4)
    np.testing.assert_allclose(made.probabilities(tf.constant(x)), tf.nn.softmax(without), atol=1e-5)


def test_some_angles_of_that_test_lie_beyond_the_continuation():
    """An angle above pi - 1.5 is not rare, so the continuation was compared too."""
    random = np.random.default_rng(0)
    x, w = np.abs(random.normal(size=(200, UNITS))), random.normal(size=UNITS)
    angles = np.arccos(x @ w / np.linalg.norm(x, axis=1) / np.linalg.norm(w))
    assert (angles > math.pi - 1.5).mean() > 0.1


@pytest.mark.parametrize("name", HEADS)
def test_a_bias_only_without_normalisation(name):
    made = network(name)
    assert (made.bias is None) == head(name).normalised
    head_variables = len(made.trainable_parts()) - 2  # the hidden layer has two
    assert head_variables == (1 if head(name).normalised else 2)


@pytest.mark.parametrize("function", [cosface_margin, arcface_margin])
@pytest.mark.parametrize("margin", [0.1, 0.5, 1.0])
def test_a_margin_falls_everywhere_and_only_for_the_true_class(function, margin):
    angles = np.linspace(0, math.pi, 200).astype(np.float32)
    cosines = np.stack([np.cos(angles), np.full(200, 0.3, np.float32)], 1)
    one_hot = np.tile(np.array([1, 0], np.float32), (200, 1))
    turned = np.asarray(function(tf.constant(cosines), tf.constant(one_hot), tf.constant(margin)))
    assert (np.diff(turned[:, 0]) < 1e-3).all()  # the root is held off zero, which costs less than this at angle 0
    assert (np.diff(turned[5:, 0]) < 0).all()
    assert (turned[:, 0] < cosines[:, 0]).all()
    np.testing.assert_array_equal(turned[:, 1], cosines[:, 1])


@pytest.mark.parametrize("function", [cosface_margin, arcface_margin])
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0000001, -1.0000001, 0.0])
def test_edge_angles_are_finite(function, cosine):
    cosines, one_hot = tf.Variable([[cosine]]), tf.constant([[1.0]])
    with tf.GradientTape() as tape:
        turned = function(cosines, one_hot, tf.constant(0.3))
    gradient = tape.gradient(turned, cosines)
    assert np.isfinite(turned).all()
    assert np.isfinite(gradient).all()
    assert 0 < float(gradient[0, 0]) < 1e4


@pytest.mark.parametrize("name", HEADS)
def test_gradients_agree_with_finite_differences(name):
    made = network(name)
    random = np.random.default_rng(1)
    x = tf.constant(random.normal(size=(5, 64)).astype(np.float32))
    one_hot = tf.one_hot(random.integers(0, CLASSES, 5), CLASSES)
    kernel = made.kernel.value

    def loss() -> tf.Tensor:
        logits, _ = made.training_logits(x, one_hot, SEED)
        return tf.reduce_mean(-tf.reduce_sum(one_hot * tf.nn.log_softmax(logits), 1))

    with tf.GradientTape() as tape:
        value = loss()
    gradient = tape.gradient(value, kernel).numpy()
    start, step = kernel.numpy(), 1e-2
    for place in [(0, 0), (2, 1), (5, 3)]:
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            made.kernel.assign(moved)
            sides.append(float(loss()))
        assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(gradient[place], rel=0.05, abs=2e-3)
    made.kernel.assign(start)


@pytest.mark.parametrize("classes", [2, 6, 40])
def test_the_default_scale_reaches_its_bound(classes):
    """Minimise the loss of one sample a class over free unit vectors; it ends at the bound of the paper."""
    scale = default_scale(classes, loss_bound=0.05)
    random = np.random.default_rng(0)
    x, w = (tf.Variable(random.normal(size=(classes, classes)).astype(np.float32)) for _ in range(2))
    optimizer = keras.optimizers.Adam(0.05)
    optimizer.build([x, w])

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            cosines = tf.matmul(tf.math.l2_normalize(x, 1), tf.math.l2_normalize(w, 1), transpose_b=True)
            loss = -tf.reduce_mean(tf.linalg.diag_part(tf.nn.log_softmax(scale * cosines)))
        optimizer.apply(tape.gradient(loss, [x, w]), [x, w])
        return loss

    losses = [step().numpy() for _ in range(1500)]
    assert losses[-1] == pytest.approx(0.05, rel=0.02)
    assert min(losses) >= 0.05 - 1e-4
