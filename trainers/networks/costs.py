"""What a backbone's layers cost: multiplications, values and weights, below and above any boundary. No TensorFlow.

``costs.json`` holds a row for each backbone of the table at its native size, made from the networks themselves by
``docs/make_costs_table.py``. Other image sizes and output strides are scaled from it: maps and the work on them with
their area, weights not at all.
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
"""Multiplications that take as long as writing one value of a map: normalising, adding and padding cost this alone.

Fitted on one thread of a CPU: eight backbones from 0.04 to 15 billion multiplications an image (MobileNets of four
kinds, ResNets, VGG16) then run within a fifth of one speed; by multiplications alone they are a factor of 3.6 apart.
"""
BACKWARD = 2.0
"""The work of a layer's backward pass over its forward pass: gradients of its input and of its weights."""


@dataclass(frozen=True)
class Layers:
    """One backbone's layers, one value each: ``macs`` and ``sides`` at ``image_size``, ``trainable`` weights.

    ``boundaries``: q -> the name of layer q - 1, for each q at which one tensor carries all that layers from q on need.
    ``stages``: positions of the layers that feature fusion takes, the last layer among them.
    """

    name: str
    image_size: int
    macs: np.ndarray
    trainable: np.ndarray
    sides: np.ndarray
    channels: np.ndarray
    boundaries: dict[int, str]
    stages: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.macs)


@dataclass(frozen=True)
class Cost:
    """What one image costs an architecture.

    ``layer``: the name of the boundary's layer, "" where rows are decoded images. ``length``: layers below it.
    ``row_shape``: of a row of the store; ``row_values`` their product, float32 but for images, uint8. ``prefix_work``:
    of the frozen part below the boundary, ``tail_work``: of the rest in inference, ``train_work``: of the rest in
    training; in multiplications (see ``VALUE_WORK``). ``prefix_macs`` and ``tail_macs``: multiplications alone.
    ``trainable``: weights that training changes, the head's left out. ``tail_weights``: all above the boundary.
    ``width``: of the vector that the head is given. ``kept_values``: what a training step keeps for the backward pass,
    and the largest map. ``refined``: whether a halving below the boundary was taken back by the output stride.
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
        """Bytes of a row of the store; ``value_bytes`` are those of a feature."""
        return math.prod(self.row_shape) * (1 if self.is_identity else value_bytes)


def layers_of(backbone: str) -> Layers | None:
    """The row of ``backbone``; None for one of the user's own."""
    return _table().get(backbone)


def measured_backbones() -> tuple[str, ...]:
    """Every name that ``layers_of`` knows."""
    return tuple(_table())


@functools.cache
def _table() -> dict[str, Layers]:
    text = resources.files("trainers").joinpath("costs.json").read_text()
    return {row["name"]: _read(row) for row in json.loads(text)}


def _read(row: dict[str, Any]) -> Layers:
    return Layers(
        name=row["name"],
        image_size=row["image_size"],
        macs=np.array(row["macs"], np.float64),
        trainable=np.array(row["trainable"], np.int64),
        sides=_spread(row["sides"]),
        channels=_spread(row["channels"]),
        boundaries={int(q): name for q, name in row["boundaries"].items()},
        stages=tuple(row["stages"]),
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
    """What an architecture costs an image; None for a backbone of the user's own.

    ``image_size``: None for the native one. ``mixes``: training mixes whole images, so all layers run above the
    boundary. ``row_shape`` is that of ``trainers.networks.prefix.Prefix.spec``.
    """
    layers = layers_of(backbone)
    if layers is None:
        return None
    count = len(layers)
    sides, macs = _scaled(layers, image_size or layers.image_size, output_stride)
    values = sides**2 * layers.channels
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


def _scaled(layers: Layers, image_size: int, output_stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Sides of each layer's map and its multiplications, at another size and output stride.

    A map's side is the image's over its stride, rounded up (a network that pads otherwise has one place less where the
    image's side is no multiple of 32); what has no map stays as it is.
    """
    sides = np.where(layers.sides > 1, np.ceil(layers.sides * (image_size / layers.image_size) - 1e-9), layers.sides)
    if output_stride == 16:
        sides = np.where(_finer(layers), 2 * sides, sides)
    return sides, layers.macs * (sides / layers.sides) ** 2


def _finer(layers: Layers) -> np.ndarray:
    """The layers whose maps an output stride of 16 doubles: those of the last size, their paddings among them."""
    return (layers.sides > 1) & (layers.sides <= layers.sides[-1] + 2)


def _row_shape(layers: Layers, sides: np.ndarray, start: int, stages: tuple[int, ...]) -> tuple[int, ...]:
    if not start:
        return (int(sides[0]), int(sides[0]), 3)
    pooled = start == len(layers)
    shape = (int(sides[start - 1]), int(sides[start - 1]), int(layers.channels[start - 1]))
    below = [int(layers.channels[place]) for place in stages if place < start - 1]
    if not below:
        return (shape[-1],) if pooled else shape
    return (sum(below) + (shape[-1] if pooled else math.prod(shape)),)
