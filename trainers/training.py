"""The one training loop. Read it from ``open_fit`` to ``run_epoch``.

A fit is a pure function of its job: order, mixing, dropout and starting weights come from (seed, epoch, step) alone,
so the same job gives the same epochs in a fresh process, in a warm one, and after a restore.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers import device
from trainers.arrays import DAMAGED, read_list, write_list
from trainers.balance import class_weights, effective_counts, example_order
from trainers.contract import Diverged, EpochMetrics, Fit, FitJob, TrainerError, TrialConfig
from trainers.features import Examples, fit_examples
from trainers.folds import FoldedFit
from trainers.manifest import Manifest
from trainers.mixing import mix
from trainers.model import Architecture, Network, Prefix
from trainers.speed import images_per_second

WEIGHTS_FILE = "weights.npz"
JOB_FILE = "job.json"
STATE_FILE = "state.npz"
PREDICT_BATCH = 128


def open_fit(job: FitJob) -> Fit:
    """Open a fit in this process: one ``TrainingFit``, or with ``job.folds`` one for each fold. Raises TrainerError."""
    precision = device.prepare(job.threads, job.gpu_memory_share, job.precision)
    manifest, config = Manifest.read(Path(job.manifest)), job.config
    architecture = Architecture.of(config, job.weights, len(manifest.classes), precision)

    # Rows below the boundary come from the store.
    parts = fit_examples(job, manifest, prefix_of(architecture))
    if job.folds:
        return FoldedFit(job, lambda own, fold: TrainingFit(own, architecture, *parts[fold - 1]))
    return TrainingFit(job, architecture, *parts[0])


class TrainingFit:
    """One configuration trained once. See ``trainers.contract.Fit``."""

    def __init__(self, job: FitJob, architecture: Architecture, train: Examples, validation: Examples | None) -> None:
        """Without ``validation`` the figures of it are NaN."""
        config = self.config = job.config
        self.job, self.train, self.validation = job, train, validation
        self.epoch = 0
        self.class_counts = np.bincount(train.labels, minlength=architecture.classes)
        self.batches = math.ceil(len(train) / config.batch_size)

        # Network: traced once for all trials of this architecture in this process.
        self.compiled = compiled(architecture, config.optimizer, config.clip_norm, config.loss)
        self.compiled.reset(config, job.seed, self.class_counts)
        self.images_per_s = (
            images_per_second(prefix_of(architecture), self.compiled.network) if job.measure_speed else math.nan
        )

    def run_epoch(self) -> EpochMetrics:
        """See ``trainers.contract.Fit``. ``loss`` is what is trained (smoothing, margin, dropout, mixing and
        class weights in it), over the examples that the epoch drew; ``accuracy`` counts the larger label of a mixed
        image. ``val_loss`` is the cross-entropy of the plain labels, so that trials of different losses compare."""
        started = time.perf_counter()
        config, steps = self.config, self.compiled
        order = example_order(self.train.labels, config.balance, self.job.seed, self.epoch)
        losses, correct, rate = 0.0, 0, 0.0

        for number, chosen in enumerate(np.array_split(order, self.batches)):
            step = self.epoch * self.batches + number
            rate = learning_rate(config, step, self.batches * config.epochs)
            loss, hits = steps.train_step(
                tf.convert_to_tensor(self.train.rows.take(chosen)),
                tf.convert_to_tensor(self.train.labels[chosen]),
                tf.constant(rate, tf.float32),
                tf.constant([self.job.seed, 2 * step], tf.int64),
            )
            self._check_finite(float(loss), rate)
            losses += float(loss) * len(chosen)
            correct += int(hits)

        trained_s = time.perf_counter() - started
        validated = self._validate()
        if self.validation is not None:
            self._check_finite(validated["val_loss"], rate)
        self.epoch += 1
        return EpochMetrics(
            epoch=self.epoch,
            loss=losses / len(order),
            accuracy=correct / len(order),
            val_loss=validated["val_loss"],
            val_accuracy=validated["val_accuracy"],
            val_macro_f1=validated["val_macro_f1"],
            learning_rate=rate,
            seconds=time.perf_counter() - started,
            train_images_per_s=len(order) / trained_s,
            images_per_s=self.images_per_s,
        )

    def _check_finite(self, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"diverged: the loss became {loss} in epoch {self.epoch + 1} at learning rate {rate:.3g}; "
                "a lower learning_rate or clip_norm may help."
            )

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {"val_loss": math.nan, "val_accuracy": math.nan, "val_macro_f1": math.nan}
        labels = self.validation.labels
        rows = self.validation.rows
        parts = np.array_split(np.arange(len(rows)), math.ceil(len(rows) / PREDICT_BATCH))
        probabilities = np.concatenate([self.compiled.network.predict(rows.take(part)) for part in parts])
        predicted = probabilities.argmax(1)
        true_class = probabilities[np.arange(len(labels)), labels]
        return {
            "val_loss": float(-np.log(np.maximum(true_class, 1e-7)).mean()),
            "val_accuracy": float((predicted == labels).mean()),
            "val_macro_f1": macro_f1(labels, predicted),
        }

    @property
    def validation_images(self) -> int:
        """How many images ``val_accuracy`` is the mean over."""
        return len(self.validation) if self.validation is not None else 0

    def state(self) -> list[np.ndarray]:
        """All that training changes but the count of epochs: weights and the optimiser's values, as copies."""
        return [np.array(array) for array in self.compiled.state()]

    def take_turn(self, state: list[np.ndarray]) -> None:
        """Go on with what ``state`` gave, after another fit had the network that both share."""
        self.compiled.set_numbers(self.config, self.class_counts)
        self.compiled.load_state(state)

    def save(self, folder: Path) -> None:
        """See ``trainers.contract.Fit``."""
        write_list(folder / STATE_FILE, self.compiled.state(), epoch=self.epoch)

    def restore(self, folder: Path) -> None:
        """See ``trainers.contract.Fit``. Raises TrainerError where ``folder`` holds no state of such a fit."""
        if not (folder / STATE_FILE).is_file():
            raise TrainerError(f"there is no saved training in {folder}.")
        with _said_of(f"the saved training in {folder}"):
            state = read_list(folder / STATE_FILE)
            with np.load(folder / STATE_FILE) as stored:
                epoch = int(stored["epoch"])
        self.compiled.load_state(state)
        self.epoch = epoch

    def check(self) -> None:
        """Raises Diverged where a weight is no number."""
        if not all(np.isfinite(a).all() for a in self.compiled.network.state()):
            raise Diverged("diverged: the last steps made weights that are no numbers; a lower learning_rate may help.")

    def finish(self) -> None:
        """See ``trainers.contract.Fit``. Raises Diverged rather than write a weight that is no number."""
        self.check()
        if self.job.output:
            write_weights(Path(self.job.output), self.job, self.compiled.network.state())


