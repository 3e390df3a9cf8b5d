"""How fast this worker is at each part of a sweep: the figures that ``orch plan`` multiplies.

Photos are the sweep's own, networks and steps are those that trials run, so nothing is modelled here. A job runs on
every slot of the machine at once, so that what the workers take from each other is in the figures.
"""

from __future__ import annotations

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

from trainers.config import TrialConfig
from trainers.contract import FitJob, PartFigures
from trainers.data.manifest import Manifest
from trainers.images.augment import augment
from trainers.images.decoder import Decoder, ImageCopy
from trainers.networks.backbone import build_backbone
from trainers.networks.network import Architecture
from trainers.training import device, load
from trainers.training.features import PREFIX_BATCH, LabelledRows
from trainers.training.loop import PREDICT_BATCH, TrainingFit
from trainers.training.steps import CompiledNetwork, compiled, prefix_of

MOST_PHOTOS = 64
"""Different photos that decoding and copies are timed on; they are spread over the whole data."""
DECODE_S, COPY_S = 1.5, 0.4
"""What one view at one size, and one recipe, may take."""
PART_S = 8.0
"""What one part may take once it is traced; little parts need less."""
LONGEST_STEP_S = 0.8
"""A batch is cut to what a step of so long takes: a large network takes as long an image in a small one."""
MOST_ROWS_BYTES = 64 * 2**20
STEPS_AT_MOST = 200


def measure(job: Mapping[str, Any]) -> dict[str, Any]:
    """Measure what ``job`` names, in its order, for about ``job["seconds"]``; what did not fit in is left out.

    ``job``: ``manifest``; ``decode``, a list of ``{"view", "size"}``; ``recipes``, a list of ``{"recipe", "size"}``;
    ``parts``, a list of ``{"config": TrialConfig as a dict, "weights"}``; ``asked_at`` (time.time() when the worker was
    asked for); ``seconds``; ``threads``, ``gpu_memory_share``, ``precision`` as in a ``FitJob``.

    Returns ``start_s`` (from ``asked_at`` until TensorFlow was there), ``decode`` and ``recipes`` as they were asked,
    each with ``seconds`` an image, ``parts`` (those that could be measured: ``place`` in the job, the fields of
    ``PartFigures``, and ``reset_s``: of setting a network that is there to another trial), ``worker_bytes``, the most
    memory that this process held, and ``loads``: samples of ``trainers.training.load`` from between the measurements.
    Writes nothing. Raises TrainerError.
    """
    start_s = max(time.time() - job["asked_at"], 0.0)
    ends_s = time.perf_counter() + job["seconds"]
    precision = device.prepare(job["threads"], job["gpu_memory_share"], job["precision"])
    manifest = Manifest.read(Path(job["manifest"]))
    photos, loads = _Photos.of(manifest), [load.sample()]
    decode = [{**each, "seconds": _decode_s(photos, each["view"], each["size"])} for each in job["decode"]]
    recipes = [{**each, "seconds": _copy_s(photos, each["recipe"], each["size"])} for each in job["recipes"]]
    parts = []
    for place, part in enumerate(job["parts"]):
        left_s = ends_s - time.perf_counter()
        if left_s <= 0:
            break
        slice_s = min(left_s / (len(job["parts"]) - place), PART_S)
        config = TrialConfig(**part["config"])
        architecture = Architecture.of(config, part["weights"], len(manifest.classes), precision)
        try:
            ends_s += _fetched_s(architecture)
            figures, reset_s = _part(config, architecture, photos, slice_s)
        except Exception as error:  # its trials will say so, each for itself; the others' plan needs the others' parts
            print(f"{config.backbone} could not be measured: {error}", flush=True)
            continue
        parts.append({"place": place, "reset_s": reset_s, **asdict(figures)})
        loads.append(load.sample())
    return {
        "start_s": start_s,
        "decode": decode,
        "recipes": recipes,
        "parts": parts,
        "worker_bytes": _most_memory_bytes(),
        "loads": [asdict(each) for each in (*loads, load.sample())],
    }


