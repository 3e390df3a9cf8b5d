"""Costs of a backbone below and above any boundary: multiplications, values and weights. Free of TensorFlow.

``costs.json`` holds a row for each backbone of the table at its native size; ``docs/make_costs_table.py`` makes it from
the networks. Other image sizes and output strides are scaled from it: maps and the work on them by their area, weights
not at all.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

VALUE_WORK = 25.0
"""Multiplications that take as long as writing one value of a map, which is all that normalising and adding cost.

Fitted on one CPU thread: eight backbones from 0.04 to 15 billion multiplications per image (four MobileNets, ResNets,
VGG16) then run within 20 % of one speed; by multiplications alone they differ by a factor of 3.6.
"""
OF_TRANSFORMERS = ("tokens", "inner", "attention", "scores")
"""Fields of ``Layers`` that only the rows of transformers hold."""
BACKWARD = 2.0
"""Work of a layer's backward pass (gradients of its input and of its weights) over that of its forward pass."""


@dataclass(frozen=True)
class Layers:
    """One backbone's layers, one value per layer: ``macs`` and ``sides`` at ``image_size``, ``trainable`` weights.

    ``boundaries``: q -> name of layer q - 1, for each q at which one tensor carries all that the layers from q need.
    ``stages``: positions of the layers that feature fusion takes, including the last layer; () if it takes none.

    For a transformer, 0 for every other layer: ``tokens``, those before the patches in the layer's output, which holds
    sides * sides + tokens of them; ``inner``, values per token that the layer writes apart from its output;
    ``attention`` and ``scores``, multiplications (among ``macs``) and values that grow with the square of the tokens.
    """

    name: str
    image_size: int
    macs: np.ndarray
    trainable: np.ndarray
    sides: np.ndarray
    channels: np.ndarray
    boundaries: dict[int, str]
    stages: tuple[int, ...]
    tokens: np.ndarray
    inner: np.ndarray
    attention: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.macs)


@dataclass(frozen=True)
class Cost:
    """Cost of one image in an architecture.

    ``layer``: name of the layer at the boundary, "" if rows are decoded images. ``length``: number of layers up to it.
    ``row_shape``: shape of a row of the store. ``prefix_work``, ``tail_work``, ``train_work``: multiplications (see
    ``VALUE_WORK``) of the frozen part, of the rest in inference and of the rest in training. ``prefix_macs`` and
    ``tail_macs``: multiplications alone. ``trainable``: weights that training changes, without the head's.
    ``tail_weights``: all weights above the boundary. ``width``: length of the vector that the head takes.
    ``kept_values``: values that a training step keeps for the backward pass, plus the largest map. ``refined``:
    whether the output stride replaced a stride below the boundary.
    """

    layer: str
    length: int
    row_shape: tuple[int, ...]
    prefix_work: float
    tail_work: float
    train_work: float
    prefix_macs: float
    tail_macs: float
    trainable: int
    tail_weights: int
    width: int
    kept_values: float
    refined: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether a row is the decoded image."""
        return not self.layer

    def row_bytes(self, value_bytes: int = 4) -> int:
        """Bytes of a row of the store, with ``value_bytes`` per feature."""
        return math.prod(self.row_shape) * (1 if self.is_identity else value_bytes)


def layers_of(backbone: str) -> Layers | None:
    """The row of ``backbone``; None for a user's own."""
    return _table().get(backbone)


def measured_backbones() -> tuple[str, ...]:
    """Every name that ``layers_of`` knows."""
    return tuple(_table())


@functools.cache
def _table() -> dict[str, Layers]:
    text = resources.files("trainers").joinpath("costs.json").read_text()
    return {row["name"]: _read(row) for row in json.loads(text)}


def _read(row: dict[str, Any]) -> Layers:
    none = [[0, len(row["macs"])]]
    return Layers(
        name=row["name"],
        image_size=row["image_size"],
        macs=np.array(row["macs"], np.float64),
        trainable=np.array(row["trainable"], np.int64),
        sides=_spread(row["sides"]),
        channels=_spread(row["channels"]),
        boundaries={int(q): name for q, name in row["boundaries"].items()},
        stages=tuple(row["stages"]),
        **{name: _spread(row.get(name, none)) for name in OF_TRANSFORMERS},
    )