def learning_rate(config: TrialConfig, step: int, steps: int) -> float:
    """The rate of one step: a linear rise over ``warmup`` of all steps, then constant or a half cosine to 0.

    SGDR without restarts (Loshchilov & Hutter 2017, eq. 5): lr (1 + cos(pi t)) / 2, t from 0 to 1 after the rise.
    """
    rising = config.warmup * steps
    if step < rising:
        return config.learning_rate * (step + 1) / (rising + 1)
    if config.schedule == "constant":
        return config.learning_rate
    t = min((step - rising) / max(steps - rising, 1), 1.0)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * t))


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean of 2 tp / (2 tp + fp + fn) over the classes that occur among labels or predictions."""
    scores = []
    for c in np.union1d(labels, predicted):
        hits = np.sum((labels == c) & (predicted == c))
        scores.append(2 * hits / (np.sum(labels == c) + np.sum(predicted == c)))
    return float(np.mean(scores))


def write_weights(folder: Path, job: FitJob, arrays: list[np.ndarray]) -> None:
    """``weights.npz`` and ``job.json``, each written beside and renamed; the job last."""
    write_list(folder / WEIGHTS_FILE, arrays)
    beside = folder / f".{JOB_FILE}.{os.getpid()}"
    beside.write_text(json.dumps(job.to_dict(), indent=1))
    os.replace(beside, folder / JOB_FILE)


def read_weights(folder: Path) -> tuple[FitJob, list[np.ndarray]]:
    """What ``write_weights`` wrote. Raises TrainerError where it is not there, or damaged."""
    if not (folder / JOB_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise TrainerError(f"there is no trained model in {folder}.")
    with _said_of(f"the trained model in {folder}"):
        return FitJob.from_dict(json.loads((folder / JOB_FILE).read_text())), read_list(folder / WEIGHTS_FILE)


@contextlib.contextmanager
def _said_of(what: str) -> Iterator[None]:
    """What goes wrong inside, where files are read, becomes one TrainerError about ``what``."""
    try:
        yield
    except DAMAGED as error:
        raise TrainerError(f"{what} is damaged ({str(error) or type(error).__name__}); train it again.") from error


def prefix_of(architecture: Architecture) -> Prefix:
    """The prefix, opened once a process; architectures that differ in their heads alone share one."""
    return _prefix(replace(architecture, hidden=0, head="softmax", classes=1))


@functools.lru_cache(maxsize=4)
def _prefix(architecture: Architecture) -> Prefix:
    return Prefix(architecture)


@functools.lru_cache(maxsize=3)
def compiled(architecture: Architecture, optimizer: str, clip_norm: float, loss: str) -> CompiledNetwork:
    """The network with its traced steps, one a process for each combination."""
    return CompiledNetwork(Network(architecture, prefix_of(architecture)), optimizer, clip_norm, loss)


class _Numbers:
    """A configuration's numbers that the traced step reads from variables."""

    def __init__(self, classes: int) -> None:
        self.smoothing, self.weight_decay, self.mixup, self.cutmix = (
            tf.Variable(0.0, trainable=False) for _ in range(4)
        )
        self.class_weights = tf.Variable(tf.ones(classes), trainable=False)

    def set(self, config: TrialConfig, class_counts: np.ndarray) -> None:
        self.smoothing.assign(config.smoothing)
        self.weight_decay.assign(config.weight_decay)
        self.mixup.assign(config.mixup)
        self.cutmix.assign(config.cutmix)
        weighted = config.balance == "class_weights"
        self.class_weights.assign(class_weights(class_counts) if weighted else np.ones(len(class_counts)))