@dataclass(frozen=True)
class _Photos:
    """Some photos, spread over the manifest: of every class and every source."""

    root: Path
    pictures: tuple[ImageCopy, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> _Photos:
        places = np.unique(np.linspace(0, len(manifest.table) - 1, MOST_PHOTOS).astype(int))
        rows = manifest.table.iloc[places]
        pairs = zip(rows["path"].tolist(), rows["sha256"].tolist(), strict=True)
        return cls(manifest.root, tuple(ImageCopy(path, sha256, 0) for path, sha256 in pairs))

    def decoded(self, number: int, view: str, size: int) -> np.ndarray:
        """Photo ``number`` as the store's images are made, uint8 (size, size, 3)."""
        return next(Decoder(self.root, "flips", view, size, 0)([self.pictures[number]]))[0]


@dataclass(frozen=True)
class _Repeated:
    """A few rows that stand for ``rows`` of them. See ``trainers.training.features.ReadRows``."""

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


def _decode_s(photos: _Photos, view: str, size: int) -> float:
    """Seconds that one photo takes from the disk to a square of ``size``: the mean of the photos, for they differ."""
    return _mean_s(len(photos.pictures), lambda number: photos.decoded(number, view, size), DECODE_S)


def _copy_s(photos: _Photos, recipe: str, size: int) -> float:
    image, pictures = photos.decoded(0, "squash", size), photos.pictures
    return _mean_s(len(pictures), lambda number: augment(image, pictures[number].sha256, 1, recipe, 0), COPY_S)


def _mean_s(count: int, work: Callable[[int], Any], most_s: float) -> float:
    """The mean of ``work`` of 0 to ``count`` - 1, or of as many as ``most_s`` allows: they come well mixed."""
    work(0)
    order = np.random.default_rng(0).permutation(count)
    began_s, done = time.perf_counter(), 0
    while done < count and (not done or time.perf_counter() - began_s < most_s):
        work(int(order[done]))
        done += 1
    return (time.perf_counter() - began_s) / done


def _fetched_s(architecture: Architecture) -> float:
    """Seconds of downloading weights, which comes once in the life of a machine; 0 where nothing is downloaded."""
    if architecture.prefix.weights != "imagenet":
        return 0.0
    began_s = time.perf_counter()
    key = architecture.prefix
    build_backbone(key.backbone, key.weights, key.image_size)
    return time.perf_counter() - began_s


def _part(
    config: TrialConfig, architecture: Architecture, photos: _Photos, slice_s: float
) -> tuple[PartFigures, float]:
    """What is measured of one architecture in about ``slice_s``, and the seconds of a reset."""
    began_s = time.perf_counter()
    prefix = prefix_of(architecture.prefix)
    steps = compiled(architecture, config.optimizer, config.clip_norm, config.loss)
    steps.reset(config, 0, np.ones(architecture.classes, int))
    open_s = time.perf_counter() - began_s
    reset_s = _seconds(lambda: steps.reset(config, 0, np.ones(architecture.classes, int)))

    count = min(PREFIX_BATCH, len(photos.pictures))
    pixels = np.stack([photos.decoded(i, config.view, architecture.prefix.image_size) for i in range(count)])
    slice_s = max(slice_s - (time.perf_counter() - began_s), 0.25 * slice_s)
    prefix_trace_s = prefix_s = 0.0
    if not prefix.is_identity:
        prefix_trace_s = _seconds(lambda: prefix(pixels[:1]).numpy())
        # A large network is timed on fewer images, so that one run stays short.
        one_s = _seconds(lambda: prefix(pixels[:1]).numpy())
        some = pixels[: max(1, min(len(pixels), int(LONGEST_STEP_S / one_s)))]
        prefix_s = _median_s(lambda: prefix(some).numpy(), 0.25 * slice_s) / len(some)
    rows = np.concatenate([prefix(pixels[i : i + 1]).numpy() for i in range(min(len(pixels), 4))])
    row_bytes = rows[0].nbytes

    network = steps.network
    first_s = _seconds(lambda: network.predict(rows[:1]))
    one_s = _seconds(lambda: network.predict(rows[:1]))
    batch = _fitting(PREDICT_BATCH, one_s, row_bytes)
    taken = _many(rows, batch)
    predict_s = _median_s(lambda: network.predict(taken), 0.15 * slice_s) / batch

    batch = _fitting(config.batch_size, 3 * predict_s, row_bytes)
    trace_s = max(first_s - one_s, 0.0)
    train = _TimedTraining(config, architecture, rows, batch)
    first_s = 1 / train.images_per_s(1)
    step_s = 1 / train.images_per_s(1)
    trace_s += max((first_s - step_s) * batch, 0.0)
    number = max(1, min(STEPS_AT_MOST, int(0.1 * slice_s / (step_s * batch))))
    train_s = _median(1 / train.images_per_s(number) for _ in _until(0.3 * slice_s))
    bare_s = _bare_step_s(steps, config, _many(rows, batch), number, 0.3 * slice_s) / batch
    figures = PartFigures(
        prefix_s=prefix_s,
        train_s=train_s,
        predict_s=predict_s,
        floor_train_s=min(bare_s, train_s),
        open_s=open_s,
        trace_s=trace_s,
        row_bytes=int(row_bytes),
        prefix_trace_s=prefix_trace_s,
    )
    return figures, reset_s


class _TimedTraining:
    """Epochs of the one training loop over a few rows that stand for many."""

    def __init__(self, config: TrialConfig, architecture: Architecture, rows: np.ndarray, batch: int) -> None:
        self._config = replace(config, batch_size=batch, balance="none")
        self._architecture, self._rows = architecture, rows
        self._job = FitJob(
            id="calibration", config=self._config, seed=0, manifest="", weights=architecture.prefix.weights
        )

    def images_per_s(self, batches: int) -> float:
        images = batches * self._config.batch_size
        labels = (np.arange(images) % self._architecture.classes).astype(np.int32)
        # A rate of 0: the weights stay what they are, so that nothing diverges whatever is measured.
        config = replace(self._config, learning_rate=0.0)
        job = replace(self._job, config=config)
        fit = TrainingFit(job, self._architecture, LabelledRows(_Repeated(self._rows, images), labels), None)
        return fit.run_epoch().train_images_per_s


def _bare_step_s(steps: CompiledNetwork, config: TrialConfig, rows: np.ndarray, number: int, slice_s: float) -> float:
    """Seconds of a plain step (forward, cross-entropy, gradient, Keras' optimiser) on tensors that are in memory."""
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

    step = tf.function(bare, autograph=False)

    def run(count: int) -> None:
        for _ in range(count - 1):
            step(x, target)
        float(step(x, target))

    return _median_s(lambda: run(number), slice_s) / number


def _fitting(batch: int, image_s: float, row_bytes: int) -> int:
    """The largest batch up to ``batch`` that neither takes too long nor holds too much."""
    return max(1, min(batch, int(LONGEST_STEP_S / max(image_s, 1e-9)), MOST_ROWS_BYTES // row_bytes))


def _many(rows: np.ndarray, count: int) -> np.ndarray:
    return rows[np.arange(count) % len(rows)]


def _seconds(work: Callable[[], Any]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _median_s(work: Callable[[], Any], slice_s: float) -> float:
    """Of one run of ``work``; the first, which also makes ready what later ones reuse, is not counted."""
    work()
    return _median(_seconds(work) for _ in _until(slice_s))


def _until(slice_s: float) -> Iterator[int]:
    """0, 1, 2 ... for ``slice_s``; at least one."""
    ends_s, number = time.perf_counter() + slice_s, 0
    while number == 0 or time.perf_counter() < ends_s:
        yield number
        number += 1


def _median(values: Iterator[float]) -> float:
    found = float(np.median(list(values)))
    return found if math.isfinite(found) else 0.0


def _most_memory_bytes() -> int:
    """The most memory that this process ever held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)