def _spread(runs: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array(list(itertools.chain.from_iterable([value] * count for value, count in runs)), np.int64)


@functools.lru_cache(maxsize=4096)
def cost(
    backbone: str,
    unfrozen_layers: int | str,
    image_size: int | None = None,
    output_stride: int = 32,
    feature_fusion: str = "none",
    mixes: bool = False,
) -> Cost | None:
    """Look up the cost of one image; None for a user's own backbone. The arguments are fields of ``PrefixConfig``.

    ``image_size``: None for the native one. ``Cost.row_shape`` equals that of ``Prefix.spec``.
    """
    layers = layers_of(backbone)
    if layers is None:
        return None
    count = len(layers)
    sides, macs, values = _scaled(layers, image_size or layers.image_size, output_stride)
    work = macs + VALUE_WORK * values
    frozen = 0 if unfrozen_layers == "all" else max(count - int(unfrozen_layers), 0)
    length = 0 if mixes else max((q for q in layers.boundaries if q <= frozen), default=0)
    identity = length <= 1
    start = 0 if identity else length
    stages = layers.stages if feature_fusion != "none" else ()
    return Cost(
        layer="" if identity else layers.boundaries[length],
        length=start,
        row_shape=_row_shape(layers, sides, start, stages),
        prefix_work=float(work[:start].sum()),
        tail_work=float(work[start:].sum()),
        # Frozen layers between the boundary and the first trained one run forward alone.
        train_work=float(work[start:].sum() + BACKWARD * work[max(frozen, start) :].sum()),
        prefix_macs=float(macs[:start].sum()),
        tail_macs=float(macs[start:].sum()),
        trainable=int(layers.trainable[frozen:].sum()),
        tail_weights=int(layers.trainable[start:].sum()),
        width=int(layers.channels[list(stages)].sum()) if stages else int(layers.channels[-1]),
        kept_values=float(values[max(frozen, start) :].sum() + values[start:].max(initial=0)),
        refined=output_stride == 16 and bool(_finer(layers)[:start].any()),
    )


def _scaled(layers: Layers, image_size: int, output_stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale (sides, multiplications, values) of each layer to another image size and output stride.

    A map's side is the image's over its stride, rounded up (a network with other padding may have one less if the
    image's side is not a multiple of 32). Layers without a map are unchanged.
    """
    sides = np.where(layers.sides > 1, np.ceil(layers.sides * (image_size / layers.image_size) - 1e-9), layers.sides)
    if output_stride == 16:
        sides = np.where(_finer(layers), 2 * sides, sides)
    places = sides**2 + layers.tokens
    growth = places / (layers.sides**2 + layers.tokens)
    macs = (layers.macs - layers.attention) * growth + layers.attention * growth**2
    return sides, macs, places * (layers.channels + layers.inner) + layers.scores * growth**2


def _finer(layers: Layers) -> np.ndarray:
    """Mask of the layers whose maps an output stride of 16 doubles: those of the last size, paddings included."""
    return (layers.sides > 1) & (layers.sides <= layers.sides[-1] + 2)


def _row_shape(layers: Layers, sides: np.ndarray, start: int, stages: tuple[int, ...]) -> tuple[int, ...]:
    if not start:
        return (int(sides[0]), int(sides[0]), 3)
    pooled = start == len(layers)
    side, channels, tokens = int(sides[start - 1]), int(layers.channels[start - 1]), int(layers.tokens[start - 1])
    shape = (side * side + tokens, channels) if tokens else (side, side, channels)
    below = [int(layers.channels[place]) for place in stages if place < start - 1]
    if not below:
        return (shape[-1],) if pooled else shape
    return (sum(below) + (shape[-1] if pooled else math.prod(shape)),)
