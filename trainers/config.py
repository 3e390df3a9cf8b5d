"""One point of the search space, its canonical form, and the parts of it that decide what can be shared.

Free of TensorFlow. Start with ``canonical``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainers.backbones import backbone
from trainers.errors import TrainerError
from trainers.heads import head

SCHEMA_VERSION = 1
"""Version of the meaning of ``TrialConfig``'s fields, part of a trial's id. A new field with a default keeps it."""
VIEWS = ("squash", "centre_crop", "random_crop")
DECODES = ("ample", "needed")
OPTIMIZERS = ("sgd", "adam", "rmsprop")
SCHEDULES = ("constant", "cosine")
POOLINGS = ("average", "max", "token")
LOSSES = ("categorical_crossentropy", "categorical_focal_crossentropy")
PRECISIONS = ("auto", "float32", "mixed_float16", "mixed_bfloat16")
OUTPUT_STRIDES = (16, 32)
FUSIONS = ("none", "concat", "sum")
BALANCES = ("none", "class_weights", "sampling")
SPREADS = ("even", "proportional")
STEPS = ("all", "originals")
DRAWS = ("fixed", "fresh")
BATCH_NORMS = ("inherited", "adapted", "measured", "frozen")
MEASURED_IMAGES = 2048
"""Maximum training images over which batch norms are measured after an epoch; Wu & Johnson 2021 find 1,000 to 10,000
enough."""


@dataclass(frozen=True)
class TrialConfig:
    """One point of the search space. ``canonical`` makes it; equal values are the same trial.

    ``unfrozen_layers``: number of the backbone's last layers that are trained, or "all".
    ``learning_rate`` is the peak; ``warmup``: share of all steps spent rising to it.
    ``multiplier``: size of the training set over its original size (1: no augmentation).
    ``weight_decay`` is decoupled (Loshchilov & Hutter 2019): w <- w - lr * weight_decay * w, kernels only.
    ``scale`` and ``margin``: None if the head has none. ``hidden``: units of a dense layer, 0 for none.
    ``pooling``: of the feature map or of a transformer's patches; "token" takes the transformer's class token.
    ``output_stride``: side of the image over the side of the last feature map.
    ``feature_fusion``: pooled features of several stages, concatenated, or summed through a small neck.
    ``mixup`` and ``cutmix``: alpha of their Beta distribution, 0 for none. ``balance``: how classes are weighted in
    training apart from the multiplier: not, by weights in the loss, or by how often each is drawn.
    ``copies``: whether a multiplier's copies even out the classes or keep their proportions. ``steps``: whether an
    epoch takes all originals and copies, or as many of them as there are originals, so that trials of any multiplier
    take equally many steps.
    ``bottom_rate``: learning rate of the lowest trained layer of the backbone over the head's; between them the rate
    falls geometrically, layer by layer (Howard & Ruder 2018, section 3.2).
    ``warm_head``: epochs in which the head alone is trained first, see ``head_first``.
    ``margin_warmup``: share of all steps in which a margin grows from nothing.
    ``ema``: decay of the exponential moving average of the weights that is validated and kept, 0 for none.
    ``accumulation_steps``: equal parts of a batch that pass through the network one after another, whose gradients are
    averaged before the step, so that a batch needs the memory of a part; batch norms see one part at a time.
    ``draws``: whether copies and random crops are the same in every epoch and trial, or drawn anew in each epoch where
    everything passes through the whole backbone, see ``trainers.images.fresh_draws``.
    ``decode``: how small a JPEG may be decoded, see ``trainers.images.decode``.
    ``batch_norm``: where the moving statistics of the trained batch norms come from, see ``trainers.networks.norms``.
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
    copies: str = "even"
    steps: str = "all"
    batch_norm: str = "inherited"
    bottom_rate: float = 1.0
    margin_warmup: float = 0.0
    ema: float = 0.0
    warm_head: int = 0
    accumulation_steps: int = 1
    draws: str = "fixed"
    decode: str = "ample"
    epochs: int = 10

    @property
    def resolved_image_size(self) -> int:
        """Side of the square image in pixels. Raises TrainerError for an unknown backbone."""
        return self.image_size or backbone(self.backbone).native_size

    @property
    def framing(self) -> str:
        """How a photo becomes pixels: the view, and after a plus sign ``decode``, unless that is "ample"."""
        return self.view if self.decode == "ample" else f"{self.view}+{self.decode}"

    @property
    def mixes_images(self) -> bool:
        """Whether training mixes whole images, so that each passes through the whole backbone."""
        return self.mixup > 0 or self.cutmix > 0

    def prefix(self, precision: str = "float32") -> PrefixConfig:
        """Return what decides the frozen part. ``precision``: a Keras dtype policy."""
        return PrefixConfig(
            backbone=self.backbone,
            image_size=self.resolved_image_size,
            unfrozen_layers=self.unfrozen_layers,
            output_stride=self.output_stride,
            feature_fusion=self.feature_fusion,
            pooling=self.pooling,
            precision=precision,
            mixes=self.mixes_images,
        )

    def prefix_key(self, weights: str, precision: str = "float32") -> PrefixKey:
        """Return what decides the frozen part and its weights. ``weights``: as in ``FitJob``."""
        return PrefixKey(**vars(self.prefix(precision)), weights=weights)

    def non_defaults(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, sorted by name."""
        return {
            f.name: getattr(self, f.name)
            for f in sorted(dataclasses.fields(self), key=lambda f: f.name)
            if getattr(self, f.name) != f.default
        }

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class StepKind:
    """The part of a configuration, apart from its network, that decides how the training step is traced.

    ``graded``: lower layers learn more slowly. ``averaged``: an average of the weights is kept. ``accumulated``: a
    batch is trained in parts. ``distilled``: a teacher's probabilities are learnt besides the labels.
    """

    optimizer: str = "adam"
    clip_norm: float = 5.0
    loss: str = "categorical_crossentropy"
    graded: bool = False
    averaged: bool = False
    accumulated: bool = False
    distilled: bool = False

    @classmethod
    def of(cls, config: TrialConfig, distilled: bool = False) -> StepKind:
        return cls(
            optimizer=config.optimizer,
            clip_norm=config.clip_norm,
            loss=config.loss,
            graded=config.bottom_rate < 1,
            averaged=config.ema > 0,
            accumulated=config.accumulation_steps > 1,
            distilled=distilled,
        )


@dataclass(frozen=True)
class PrefixConfig:
    """The part of a configuration that decides the frozen part of its network, the *prefix*.

    Everything that groups, caches or estimates by prefix derives its key from this value.
    ``mixes``: training mixes whole images, so nothing is frozen below the network.
    """

    backbone: str
    image_size: int
    unfrozen_layers: int | str
    output_stride: int = 32
    feature_fusion: str = "none"
    pooling: str = "average"
    precision: str = "float32"
    mixes: bool = False

    @property
    def reads_images(self) -> bool:
        """Whether rows are decoded images for certain. False may still mean images: only the graph can say."""
        return self.mixes or self.unfrozen_layers == "all"


@dataclass(frozen=True, kw_only=True)
class PrefixKey(PrefixConfig):
    """A ``PrefixConfig`` and its starting ``weights`` (as in ``FitJob``): equal keys compute equal features."""

    weights: str


def canonical(values: Mapping[str, Any]) -> TrialConfig:
    """Return the one ``TrialConfig`` that all equivalent ``values`` share.

    A field without effect takes its default: a margin if the head has none, a recipe without copies, the backbone's
    native size. Unfreezing as many layers as the backbone has, or more, becomes "all". Numbers take the type of their
    field, so 5 and 5.0 are the same trial. Draws are fresh only where the configuration alone says that rows are
    decoded images, whatever is stored, and only if anything is drawn.

    Raises TrainerError for an unknown field or name, and for a fraction where a whole number is needed.
    """
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
    if not top.has_margin:
        changes["margin_warmup"] = 0.0
    if config.multiplier <= 1:
        changes |= {"recipe": "flips", "copies": "even", "steps": "all"}
    reads_images = config.mixes_images or changes.get("unfrozen_layers", config.unfrozen_layers) == "all"
    is_drawn = config.view == "random_crop" or (config.multiplier > 1 and config.recipe != "none")
    if not (reads_images and is_drawn):
        changes["draws"] = "fixed"
    if config.unfrozen_layers == 0:
        changes |= {"batch_norm": "inherited", "bottom_rate": 1.0, "warm_head": 0, "accumulation_steps": 1}
    elif config.accumulation_steps > config.batch_size:
        changes["accumulation_steps"] = config.batch_size
    return dataclasses.replace(config, **changes)


def parts_of(framing: str) -> tuple[str, str]:
    """Return (view, decode) of ``TrialConfig.framing``."""
    view, _, decode = framing.partition("+")
    return view, decode or "ample"


def evaluated(framing: str) -> str:
    """Return the framing of photos that are predicted: a random crop becomes the centre crop."""
    return framing.replace("random_crop", "centre_crop")


def head_first(config: TrialConfig) -> TrialConfig:
    """Return the configuration whose head a trial with ``warm_head`` begins with: everything frozen, no copies.

    Its features are stored, so it costs seconds. It keeps what shapes the head and how it is trained.
    """
    plain = TrialConfig()
    deeper = ("multiplier", "recipe", "copies", "steps", "mixup", "cutmix", "batch_norm", "bottom_rate", "ema", "draws")
    defaults = {name: getattr(plain, name) for name in (*deeper, "accumulation_steps", "warm_head")}
    return dataclasses.replace(config, **defaults, unfrozen_layers=0, epochs=config.warm_head)


def _typed(name: str, value: Any) -> Any:
    """Convert ``value`` to the plain Python type of the field called ``name``."""
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
    """Return ten hex digits that name a trial: a hash of its non-defaults, the schema, the seed and ``data``.

    ``data``: identifies the photos, labels and splits, and the seed of the copies.
    """
    text = json.dumps([SCHEMA_VERSION, config.non_defaults(), seed, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
