"""The batch norms of a network's trained part, and where the moving statistics for inference come from.

inherited: x <- m x + (1 - m) batch, with the backbone's own momentum m (Ioffe & Szegedy 2015, algorithm 2). Backbones
come with m up to 0.9997, made for schedules of a million steps; after a few hundred, x is still that of ImageNet.
adapted: the same with an m that fits the number of steps, see ``adapted_momentum``.
measured: after each epoch, the mean of the statistics of batches of training images, with the weights of that moment
(Wu & Johnson 2021, "Rethinking Batch in BatchNorm", section 3.2), made square as in inference, since sizes of objects
in random crops are others (Touvron et al. 2019, "Fixing the train-test resolution discrepancy", section 3).
frozen: x, scale and offset stay as they were loaded, and only convolutions are trained.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

HORIZON = 0.2
"""Steps that an adapted momentum averages over, as a share of an epoch's."""
LEAST_HORIZON = 2.0
"""Minimum steps that an adapted momentum averages over."""


def adapted_momentum(steps: int) -> float:
    """The momentum of a moving average over ``HORIZON`` of an epoch of ``steps`` steps: m = 1 - 1 / (HORIZON steps)."""
    return 1.0 - 1.0 / max(HORIZON * steps, LEAST_HORIZON)


class BatchNorms:
    """The batch norms among ``layers``, a network's trained ones, kept as ``mode`` says.

    One variable holds their momentum, so that one traced step serves trials of any length; ``inherited`` leaves each
    layer its own constant. ``moving``: the variables of the statistics that a training step moves.
    """

    def __init__(self, layers: Sequence[keras.layers.Layer], mode: str) -> None:
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
        self.inherited = min((float(layer.momentum) for layer in norms), default=0.0)
        self.momentum = tf.Variable(self.inherited, trainable=False, name="batch_norm_momentum")
        self._norms = norms if mode in ("adapted", "measured") else []
        self.moving = [] if mode == "frozen" else [v for n in norms for v in (n.moving_mean, n.moving_variance)]
        self.is_measured = mode == "measured" and bool(norms)
        for layer in self._norms:
            layer.momentum = self.momentum
        if mode == "frozen":
            for layer in norms:
                layer.trainable = False
                layer.call = functools.partial(in_inference, layer.call)

    def adapt(self, steps: int) -> None:
        """Set the momentum for epochs of ``steps`` steps, never above the backbone's own."""
        if self._norms:
            self.momentum.assign(min(self.inherited, adapted_momentum(steps)))

    @contextlib.contextmanager
    def batch_statistics(self) -> Iterator[None]:
        """Meanwhile, calls of the network in inference mode normalise by the batch and move the averages."""
        calls = [layer.call for layer in self._norms]
        for layer, call in zip(self._norms, calls, strict=True):
            layer.call = functools.partial(_in_training, call)
        try:
            yield
        finally:
            for layer, call in zip(self._norms, calls, strict=True):
                layer.call = call


def in_inference(call: Callable[..., Any], *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
    """Run ``call`` of a layer in inference mode, whatever the mode of the network around it."""
    return call(*args, training=False, **kwargs)


def _in_training(call: Callable[..., Any], *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
    return call(*args, training=True, **kwargs)
