"""What the orchestrator and a trainer say to each other. Free of TensorFlow.

The orchestrator hands a worker one ``FitJob``; the worker opens a ``Fit`` for it and answers with one
``EpochMetrics`` an epoch. Everything here is frozen and turns into plain JSON and back.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

SCHEMA_VERSION = 1
"""Counts up when an old field changes its meaning. A new field with a default changes nothing."""

VIEWS = ("squash", "centre_crop", "random_crop")
OPTIMIZERS = ("sgd", "adam", "rmsprop")
SCHEDULES = ("constant", "cosine")
POOLINGS = ("average", "max")
LOSSES = ("categorical_crossentropy", "categorical_focal_crossentropy")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
OUTPUT_STRIDES = (16, 32)
FUSIONS = ("none", "concat", "sum")
BALANCES = ("none", "class_weights", "sampling")


class TrainerError(Exception):
    """Something a person can act on, as one sentence."""


class Diverged(TrainerError):
    """The loss became NaN or infinite. Never retried: the same configuration would diverge again."""


@dataclass(frozen=True)
class TrialConfig:
    """One point of the search space. ``canonical`` makes one; two equal ones are the same trial.

    ``unfrozen_layers`` is a count of the Keras backbone's last layers, or "all".
    ``learning_rate`` is the peak; ``warmup`` is the share of all steps spent rising to it.
    ``multiplier`` is the training set's size over its original size (1 = no augmentation).
    ``weight_decay`` is decoupled (Loshchilov & Hutter 2019): w <- w - lr * weight_decay * w, kernels only.
    ``scale`` and ``margin`` are None where the head has none; ``hidden`` is units of a dense layer, 0 for none.
    ``output_stride`` is the image's side over the last feature map's: 16 keeps twice the detail a side.
    ``feature_fusion``: pooled features of several stages, concatenated, or summed through a small neck.
    ``mixup`` and ``cutmix`` are the alpha of their Beta distribution, 0 for none. ``balance``: what weighs the classes
    in training beside (or instead of) the multiplier: nothing, weights in the loss, or how often each is drawn.
    """

    backbone: str = "mobilenet_1.0"
    unfrozen_layers: int | str = 0
    dropout: float = 0.0
    multiplier: float = 1.0
    head: str = "softmax"
    smoothing: float = 0.0
    image_size: int | None = None  # None: the backbone's native size
    view: str = "squash"
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    batch_size: int = 32
    schedule: str = "cosine"
    warmup: float = 0.05
    clip_norm: float = 5.0
    pooling: str = "average"
    hidden: int = 0
    scale: float | None = None  # None: the head's default for the number of classes
    margin: float | None = None  # None: the head's default
    loss: str = "categorical_crossentropy"
    recipe: str = "flips"
    output_stride: int = 32
    feature_fusion: str = "none"
    mixup: float = 0.0
    cutmix: float = 0.0
    balance: str = "none"
    epochs: int = 10

    def non_defaults(self) -> dict[str, Any]:
        """The fields that differ from their defaults, in the order of their names."""
        return {
            f.name: getattr(self, f.name)
            for f in sorted(dataclasses.fields(self), key=lambda f: f.name)
            if getattr(self, f.name) != f.default
        }

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def canonical(values: Mapping[str, Any]) -> TrialConfig:
    """The one ``TrialConfig`` that all equivalent ``values`` share.

    What has no effect takes its default: a margin where the head has none, a recipe without copies, the
    backbone's native size spelt out, more layers than the backbone has (that is "all"). Numbers take the type of
    their field, so that 5 and 5.0 are the same trial.

    Raises TrainerError for a field or a name that does not exist, and for a fraction where a count belongs.
    """
    from trainers.backbones import backbone
    from trainers.heads import head

    known = {f.name for f in dataclasses.fields(TrialConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise TrainerError(
            f"unknown field {', '.join(unknown)} of a configuration; known are {', '.join(sorted(known))}"
        )
    config = TrialConfig(**{name: _typed(name, value) for name, value in values.items()})
    row, top = backbone(config.backbone), head(config.head)
    changes: dict[str, Any] = {}
    if config.image_size == row.native_size:
        changes["image_size"] = None
    if isinstance(config.unfrozen_layers, int) and config.unfrozen_layers >= row.layers:
        changes["unfrozen_layers"] = "all"
    if not top.has_scale:
        changes["scale"] = None
    if not top.has_margin or config.margin == top.default_margin:
        changes["margin"] = None
    if config.multiplier <= 1 and config.recipe != "flips":
        changes["recipe"] = "flips"
    return dataclasses.replace(config, **changes)


def _typed(name: str, value: Any) -> Any:
    """``value`` as the plain Python type of the field called ``name``."""
    allowed = {f.name: str(f.type) for f in dataclasses.fields(TrialConfig)}[name].split(" | ")
    if value is None:
        if "None" in allowed:
            return None
    elif isinstance(value, str):
        if "str" in allowed and (allowed == ["str"] or value == "all"):
            return value
    elif "float" in allowed:
        return float(value)
    elif "int" in allowed and int(value) == value:
        return int(value)
    names = {"int": "a whole number", "float": "a number", "str": "a name", "None": "none"}
    words = ["all" if kind == "str" and len(allowed) > 1 else names[kind] for kind in allowed]
    raise TrainerError(f"{name} must be {' or '.join(words)}, not {value!r}.")


def trial_id(config: TrialConfig, seed: int, data: str) -> str:
    """Ten hex digits that name a trial: its non-default values, the schema, the seed, the data's fingerprint."""
    text = json.dumps([SCHEMA_VERSION, config.non_defaults(), seed, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


@dataclass(frozen=True)
class FitJob:
    """All that a worker needs to train one configuration once. Every path is readable on every node.

    ``train_splits``: ("train",) in the search, ("train", "validation") for a refit; validation metrics are
    computed on "validation" unless it is trained on, then they are NaN. Test is never read by a fit.
    ``weights``: "imagenet", "none", a folder of weight files, or one file that fits the configuration's backbone.
    ``output``: folder where ``Fit.finish`` writes ``weights.npz``; "" to write nothing.
    ``threads``: CPU threads TensorFlow may use. ``gpu_memory_share``: in (0, 1], 0 without a GPU.
    ``cache``: folder of decoded images and features.
    ``folds``: 0 for one fit on the manifest's own split; k >= 2 for k fits in step, each validated on its own fold,
    whose figures are averaged; ``Fit.finish`` then writes ``fold-1`` to ``fold-k`` below ``output``.
    ``measure_speed``: measure ``EpochMetrics.images_per_s``.
    ``share``: False makes a black box of the trial: the frozen part runs over the decoded images again in every epoch.
    ``store_dtype``: what the store keeps features in, "float32" or "float16".
    ``checkpoint``: folder that keeps the state of this fit while it is unfinished; "" for none.
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

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitJob:
        values = dict(values)
        values["config"] = TrialConfig(**values["config"])
        values["train_splits"] = tuple(values["train_splits"])
        return cls(**values)


@dataclass(frozen=True)
class EpochMetrics:
    """One epoch, counted from 1. Validation figures are NaN where validation is trained on.

    ``seconds`` is the epoch's, validation included. ``train_images_per_s``: training images over the time of their
    steps, which stored features make fast. ``images_per_s``: photos a second that the whole network answers from
    decoded pixels, frozen part included, on this worker; NaN where the job did not ask for it. With folds every
    figure is the mean over them, ``seconds`` the sum, and ``fold_val_accuracy`` holds each fold's.
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
    """Seconds an image of one architecture on one worker, and what comes once; ``trainers.calibrating`` measures them.

    ``prefix_s``: the frozen part over decoded images (0 where nothing is frozen). ``train_s``: a training step on rows
    of the store, reading them included. ``predict_s``: the part above the prefix in inference. ``floor_train_s``: a
    bare ``tf.function`` step on tensors in memory. ``open_s``: making the network for the first time in a worker.
    ``trace_s``: tracing its steps there; ``prefix_trace_s``: tracing the frozen part, which only who fills the store
    does. ``row_bytes``: of one row of what the trainable part reads, float32, or uint8 where rows are decoded images.
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
    """An open training run; ``trainers.training:open_fit`` makes the real one from a ``FitJob``.

    A worker keeps at most one open. Opening the next in the same process may reuse what the last one traced.
    """

    def run_epoch(self) -> EpochMetrics:
        """Train one more epoch. Raises Diverged."""
        ...

    def save(self, folder: Path) -> None:
        """Write everything that ``restore`` needs to go on as if never interrupted."""
        ...

    def restore(self, folder: Path) -> None: ...

    def finish(self) -> None:
        """Write the trained weights to ``job.output``, beside and then renamed."""
        ...
