"""The traced training step of a network, and the prefixes and networks that a process caches and reuses."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf
from cachetools import Cache, LRUCache

from trainers.config import PrefixKey, StepKind, TrialConfig
from trainers.contract import Distillation
from trainers.networks.network import Architecture, BatchPart, Network
from trainers.networks.prefix import Prefix
from trainers.networks.prefix_index import recall
from trainers.networks.tracing import traced
from trainers.training.balance import class_weights, effective_counts
from trainers.training.mixing import mix

T = TypeVar("T")
NOT_DECAYED = ("leading", "positions")
"""Names of tables that weight decay leaves alone, although they have two axes: a transformer's tokens and positions."""
MAX_CACHED_PREFIXES = 4
MAX_COPIED_BYTES = 512 * 2**20
"""Maximum bytes of the folded copies of all cached prefixes together."""
MAX_CACHED_BYTES = 512 * 2**20
"""Maximum bytes of the values of all cached networks together."""
MAX_CACHED_NETWORKS = 16
"""Maximum number of cached networks: a trace takes some megabytes, however small the network."""
_prefixes: LRUCache[PrefixKey, Prefix] = LRUCache(math.inf)
_networks: LRUCache[tuple[Architecture, StepKind, tuple[str, ...]], CompiledNetwork] = LRUCache(math.inf)


def prefix_of(key: PrefixKey, cache: Path | None = None) -> Prefix:
    """The prefix of ``key``, opened once per process.

    If the whole backbone is frozen and the index in ``cache`` knows ``key``, the backbone is not built until an image
    is run through it. Up to ``MAX_CACHED_PREFIXES`` are cached while their folded copies take up to
    ``MAX_COPIED_BYTES``; the least recently used are evicted first.
    """
    if key not in _prefixes:
        known = recall(cache, key) if cache is not None and key.feature_fusion == "none" else None
        _prefixes[key] = Prefix(key, known=known if known is not None and known.whole else None)
    prefix = _prefixes[key]
    _evict(_prefixes, MAX_CACHED_PREFIXES, MAX_COPIED_BYTES, lambda each: each.copied_bytes)
    return prefix


def compiled(architecture: Architecture, kind: StepKind, devices: tuple[str, ...] = ()) -> CompiledNetwork:
    """The network with its traced steps, built once per process for each combination of arguments.

    Up to ``MAX_CACHED_NETWORKS`` are cached while their values take up to ``MAX_CACHED_BYTES``; the least recently used
    are evicted first.
    """
    key = (architecture, kind, devices)
    if key not in _networks:
        _networks[key] = CompiledNetwork(Network(architecture, prefix_of(architecture.prefix)), kind, devices)
    found = _networks[key]
    _evict(_networks, MAX_CACHED_NETWORKS, MAX_CACHED_BYTES, lambda each: each.nbytes)
    return found


def _evict(cached: LRUCache[Any, T], max_count: int, max_bytes: int, bytes_of: Callable[[T], int]) -> None:
    """Evict the least recently used while there are more than ``max_count`` or all take more than ``max_bytes``, but
    keep at least one; free their memory.

    Sizes are read on each call, since a prefix grows while it is cached; ``LRUCache`` reads them only once.
    """
    freed = 0
    # Cache.__getitem__, unlike LRUCache's, does not change the order of use.
    while len(cached) > 1 and (
        len(cached) > max_count or sum(bytes_of(Cache.__getitem__(cached, key)) for key in cached) > max_bytes
    ):
        freed += bytes_of(cached.popitem()[1])
    if freed:
        # Layers and traced functions are reference cycles. Python counts objects, not bytes, until it looks for those:
        # a dozen evicted networks would wait for it.
        gc.collect()


