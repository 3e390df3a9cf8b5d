"""Measure the speed of this worker at each part of a sweep, for ``orch plan``.

Uses the sweep's own photos and the networks and steps of its trials, so nothing is modelled here. A job runs on every
slot of the machine at once, so that the figures include contention between workers.
"""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainers.config import StepKind, TrialConfig
from trainers.contract import FitJob, PartFigures
from trainers.data.manifest import Manifest
from trainers.images.augment import augment
from trainers.images.decoder import Decoder, ImageCopy
from trainers.networks.backbone import build_backbone
from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix
from trainers.networks.tracing import traced
from trainers.training import device, load
from trainers.training.features import PREFIX_BATCH, LabelledRows
from trainers.training.loop import PREDICT_BATCH, TrainingFit
from trainers.training.steps import CompiledNetwork, compiled, prefix_of

MAX_PHOTOS = 64
"""Maximum number of photos, spread over the data, on which decoding and augmentation are timed."""
DECODE_S, COPY_S = 1.5, 0.4
"""Maximum seconds spent on a view at one size, and on a recipe."""
PART_S = 8.0
"""Maximum seconds spent on a part."""
MAX_STEP_S = 0.8
"""Maximum seconds per step, to which batches are reduced: a large network is as fast per image in a small batch."""
MAX_ROWS_BYTES = 64 * 2**20
"""Maximum bytes of the rows of a batch."""
MAX_STEPS = 200
"""Maximum number of steps per timed epoch."""


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the entries of ``job``, in order, for about ``job["seconds"]``; parts that do not fit in are left out.

    ``job``: ``manifest``; ``decode``, a list of ``{"view", "size"}``; ``recipes``, a list of ``{"recipe", "size"}``;
    ``parts``, a list of ``{"config": TrialConfig as a dict, "weights"}``; ``asked_at`` (time.time() when the worker was
    requested); ``seconds``; ``threads``, ``gpu_memory_share``, ``precision`` as in a ``FitJob``.

    Returns ``start_s`` (from ``asked_at`` until TensorFlow was imported); ``decode`` and ``recipes`` as in the job,
    each with ``seconds`` per image; ``parts``, those measured (``place`` in the job, the fields of ``PartFigures``, and
    ``reset_s``, the seconds of resetting a network for another trial); ``worker_bytes``, the peak memory of this
    process; and ``loads``, samples of ``trainers.training.load`` taken between the measurements.
    Writes nothing. Raises TrainerError.
    """
    start_s = max(time.time() - job["asked_at"], 0.0)
    ends_s = time.perf_counter() + job["seconds"]
    precision = device.prepare(job["threads"], job["gpu_memory_share"], job["precision"])
    manifest = Manifest.read(Path(job["manifest"]))
    photos, loads = _Photos.of(manifest), [load.sample()]
    decode = [
        {**each, "seconds": _decode_s(photos, each["view"], each["size"], job["threads"])} for each in job["decode"]
    ]
    recipes = [{**each, "seconds": _copy_s(photos, each["recipe"], each["size"])} for each in job["recipes"]]
    parts = []
    for place, part in enumerate(job["parts"]):
        remaining_s = ends_s - time.perf_counter()
        if remaining_s <= 0:
            break
        slice_s = min(remaining_s / (len(job["parts"]) - place), PART_S)
        config = TrialConfig(**part["config"])
        architecture = Architecture.of(config, part["weights"], len(manifest.classes), precision)
        try:
            ends_s += _download_s(architecture)
            figures, reset_s = _measure_part(config, architecture, photos, slice_s)
        except Exception as error:  # its own trials will report it; the plan needs the other parts
            print(f"{config.backbone} could not be measured: {error}", flush=True)
            continue
        parts.append({"place": place, "reset_s": reset_s, **asdict(figures)})
        loads.append(load.sample())
    return {
        "start_s": start_s,
        "decode": decode,
        "recipes": recipes,
        "parts": parts,
        "worker_bytes": _peak_memory_bytes(),
        "loads": [asdict(each) for each in (*loads, load.sample())],
    }


@dataclass(frozen=True)
class _Photos:
    """Some photos, spread evenly over the manifest."""

    root: Path
    copies: tuple[ImageCopy, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> _Photos:
        places = np.unique(np.linspace(0, len(manifest.table) - 1, MAX_PHOTOS).astype(int))
        rows = manifest.table.iloc[places]
        pairs = zip(rows["path"].tolist(), rows["sha256"].tolist(), strict=True)
        return cls(manifest.root, tuple(ImageCopy(path, sha256, 0) for path, sha256 in pairs))

    def decoded(self, number: int, view: str, size: int) -> np.ndarray:
        """Photo ``number`` decoded as for the store, uint8 (size, size, 3)."""
        return next(Decoder(self.root, "flips", view, size, 0)([self.copies[number]]))[0]


@dataclass(frozen=True)
class _RepeatedRows:
    """A few rows repeated up to ``rows``. See ``trainers.training.features.ReadRows``."""

    some: np.ndarray
    rows: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.some.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        return self.some.dtype

    def __len__(self) -> int:
        return self.rows

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.some[indices % len(self.some)]


def _decode_s(photos: _Photos, view: str, size: int, threads: int) -> float:
    """Mean seconds per photo from disk to a square of ``size``, decoded by ``threads`` threads as for the store."""
    photos.decoded(0, view, size)
    order = np.random.default_rng(0).permutation(len(photos.copies))
    images = Decoder(photos.root, "flips", view, size, 0, threads).each([photos.copies[place] for place in order])
    started_s, elapsed_s, done = time.perf_counter(), 0.0, 0
    with contextlib.closing(images):
        for _ in images:
            done += 1
            elapsed_s = time.perf_counter() - started_s  # before closing, which waits for photos that are not counted
            if elapsed_s >= DECODE_S:
                break
    return elapsed_s / done


def _copy_s(photos: _Photos, recipe: str, size: int) -> float:
    image, copies = photos.decoded(0, "squash", size), photos.copies
    return _mean_s(len(copies), lambda number: augment(image, copies[number].sha256, 1, recipe, 0), COPY_S)


def _mean_s(count: int, work: Callable[[int], Any], limit_s: float) -> float:
    """Mean seconds of ``work(i)`` for i below ``count`` in random order, or for as many as ``limit_s`` allows."""
    work(0)
    order = np.random.default_rng(0).permutation(count)
    started_s, done = time.perf_counter(), 0
    while done < count and (not done or time.perf_counter() - started_s < limit_s):
        work(int(order[done]))
        done += 1
    return (time.perf_counter() - started_s) / done


def _download_s(architecture: Architecture) -> float:
    """Download the architecture's weights if needed; return the seconds, which are not part of the measurement."""
    if architecture.prefix.weights != "imagenet":
        return 0.0
    started_s = time.perf_counter()
    key = architecture.prefix
    build_backbone(key.backbone, key.weights, key.image_size)
    return time.perf_counter() - started_s


