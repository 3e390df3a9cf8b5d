"""Traced functions are freed, with the gradients that TensorFlow registers for them, and no one else's."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

from trainers.networks.tracing import CUSTOM, traced

X = np.array([-2.0, 0.5, 3.0], np.float32)
SIGNATURE = [tf.TensorSpec((None,))]


def registered() -> set[str]:
    return {name for name in gradient_registry.list() if name.startswith(CUSTOM)}


class Slopes:
    """Sums of the slopes of silu, whose gradient TensorFlow registers, outside a loop and in one."""

    def __init__(self) -> None:
        self.during: set[str] = set()
        self.run = traced(self._run, SIGNATURE)

    def _run(self, x: tf.Tensor) -> tf.Tensor:
        def add(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, total + self._slope(x)

        total = tf.while_loop(lambda i, _: i < 2, add, (tf.constant(0), self._slope(x)))[1]
        self.during = registered()
        return total

    def _slope(self, x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.silu(x)
        return tape.gradient(y, x)


def test_gradients_are_forgotten_once_traced() -> None:
    before, slopes = registered(), Slopes()
    share = 1 / (1 + np.exp(-X))
    np.testing.assert_allclose(slopes.run(X), 3 * share * (1 + X * (1 - share)), rtol=1e-5)
    assert len(slopes.during - before) == 2
    assert registered() == before
    np.testing.assert_array_equal(slopes.run(X), slopes.run(X))


def test_what_was_traced_is_freed() -> None:
    slopes = Slopes()
    slopes.run(X)
    graph = weakref.ref(slopes.run.get_concrete_function().graph)
    assert graph() is not None
    del slopes
    gc.collect()
    assert graph() is None


def test_the_gradients_of_other_graphs_stay() -> None:
    theirs = tf.function(tf.nn.silu, input_signature=SIGNATURE, autograph=False)
    theirs.get_concrete_function()
    Slopes().run(X)
    with tf.GradientTape() as tape:
        x = tf.Variable(X)
        y = theirs(x)
    assert tape.gradient(y, x) is not None
