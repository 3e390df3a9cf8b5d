"""The contract between the orchestrator and a trainer. Free of TensorFlow.

The orchestrator gives a worker one ``FitJob``; the worker opens a ``Fit`` for it and returns one ``EpochMetrics`` per
epoch. The values are frozen and convert to plain JSON and back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trainers.config import TrialConfig


@dataclass(frozen=True)
class Distillation:
    """A teacher's stored answers, and how a fit learns from them (Hinton, Vinyals and Dean 2015, section 2).

    ``teacher``: file with its probabilities on every training example of the fit, copies included.
    ``temperature``: T >= 1, by which the logits of both are divided. ``alpha``: share of the teacher in the loss.
    """

    teacher: str
    temperature: float
    alpha: float


@dataclass(frozen=True)
class FitJob:
    """Everything that a worker needs to train one configuration once. Every path is readable on every node.

    ``train_splits``: ("train",) in the search, ("train", "validation") for a refit; validation metrics are
    computed on "validation", or NaN if it is trained on. A fit never reads "test".
    ``weights``: "imagenet", "none", a folder of weight files, or one file that fits the configuration's backbone.
    ``output``: folder where ``Fit.finish`` writes ``weights.npz``; "" to write nothing.
    ``threads``: CPU threads for TensorFlow, and for decoding and drawing. ``gpu_memory_share``: in (0, 1], 0 without a
    GPU. ``devices``: number of GPUs that each training batch is divided among; without a GPU, of TensorFlow's CPU
    devices.
    ``cache``: folder of decoded images and features.
    ``folds``: 0 for one fit on the manifest's own split; k >= 2 for k fits in step, each validated on its own fold,
    whose metrics are averaged; ``Fit.finish`` then writes ``fold-1`` to ``fold-k`` below ``output``.
    ``measure_speed``: measure ``EpochMetrics.images_per_s``.
    ``share``: store features and share them between trials; if False, the frozen part runs again in every epoch.
    ``store_dtype``: dtype of stored features, "float32" or "float16".
    ``checkpoint``: folder for the state of this fit while it is unfinished; "" for none.
    ``start_seed``: seed of the weights that the fit starts from, those of ``warm_head`` included; None for ``seed``.
    Fits that share it, and differ in ``seed``, differ in their order and dropout alone.
    ``distillation``: a teacher to learn from; None to learn from the labels alone.
    """

    id: str
    config: TrialConfig
    seed: int
    manifest: str
    weights: str = "imagenet"
    train_splits: tuple[str, ...] = ("train",)
    output: str = ""
    cache: str = ""
    threads: int = 1
    gpu_memory_share: float = 0.0
    precision: str = "auto"
    folds: int = 0
    measure_speed: bool = False
    share: bool = True
    store_dtype: str = "float32"
    checkpoint: str = ""
    devices: int = 1
    start_seed: int | None = None
    distillation: Distillation | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def first_seed(self) -> int:
        """The seed of the weights that the fit starts from."""
        return self.seed if self.start_seed is None else self.start_seed

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitJob:
        values = dict(values)
        values["config"] = TrialConfig(**values["config"])
        values["train_splits"] = tuple(values["train_splits"])
        if values.get("distillation"):
            values["distillation"] = Distillation(**values["distillation"])
        return cls(**values)


@dataclass(frozen=True)
class EpochMetrics:
    """Metrics of one epoch, counted from 1. Validation metrics are NaN if validation is trained on.

    ``seconds``: of the epoch, validation included. ``train_images_per_s``: training images over the seconds of their
    steps, which stored features speed up. ``images_per_s``: images per second through the whole network from decoded
    pixels, frozen part included, on this worker; NaN unless ``FitJob.measure_speed``. With folds each metric is the
    mean over them, ``seconds`` the sum, and ``fold_val_accuracy`` holds one value per fold.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    learning_rate: float
    seconds: float
    train_images_per_s: float
    images_per_s: float = math.nan
    fold_val_accuracy: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def diverged(self) -> bool:
        return not math.isfinite(self.loss)


@dataclass(frozen=True)
class PartFigures:
    """Measured seconds of one architecture on one worker, per image and once; ``training.measure`` measures them.

    Per image: ``prefix_s``: the frozen part on decoded images (0 if nothing is frozen). ``train_s``: a training step on
    rows of the store, reading included. ``predict_s``: the part above the prefix in inference. ``floor_train_s``: a
    bare ``tf.function`` step on tensors in memory. Once: ``open_s``: building the network in a worker. ``trace_s``:
    tracing its steps; ``prefix_trace_s``: tracing the frozen part, only in a worker that computes features.
    ``row_bytes``: bytes of one row that the trainable part reads, float32, or uint8 if rows are decoded images.
    """

    prefix_s: float
    train_s: float
    predict_s: float
    floor_train_s: float
    open_s: float
    trace_s: float
    row_bytes: int
    prefix_trace_s: float = 0.0


class Fit(Protocol):
    """An open training run; ``trainers.training.loop:open_fit`` makes the real one from a ``FitJob``.

    A worker keeps at most one open. The next one in the same process may reuse traced functions of the last.
    """

    def run_epoch(self) -> EpochMetrics:
        """Train one more epoch. Raises Diverged."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that ``restore`` needs to continue as if never interrupted."""
        ...

    def restore(self, folder: Path) -> None: ...

    def finish(self) -> None:
        """Write the trained weights to ``job.output`` atomically."""
        ...