def _measure_part(
    config: TrialConfig, architecture: Architecture, photos: _Photos, slice_s: float
) -> tuple[PartFigures, float]:
    """Measure one architecture for about ``slice_s``; return its figures and the seconds of a reset."""
    started_s = time.perf_counter()
    prefix = prefix_of(architecture.prefix)
    steps = compiled(architecture, StepKind.of(config))
    steps.reset(config, 0, np.ones(architecture.classes, int), 1)
    open_s = time.perf_counter() - started_s
    reset_s = _seconds(lambda: steps.reset(config, 0, np.ones(architecture.classes, int), 1))

    count = min(PREFIX_BATCH, len(photos.copies))
    pixels = np.stack([photos.decoded(i, config.framing, architecture.prefix.image_size) for i in range(count)])
    slice_s = max(slice_s - (time.perf_counter() - started_s), 0.25 * slice_s)
    prefix_trace_s, prefix_s = _prefix_s(prefix, pixels, 0.25 * slice_s)
    rows = np.concatenate([prefix(pixels[i : i + 1]).numpy() for i in range(min(len(pixels), 4))])

    predict_trace_s, predict_s = _predict_s(steps.network, rows, 0.15 * slice_s)
    batch = _largest_batch(config.batch_size, 3 * predict_s, rows[0].nbytes)
    train_trace_s, train_s, number = _train_s(_TimedTraining(config, architecture, rows, batch), batch, slice_s)
    bare_s = _bare_step_s(steps, config, _repeated(rows, batch), number, 0.3 * slice_s) / batch
    figures = PartFigures(
        prefix_s=prefix_s,
        train_s=train_s,
        predict_s=predict_s,
        floor_train_s=min(bare_s, train_s),
        open_s=open_s,
        trace_s=predict_trace_s + train_trace_s,
        row_bytes=int(rows[0].nbytes),
        prefix_trace_s=prefix_trace_s,
    )
    return figures, reset_s


def _prefix_s(prefix: Prefix, pixels: np.ndarray, slice_s: float) -> tuple[float, float]:
    """Seconds of tracing the prefix, and of running it per image; zeros if nothing is frozen."""
    if prefix.is_identity:
        return 0.0, 0.0
    trace_s = _seconds(lambda: prefix(pixels[:1]).numpy())
    # A large network is timed on fewer images, which keeps one run short.
    one_s = _seconds(lambda: prefix(pixels[:1]).numpy())
    some = pixels[: max(1, min(len(pixels), int(MAX_STEP_S / one_s)))]
    return trace_s, _median_s(lambda: prefix(some).numpy(), slice_s) / len(some)