class _Numbers:
    """The numbers of a configuration, in variables that the traced step reads."""

    def __init__(self, classes: int) -> None:
        self.smoothing, self.weight_decay, self.mixup, self.cutmix, self.ema = (
            tf.Variable(0.0, trainable=False) for _ in range(5)
        )
        self.class_weights = tf.Variable(tf.ones(classes), trainable=False)
        self.parts = tf.Variable(1, trainable=False)
        self.temperature, self.alpha = tf.Variable(1.0, trainable=False), tf.Variable(0.0, trainable=False)

    def set(self, config: TrialConfig, class_counts: np.ndarray) -> None:
        self.smoothing.assign(config.smoothing)
        self.weight_decay.assign(config.weight_decay)
        self.mixup.assign(config.mixup)
        self.cutmix.assign(config.cutmix)
        self.ema.assign(config.ema)
        self.parts.assign(config.accumulation_steps)
        weighted = config.balance == "class_weights"
        self.class_weights.assign(class_weights(class_counts) if weighted else np.ones(len(class_counts)))


@dataclass(frozen=True)
class _Examples:
    """A batch: inputs ``x`` (n, ...), ``labels`` int32 (n,), targets (n, classes) before and after smoothing, the
    ``weights`` of the examples in the loss (n,), and the probabilities of a ``teacher`` (n, classes), if there is one.
    """

    x: tf.Tensor
    labels: tf.Tensor
    plain_target: tf.Tensor
    target: tf.Tensor
    weights: tf.Tensor
    teacher: tf.Tensor | None = None

    def part(self, here: slice) -> _Examples:
        """The examples at ``here``."""
        every = [getattr(self, field.name) for field in fields(self)]
        return _Examples(*(None if each is None else each[here] for each in every))


