"""The training loop. Read it from ``open_fit`` to ``run_epoch``.

A fit is a pure function of its job: order, mixing, dropout and starting weights depend only on (seed, epoch, step), so
the same job gives the same epochs in a fresh process, in a reused one, and after a restore.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trainers.config import MEASURED_IMAGES, StepKind, TrialConfig
from trainers.contract import EpochMetrics, Fit, FitJob
from trainers.data.manifest import Manifest
from trainers.errors import Diverged, TrainerError
from trainers.files.arrays import DAMAGED, read_list, write_list
from trainers.files.atomic import atomic_write_text
from trainers.metrics import log_loss, macro_f1
from trainers.networks.network import Architecture, Network
from trainers.training import device
from trainers.training.balance import example_order
from trainers.training.chunks import chunks, weighted_sum
from trainers.training.cross_validation import FoldedFit
from trainers.training.features import LabelledRows, fit_examples
from trainers.training.steps import compiled, prefix_of
from trainers.training.throughput import images_per_second
from trainers.training.warm_head import HeadStart, computed_once, head_starts

WEIGHTS_FILE = "weights.npz"
JOB_FILE = "job.json"
STATE_FILE = "state.npz"
PREDICT_BATCH = 128
SAME = 1e-6
"""Maximum difference between the probabilities of two images that a network cannot tell apart."""
MEASURING = 0x6E6F726D
"""Part of the seed of the images by which batch norms are measured, so that no other draw equals theirs."""


def open_fit(job: FitJob) -> Fit:
    """Open a fit in this process: a ``TrainingFit``, or with ``job.folds`` one per fold. Raises TrainerError."""
    precision = device.prepare(job.threads, job.gpu_memory_share, job.precision)
    manifest, config = Manifest.read(Path(job.manifest)), job.config
    architecture = Architecture.of(config, job.weights, len(manifest.classes), precision)

    parts = fit_examples(job, manifest, prefix_of(architecture.prefix, Path(job.cache)))
    starts: list[HeadStart | None] = [*head_starts(job, manifest, precision)] or [None] * len(parts)
    if job.folds:
        return FoldedFit(job, lambda own, fold: TrainingFit(own, architecture, *parts[fold - 1], starts[fold - 1]))
    return TrainingFit(job, architecture, *parts[0], starts[0])


class TrainingFit:
    """One configuration trained once. See ``trainers.contract.Fit``."""

    def __init__(
        self,
        job: FitJob,
        architecture: Architecture,
        train: LabelledRows,
        validation: LabelledRows | None,
        start: HeadStart | None = None,
    ) -> None:
        """Validation metrics are NaN if ``validation`` is None. ``start``: how the head is trained before the rest.

        Raises TrainerError if the job wants more devices than there are, or than a batch has examples.
        """
        config = self.config = job.config
        self.job, self.train, self.validation, self.start = job, train, validation, start
        self.precision = architecture.prefix.precision
        self.epoch = 0
        self._is_constant = False  # the last validation's probabilities
        self.class_counts = np.bincount(train.labels, minlength=architecture.classes)
        self.originals = train.original_count
        self.draws = self.originals if config.steps == "originals" else len(train)
        self.batches = math.ceil(self.draws / config.batch_size)
        fewest = self.draws // self.batches // config.accumulation_steps
        if fewest < job.devices > 1:
            raise TrainerError(
                f"a batch of {fewest} examples cannot be divided among {job.devices} GPUs; choose a larger batch_size, "
                "fewer accumulation_steps or fewer resources.gpus."
            )

        # Traced once per process for all trials of this architecture.
        kind = StepKind.of(config, job.distillation is not None)
        self.compiled = compiled(architecture, kind, device.devices(job.devices))
        self.compiled.reset(config, job.first_seed, self.class_counts, self.batches)
        if job.distillation is not None:
            self.compiled.learn_from(job.distillation)
        self.images_per_s = (
            images_per_second(prefix_of(architecture.prefix), self.compiled.network) if job.measure_speed else math.nan
        )

    def run_epoch(self) -> EpochMetrics:
        """See ``trainers.contract.Fit``. Raises Diverged after the last epoch, too, if the network gives all validation
        images, of several classes, the same probabilities.

        ``loss`` is the training loss (with smoothing, margin, dropout, mixing and class weights) over the examples
        drawn; ``accuracy`` compares with the larger label of a mixed image. ``val_loss`` is the plain cross-entropy,
        so that trials with different losses are comparable.
        """
        started = time.perf_counter()
        config, steps = self.config, self.compiled
        if self.start is not None and self.epoch == 0:
            self._begin_with(self.start)
            self.start = None
        began_s = time.perf_counter()
        order = example_order(self.train.labels, config.balance, self.job.seed, self.epoch, self.draws)
        numbers = np.arange(self.epoch * self.batches, (self.epoch + 1) * self.batches)
        seeds = np.stack([np.full(self.batches, self.job.seed), 2 * numbers], 1).astype(np.int64)
        total = self.batches * config.epochs
        rates = [learning_rate(config, step, total) for step in numbers.tolist()]
        shares = np.array([margin_share(config, step, total) for step in numbers.tolist()], np.float32)
        rows, batches = self.train.of_epoch(self.epoch, order), np.array_split(np.arange(len(order)), self.batches)
        losses, correct = np.zeros(self.batches, np.float32), 0

        for chunk in chunks(rows, batches):
            here = slice(chunk.first, chunk.first + len(chunk))
            chosen = order[chunk.chosen]
            labels = self.train.labels[chosen]
            here_rates = np.array(rates[here], np.float32)
            taught = None if self.train.teacher is None else self.train.teacher[chosen]
            each, hits = steps.train(chunk.rows, labels, chunk.offsets, here_rates, shares[here], seeds[here], taught)
            for loss, rate in zip(each.tolist(), rates[here], strict=True):
                self._check_finite(loss, rate)
            losses[here] = each
            correct += int(hits.sum())

        trained_s = time.perf_counter() - began_s
        with steps.averaged():
            self._measure_norms()
            validated = self._validate()
        if self.validation is not None:
            self._check_finite(validated["val_loss"], rates[-1])
        self.epoch += 1
        if self._is_constant and self.epoch >= config.epochs:
            raise Diverged(
                f"collapsed: after epoch {self.epoch} every validation image gets the same probabilities; a lower "
                "learning_rate, a smaller margin or a margin_warmup may help."
            )
        return EpochMetrics(
            epoch=self.epoch,
            loss=weighted_sum(losses, batches, rows) / len(order),
            accuracy=correct / len(order),
            val_loss=validated["val_loss"],
            val_accuracy=validated["val_accuracy"],
            val_macro_f1=validated["val_macro_f1"],
            learning_rate=rates[-1],
            seconds=time.perf_counter() - started,
            train_images_per_s=len(order) / trained_s,
            images_per_s=self.images_per_s,
        )

    def _begin_with(self, start: HeadStart) -> None:
        """Train the head alone and take its weights. Raises Diverged."""
        head = TrainingFit(start.job, start.architecture, computed_once(start.rows), None)
        for _ in range(start.job.config.epochs):
            head.run_epoch()
        self.compiled.load_head(head.compiled.network.head_state())

    def _check_finite(self, loss: float, rate: float) -> None:
        if not math.isfinite(loss):
            raise Diverged(
                f"diverged: the loss became {loss} in epoch {self.epoch + 1} at learning rate {rate:.3g}; "
                "a lower learning_rate or clip_norm may help."
            )

    def _measure_norms(self) -> None:
        """Measure the batch norms' statistics over training images, without their copies and unmixed, as inference
        sees them; which images is drawn anew in each epoch."""
        network = self.compiled.network
        if network.norms.is_measured and (self.validation is not None or self.epoch + 1 >= self.config.epochs):
            measure_norms(network, self.train, self.job.seed, self.epoch)

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {"val_loss": math.nan, "val_accuracy": math.nan, "val_macro_f1": math.nan}
        labels = self.validation.labels
        rows = self.validation.rows
        parts = prediction_batches(np.arange(len(rows)))
        network = self.compiled.network
        probabilities = np.concatenate([network.predict_batches(c.rows, c.offsets) for c in chunks(rows, parts)])
        predicted = probabilities.argmax(1)
        self._is_constant = len(set(labels.tolist())) > 1 and bool(np.ptp(probabilities, axis=0).max() < SAME)
        return {
            "val_loss": log_loss(probabilities, labels),
            "val_accuracy": float((predicted == labels).mean()),
            "val_macro_f1": macro_f1(labels, predicted),
        }

    @property
    def validation_images(self) -> int:
        """Number of images that ``val_accuracy`` averages over."""
        return len(self.validation) if self.validation is not None else 0

    def state(self) -> list[np.ndarray]:
        """Copies of all values that training changes (weights, optimiser), except the epoch."""
        return [np.array(array) for array in self.compiled.state()]

    def take_turn(self, state: list[np.ndarray]) -> None:
        """Load what ``state()`` returned, after another fit used the shared network."""
        self.compiled.set_numbers(self.config, self.class_counts, self.batches)
        self.compiled.load_state(state)

    def save(self, folder: Path) -> None:
        """See ``trainers.contract.Fit``."""
        # Saved every few seconds, and never the only copy of longer work, so no fsync.
        about = {"epoch": self.epoch, "precision": self.precision}
        write_list(folder / STATE_FILE, self.compiled.state(), about, durable=False)

    def restore(self, folder: Path) -> None:
        """See ``trainers.contract.Fit``. Raises TrainerError, possibly after loading a part, if ``folder`` does not
        hold the state of such a fit in this precision."""
        if not (folder / STATE_FILE).is_file():
            raise TrainerError(f"there is no saved training in {folder}.")
        with _damage_reported(f"the saved training in {folder}"):
            state = read_list(folder / STATE_FILE)
            with np.load(folder / STATE_FILE) as stored:
                epoch = int(stored["epoch"])
                precision = str(stored["precision"]) if "precision" in stored else self.precision
            if precision != self.precision:  # "auto" depends on the machine
                raise TrainerError(
                    f"the saved training in {folder} is in {precision} and cannot be resumed in {self.precision}; "
                    "train it again."
                )
            self.compiled.load_state(state)
        self.epoch = epoch

    def check(self) -> None:
        """Raise Diverged if a weight is not finite."""
        with self.compiled.averaged():
            weights = self.compiled.network.state()
        if not all(np.isfinite(a).all() for a in weights):
            raise Diverged("diverged: the last steps made weights non-finite; a lower learning_rate may help.")

    def finish(self) -> None:
        """See ``trainers.contract.Fit``. Raises Diverged instead of writing a non-finite weight."""
        self.check()
        if self.job.output:
            with self.compiled.averaged():
                write_weights(Path(self.job.output), self.job, self.compiled.network.state())


def measure_norms(network: Network, train: LabelledRows, seed: int, epoch: int) -> None:
    """Measure the batch norms' statistics of ``network`` over up to ``MEASURED_IMAGES`` of the originals of ``train``,
    drawn by ``seed`` and ``epoch`` and made square as in inference, which the statistics are for."""
    chosen = np.random.default_rng((seed, epoch, MEASURING)).permutation(train.original_count)[:MEASURED_IMAGES]
    rows = train.in_epoch(epoch) if train.measured is None else train.measured
    for chunk in chunks(rows, prediction_batches(chosen)):
        network.measure_norms(chunk.rows, chunk.offsets, chunk.first)


def prediction_batches(indices: np.ndarray) -> list[np.ndarray]:
    """Divide ``indices`` (n,), at least one, into as few batches of up to ``PREDICT_BATCH`` as there can be, evenly."""
    return np.array_split(indices, math.ceil(len(indices) / PREDICT_BATCH))


def learning_rate(config: TrialConfig, step: int, steps: int) -> float:
    """The learning rate of a step: linear warm-up over a share ``warmup`` of all steps, then constant or cosine to 0.

    SGDR without restarts (Loshchilov & Hutter 2017, eq. 5): lr (1 + cos(pi t)) / 2, t from 0 to 1 after the warm-up.
    """
    warmup_steps = config.warmup * steps
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / (warmup_steps + 1)
    if config.schedule == "constant":
        return config.learning_rate
    t = min((step - warmup_steps) / max(steps - warmup_steps, 1), 1.0)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * t))


def margin_share(config: TrialConfig, step: int, steps: int) -> float:
    """The share of its margin that a head has in a step: from near 0 to 1 in a share ``margin_warmup`` of all steps."""
    return min((step + 1) / (config.margin_warmup * steps + 1), 1.0)


def write_weights(folder: Path, job: FitJob, arrays: list[np.ndarray]) -> None:
    """Write ``weights.npz`` and then ``job.json``."""
    write_list(folder / WEIGHTS_FILE, arrays)
    atomic_write_text(folder / JOB_FILE, json.dumps(job.to_dict(), indent=1))


def read_weights(folder: Path) -> tuple[FitJob, list[np.ndarray]]:
    """Read what ``write_weights`` wrote. Raises TrainerError if it is missing or damaged."""
    if not (folder / JOB_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
        raise TrainerError(f"there is no trained model in {folder}.")
    with _damage_reported(f"the trained model in {folder}"):
        return FitJob.from_dict(json.loads((folder / JOB_FILE).read_text())), read_list(folder / WEIGHTS_FILE)


def open_network(fit: FitJob, arrays: list[np.ndarray], classes: int, precision: str = "float32") -> Network:
    """Build the trained network of a finished fit from what ``read_weights`` returned."""
    architecture = Architecture.of(fit.config, fit.weights, classes, precision)
    network = Network(architecture, prefix_of(architecture.prefix))
    network.set_numbers(fit.config)
    network.load_state(arrays)
    return network


@contextlib.contextmanager
def _damage_reported(what: str) -> Iterator[None]:
    """Turn an error from reading damaged files into a TrainerError that names ``what``."""
    try:
        yield
    except DAMAGED as error:
        raise TrainerError(f"{what} is damaged ({str(error) or type(error).__name__}); train it again.") from error