def _predict_s(network: Network, rows: np.ndarray, slice_s: float) -> tuple[float, float]:
    """Seconds of tracing the prediction, and of predicting per image."""
    first_s = _seconds(lambda: network.predict(rows[:1]))
    one_s = _seconds(lambda: network.predict(rows[:1]))
    batch = _largest_batch(PREDICT_BATCH, one_s, rows[0].nbytes)
    taken = _repeated(rows, batch)
    return max(first_s - one_s, 0.0), _median_s(lambda: network.predict(taken), slice_s) / batch


def _train_s(train: _TimedTraining, batch: int, slice_s: float) -> tuple[float, float, int]:
    """Seconds of tracing the step, and of training per image; the number of steps per timed epoch."""
    first_s = 1 / train.images_per_s(1)
    step_s = 1 / train.images_per_s(1)
    number = max(1, min(MAX_STEPS, int(0.1 * slice_s / (step_s * batch))))
    train_s = _median(1 / train.images_per_s(number) for _ in _repeats(0.3 * slice_s))
    return max((first_s - step_s) * batch, 0.0), train_s, number


class _TimedTraining:
    """Epochs of the training loop over a few repeated rows."""

    def __init__(self, config: TrialConfig, architecture: Architecture, rows: np.ndarray, batch: int) -> None:
        self._config = replace(config, batch_size=batch, balance="none")
        self._architecture, self._rows = architecture, rows
        self._job = FitJob(
            id="calibration", config=self._config, seed=0, manifest="", weights=architecture.prefix.weights
        )

    def images_per_s(self, batches: int) -> float:
        images = batches * self._config.batch_size
        labels = (np.arange(images) % self._architecture.classes).astype(np.int32)
        # A learning rate of 0 keeps the weights, so that no measurement diverges.
        config = replace(self._config, learning_rate=0.0)
        job = replace(self._job, config=config)
        fit = TrainingFit(job, self._architecture, LabelledRows(_RepeatedRows(self._rows, images), labels), None)
        return fit.run_epoch().train_images_per_s


def _bare_step_s(steps: CompiledNetwork, config: TrialConfig, rows: np.ndarray, number: int, slice_s: float) -> float:
    """Seconds of a plain step (forward, cross-entropy, gradient, Keras' optimiser) on tensors in memory."""
    network, variables = steps.network, steps.variables
    optimizer = keras.optimizers.get(config.optimizer)
    optimizer.learning_rate = 0.0
    optimizer.build(variables)
    classes = network.architecture.classes
    x, seed = tf.constant(rows), tf.constant([0, 0], tf.int64)
    target = tf.one_hot(np.arange(len(rows)) % classes, classes)

    def bare(x: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            inputs = tf.cast(x, tf.float32) if network.architecture.prefix.mixes else x
            logits, _ = network.training_logits(inputs, target, seed)
            loss = -tf.reduce_mean(tf.reduce_sum(target * tf.nn.log_softmax(logits), 1))
        optimizer.apply(tape.gradient(loss, [getattr(v, "value", v) for v in variables]), variables)
        return loss

    step = traced(bare, [tf.TensorSpec(x.shape, x.dtype), tf.TensorSpec(target.shape, target.dtype)])

    def run(count: int) -> None:
        for _ in range(count - 1):
            step(x, target)
        float(step(x, target))

    return _median_s(lambda: run(number), slice_s) / number


def _largest_batch(batch: int, image_s: float, row_bytes: int) -> int:
    """The largest batch up to ``batch`` within MAX_STEP_S and MAX_ROWS_BYTES."""
    return max(1, min(batch, int(MAX_STEP_S / max(image_s, 1e-9)), MAX_ROWS_BYTES // row_bytes))


def _repeated(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.arange(count) % len(rows)]


def _seconds(work: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def _median_s(work: Callable[[], Any], slice_s: float) -> float:
    """Median seconds of ``work`` over ``slice_s``, after a warm-up run."""
    work()
    return _median(_seconds(work) for _ in _repeats(slice_s))


def _repeats(slice_s: float) -> Iterator[int]:
    """Count from 0 for ``slice_s`` seconds, at least once."""
    ends_s, number = time.perf_counter() + slice_s, 0
    while number == 0 or time.perf_counter() < ends_s:
        yield number
        number += 1


def _median(values: Iterator[float]) -> float:
    found = float(np.median(list(values)))
    return found if math.isfinite(found) else 0.0


def _peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