class CompiledNetwork:
    """A network, its optimiser and its traced steps, reset for each trial instead of traced again."""

    def __init__(self, network: Network, kind: StepKind, devices: tuple[str, ...] = ()) -> None:
        """``devices``: names of the devices that each batch is divided among; () for the default one."""
        self.network, self.kind, self.devices = network, kind, devices
        self.numbers = _Numbers(network.architecture.classes)
        self.variables = network.trainable_parts()
        self._depths = np.array(network.depths(), np.float32)
        self._grades = tf.Variable(tf.ones(len(self.variables)), trainable=False)
        self.optimizer = _optimizer(kind.optimizer, kind.clip_norm, network.architecture.prefix.precision)
        self.optimizer.build(self.variables)
        self._fresh = [np.array(v) if len(v.shape) == 0 else None for v in self.optimizer.variables]
        self._averages = [tf.Variable(w, trainable=False) for w in network.weights()] if kind.averaged else []
        self._loss = _LOSSES[kind.loss]
        self._traced: dict[np.dtype, Any] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of the starting and current weights and the optimiser's variables."""
        sizes = [int(np.prod(v.shape)) * 4 for v in self.optimizer.variables]
        sizes += [int(np.prod(v.shape)) * 4 for v in self._averages]
        return sum(sizes) + self.network.nbytes

    def reset(self, config: TrialConfig, seed: int, class_counts: np.ndarray, steps: int) -> None:
        """Reset all values for a new trial. ``class_counts``: training examples per class, copies included; ``steps``:
        of an epoch."""
        self.network.reset(config, seed)
        self.set_numbers(config, class_counts, steps)
        for variable, fresh in zip(self.optimizer.variables, self._fresh, strict=True):
            variable.assign(tf.zeros(variable.shape, variable.dtype) if fresh is None else fresh)
        self._average_anew()

    def learn_from(self, distillation: Distillation) -> None:
        """Set how the steps of a distilled kind learn from their teacher."""
        self.numbers.temperature.assign(distillation.temperature)
        self.numbers.alpha.assign(distillation.alpha)

    def train(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        offsets: np.ndarray,
        rates: np.ndarray,
        margin_shares: np.ndarray,
        seeds: np.ndarray,
        teacher: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Train on batches in one traced call, in order: batch i is ``rows[offsets[i]:offsets[i + 1]]``.

        ``rows``: (n, ...), output of the prefix or stored rows; ``labels``: int32 (n,); ``offsets``: int32
        (steps + 1,); ``rates`` and ``margin_shares``: float32 (steps,); ``seeds``: int64 (steps, 2); ``teacher``:
        a teacher's probabilities, float32 (n, classes), if the kind is distilled. Returns the loss of each step,
        float32 (steps,), and its number of correct examples, int32 (steps,).
        """
        if rows.dtype not in self._traced:
            # One trace for all batch sizes, so that a trial's metrics do not depend on earlier trials.
            signature = [
                tf.TensorSpec((None, *self.network.input_spec.shape[1:]), rows.dtype),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None,), tf.float32),
                tf.TensorSpec((None, 2), tf.int64),
            ]
            if self.kind.distilled:
                signature.append(tf.TensorSpec((None, self.network.architecture.classes), tf.float32))
            self._traced[rows.dtype] = traced(self._train, signature)
        more = [] if teacher is None else [teacher]
        losses, hits = self._traced[rows.dtype](rows, labels, offsets, rates, margin_shares, seeds, *more)
        return losses.numpy(), hits.numpy()

    def _train(
        self,
        rows: tf.Tensor,
        labels: tf.Tensor,
        offsets: tf.Tensor,
        rates: tf.Tensor,
        margin_shares: tf.Tensor,
        seeds: tf.Tensor,
        teacher: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        steps = tf.shape(rates)[0]

        def step(i: tf.Tensor, losses: tf.TensorArray, hits: tf.TensorArray) -> tuple[Any, ...]:
            batch = slice(offsets[i], offsets[i + 1])
            x = tf.cast(rows[batch], self.network.input_spec.dtype)
            taught = None if teacher is None else teacher[batch]
            loss, right = self._train_step(x, labels[batch], rates[i], margin_shares[i], seeds[i], taught)
            return i + 1, losses.write(i, loss), hits.write(i, right)

        start = (tf.constant(0), tf.TensorArray(tf.float32, steps), tf.TensorArray(tf.int32, steps))
        _, losses, hits = tf.while_loop(lambda i, *_: i < steps, step, start, parallel_iterations=1)
        return losses.stack(), hits.stack()

    def set_numbers(self, config: TrialConfig, class_counts: np.ndarray, steps: int) -> None:
        """Set the configuration's numbers and the class weights; keep everything that training changes."""
        self.network.set_numbers(config, effective_counts(class_counts, config.balance))
        self.network.norms.adapt(steps * config.accumulation_steps)
        self._grades.assign(np.float32(config.bottom_rate) ** self._depths)
        self.numbers.set(config, class_counts)

    def _train_step(
        self,
        x: tf.Tensor,
        labels: tf.Tensor,
        rate: tf.Tensor,
        margin_share: tf.Tensor,
        seed: tf.Tensor,
        teacher: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        numbers, classes = self.numbers, self.network.architecture.classes
        plain_target = tf.one_hot(labels, classes)
        if self.network.architecture.prefix.mixes:
            x, plain_target = mix(x, plain_target, numbers.mixup, numbers.cutmix, seed)
            labels = tf.argmax(plain_target, 1, tf.int32)
        # Szegedy et al. 2016, section 7: q(k) = (1 - e) [k = y] + e / K.
        target = plain_target * (1.0 - numbers.smoothing) + numbers.smoothing / classes
        weights = tf.linalg.matvec(plain_target, numbers.class_weights)
        examples = _Examples(x, labels, plain_target, target, weights, teacher)
        gradients_of = self._accumulated if self.kind.accumulated else self._on_devices
        variables = [getattr(v, "value", v) for v in self.variables]
        loss, hits, gradients = gradients_of(examples, variables, margin_share, seed)
        graded = [v for v, depth in zip(variables, self._depths, strict=True) if self.kind.graded and depth > 0]
        before = [tf.identity(v) for v in graded]
        # Decay the weights at which the gradient was taken (Loshchilov & Hutter 2019, algorithm 2).
        tf.cond(numbers.weight_decay > 0, lambda: self._decay(1.0 - rate * numbers.weight_decay), lambda: None)
        self.optimizer.learning_rate = rate
        self.optimizer.apply(gradients, self.variables)
        for number, (variable, old) in enumerate(zip(graded, before, strict=True)):
            # Every optimiser's step is proportional to the rate. The backbone's variables come first.
            variable.assign(old + self._grades[number] * (variable - old))
        self._average()
        return loss, hits

    def _gradients(
        self,
        examples: _Examples,
        variables: list[tf.Variable],
        margin_share: tf.Tensor,
        seed: tf.Tensor,
        part: BatchPart | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """The mean loss of ``examples``, their number of correct answers, and the gradients of the loss, as the
        optimiser scales it. If they are a ``part`` of others, each is its addend to that of all of them.

        The gradient of a variable that the loss does not depend on is 0, which can be added up. Momentum and clipping
        leave 0 as it is, so such a variable keeps its value, as if the optimiser skipped it; decay still acts on it.
        """
        with tf.GradientTape() as tape:
            logits, plain = self.network.training_logits(examples.x, examples.plain_target, seed, margin_share, part)
            losses = examples.weights * self._loss(examples.target, logits)
            if examples.teacher is not None:
                alpha, soft = self.numbers.alpha, soft_cross_entropy(examples.teacher, plain, self.numbers.temperature)
                losses = alpha * soft + (1.0 - alpha) * losses
            loss = tf.reduce_mean(losses) if part is None else tf.reduce_sum(losses) / tf.cast(part.size, losses.dtype)
            scaled = self.optimizer.scale_loss(loss)
        hits = tf.reduce_sum(tf.cast(tf.argmax(plain, 1, tf.int32) == examples.labels, tf.int32))
        gradients = tape.gradient(scaled, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, hits, gradients

    def _on_devices(
        self, examples: _Examples, variables: list[tf.Variable], margin_share: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """``_gradients``; with several devices of a part of ``examples`` on each, added up on the first.

        Each device reads the weights from the first. Batch norms see the examples of their own device, and their
        moving statistics become the mean of what the parts make of them, weighted by size.
        """
        if not self.devices:
            return self._gradients(examples, variables, margin_share, seed)
        size, count = tf.shape(examples.labels)[0], len(self.devices)
        moving = [getattr(v, "value", v) for v in self.network.norms.moving]
        before = [tf.identity(v) for v in moving]
        found, moved, shares = [], [], []
        for number, name in enumerate(self.devices):
            part = BatchPart(number, size * number // count, size * (number + 1) // count, size)
            own = examples.part(slice(part.start, part.stop))
            with tf.device(name):  # with a tape of its own: gradients are computed where the tape is asked for them
                found.append(self._gradients(own, variables, margin_share, seed, part))
            moved.append([tf.identity(v) for v in moving])
            shares.append(tf.cast(part.stop - part.start, tf.float32) / tf.cast(size, tf.float32))
            for variable, value in zip(moving, before, strict=True):
                variable.assign(value)
        for variable, values in zip(moving, zip(*moved, strict=True), strict=True):
            variable.assign(tf.add_n([share * value for share, value in zip(shares, values, strict=True)]))
        losses, hits, gradients = zip(*found, strict=True)
        return tf.add_n(losses), tf.add_n(hits), [tf.add_n(each) for each in zip(*gradients, strict=True)]

    def _accumulated(
        self, examples: _Examples, variables: list[tf.Variable], margin_share: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """``_on_devices`` of all ``examples``, of which one part at a time passes through the network."""
        count = tf.shape(examples.labels)[0]
        parts = tf.minimum(self.numbers.parts, count)

        def add(i: tf.Tensor, loss: tf.Tensor, hits: tf.Tensor, *sums: tf.Tensor) -> tuple[Any, ...]:
            here = slice(i * count // parts, (i + 1) * count // parts)
            # Every part draws its own dropout; the step's number is in the last place of ``seed``.
            part_loss, part_hits, gradients = self._on_devices(
                examples.part(here), variables, margin_share, seed + tf.stack([tf.cast(i, tf.int64) * 2**32, 0])
            )
            share = tf.cast(here.stop - here.start, tf.float32) / tf.cast(count, tf.float32)
            added = [total + share * tf.cast(each, tf.float32) for total, each in zip(sums, gradients, strict=True)]
            return i + 1, loss + share * part_loss, hits + part_hits, *added

        zeros = [tf.zeros(v.shape) for v in variables]
        start = (tf.constant(0), tf.constant(0.0), tf.constant(0), *zeros)
        _, loss, hits, *gradients = tf.while_loop(lambda i, *_: i < parts, add, start, parallel_iterations=1)
        return loss, hits, [tf.cast(each, v.dtype) for each, v in zip(gradients, variables, strict=True)]

    def _average(self) -> None:
        """w' <- d w' + (1 - d) w after each step, with d = min(ema, (1 + t) / (10 + t)), so that the first steps of a
        short training are forgotten (as ``tf.train.ExponentialMovingAverage``)."""
        if self._averages:
            inner = getattr(self.optimizer, "inner_optimizer", self.optimizer)  # of one that scales the loss
            step = tf.cast(inner.iterations, tf.float32)
            decay = tf.minimum(self.numbers.ema, (1.0 + step) / (10.0 + step))
            for average, weight in zip(self._averages, self.network.weights(), strict=True):
                value = tf.cast(tf.convert_to_tensor(weight), average.dtype)
                average.assign(decay * average + (1.0 - decay) * value)

    def _average_anew(self) -> None:
        """Begin the averages with the weights of this moment."""
        for average, weight in zip(self._averages, self.network.weights() if self._averages else (), strict=True):
            average.assign(weight)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Meanwhile, the network holds the averages of its weights, if any are kept; what is changed in it is kept."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        if self._averages:
            held = [np.array(weight) for weight in self.network.weights()]
            self.network.load_state([np.array(average) for average in self._averages])
            for average, weight in zip(self._averages, held, strict=True):
                average.assign(weight)

    def _decay(self, factor: tf.Tensor) -> None:
        for variable in self.variables:
            if len(variable.shape) > 1 and variable.name not in NOT_DECAYED:
                variable.assign(variable * factor)

    def state(self) -> list[np.ndarray]:
        kept = [*self.optimizer.variables, *self._averages]
        return self.network.state() + [np.asarray(v) for v in kept]

    def load_head(self, arrays: list[np.ndarray]) -> None:
        """Set the weights above the backbone, in the average, too."""
        self.network.load_head(arrays)
        self._average_anew()

    def load_state(self, arrays: list[np.ndarray]) -> None:
        count = len(self.network.state())
        self.network.load_state(arrays[:count])
        for variable, array in zip([*self.optimizer.variables, *self._averages], arrays[count:], strict=True):
            variable.assign(array)


def soft_cross_entropy(teacher: tf.Tensor, logits: tf.Tensor, temperature: tf.Tensor | float) -> tf.Tensor:
    """-T^2 sum_k q(k) log p(k), shape (n,), with q and p at temperature T: q ~ teacher^(1/T), p ~ exp(logits / T).

    Hinton, Vinyals and Dean 2015, section 2: T^2 keeps the size of the gradients. ``teacher``: probabilities
    (n, classes).
    """
    softened = tf.nn.softmax(tf.math.log(tf.maximum(teacher, 1e-7)) / temperature)
    return -tf.square(temperature) * tf.reduce_sum(softened * tf.nn.log_softmax(logits / temperature), 1)


def _optimizer(name: str, clip_norm: float, precision: str) -> Any:
    clip = {"global_clipnorm": clip_norm} if clip_norm > 0 else {}
    inner = {
        "sgd": lambda: keras.optimizers.SGD(momentum=0.9, nesterov=True, **clip),
        "adam": lambda: keras.optimizers.Adam(**clip),
        "rmsprop": lambda: keras.optimizers.RMSprop(**clip),
    }[name]()
    return keras.optimizers.LossScaleOptimizer(inner) if precision == "mixed_float16" else inner


def _cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-sum_k q(k) log p(k), shape (n,)."""
    return -tf.reduce_sum(target * tf.nn.log_softmax(logits), 1)


def _focal_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-sum_k q(k) (1 - p(k))^2 log p(k) (Lin et al. 2017, eq. 4, gamma = 2), shape (n,)."""
    log_p = tf.nn.log_softmax(logits)
    return -tf.reduce_sum(target * tf.square(1.0 - tf.exp(log_p)) * log_p, 1)


_LOSSES = {
    "categorical_crossentropy": _cross_entropy,
    "categorical_focal_crossentropy": _focal_cross_entropy,
}