class CompiledNetwork:
    """A network, its optimiser and the traced steps, reset for each trial instead of traced anew."""

    def __init__(self, network: Network, optimizer: str, clip_norm: float, loss: str) -> None:
        self.network = network
        self.numbers = _Numbers(network.architecture.classes)
        self.variables = network.trainable_parts()
        self.optimizer = _optimizer(optimizer, clip_norm, network.architecture.precision)
        self.optimizer.build(self.variables)
        self._loss = _LOSSES[loss]
        # One trace for batches of every size, so that a trial's figures never depend on which came before it.
        self.train_step = tf.function(
            self._train_step,
            input_signature=[
                network.input_spec,
                tf.TensorSpec((None,), tf.int32),
                tf.TensorSpec((), tf.float32),
                tf.TensorSpec((2,), tf.int64),
            ],
        )

    def reset(self, config: TrialConfig, seed: int, class_counts: np.ndarray) -> None:
        """As new for a trial. ``class_counts``: training examples of each class, copies included."""
        self.network.reset(config, seed)
        self.set_numbers(config, class_counts)
        fresh = _optimizer(config.optimizer, config.clip_norm, self.network.architecture.precision)
        fresh.build(self.variables)
        for old, new in zip(self.optimizer.variables, fresh.variables, strict=True):
            old.assign(new)

    def set_numbers(self, config: TrialConfig, class_counts: np.ndarray) -> None:
        """The configuration's numbers and the classes' weights, and nothing that training changes."""
        self.network.set_numbers(config, effective_counts(class_counts, config.balance))
        self.numbers.set(config, class_counts)

    def _train_step(
        self, x: tf.Tensor, labels: tf.Tensor, rate: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        numbers, classes = self.numbers, self.network.architecture.classes
        plain_target = tf.one_hot(labels, classes)
        if self.network.architecture.mixes:
            x, plain_target = mix(x, plain_target, numbers.mixup, numbers.cutmix, seed)
            labels = tf.argmax(plain_target, 1, tf.int32)
        # Szegedy et al. 2016, section 7: q(k) = (1 - e) [k = y] + e / K.
        target = plain_target * (1.0 - numbers.smoothing) + numbers.smoothing / classes
        weights = tf.linalg.matvec(plain_target, numbers.class_weights)
        with tf.GradientTape() as tape:
            logits, plain = self.network.training_logits(x, plain_target, seed)
            loss = tf.reduce_mean(weights * self._loss(target, logits))
            scaled = self.optimizer.scale_loss(loss)
        variables = [getattr(v, "value", v) for v in self.variables]
        gradients = tape.gradient(scaled, variables)
        # Decay acts on the weights that the gradient was taken at (Loshchilov & Hutter 2019, algorithm 2).
        for variable in self.variables:
            if len(variable.shape) > 1:
                variable.assign(variable * (1.0 - rate * numbers.weight_decay))
        self.optimizer.learning_rate = rate
        self.optimizer.apply(gradients, self.variables)
        hits = tf.reduce_sum(tf.cast(tf.argmax(plain, 1, tf.int32) == labels, tf.int32))
        return loss, hits

    def state(self) -> list[np.ndarray]:
        return self.network.state() + [np.asarray(v) for v in self.optimizer.variables]

    def load_state(self, arrays: list[np.ndarray]) -> None:
        count = len(self.network.state())
        self.network.load_state(arrays[:count])
        for variable, array in zip(self.optimizer.variables, arrays[count:], strict=True):
            variable.assign(array)


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
