"""config."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainers.errors import TrainerError

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
