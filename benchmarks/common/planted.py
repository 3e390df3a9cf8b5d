"""Search spaces with a planted optimum: what a sampler has to find, without a network. Pure.

An objective gives a configuration its true value, as if it were a validation accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.spec.space.domains import Choice, Uniform
from orchestrator.spec.space.space import Case, Space
from trainers.config import TrialConfig

BEST = 0.95


@dataclass(frozen=True)
class Objective:
    """``samplers``: those that can take ``space``, besides random. ``best``: the highest true value in the space.

    ``noise``: the standard deviation of what a trial measures around its true value; the default is that of 2,000
    validation images.
    """

    name: str
    description: str
    space: Space
    value: Callable[[TrialConfig], float]
    samplers: tuple[str, ...]
    best: float = BEST
    noise: float = 0.005

    def measured(self, config: TrialConfig, seed: int) -> float:
        """The true value plus noise, a pure function of the configuration and ``seed``."""
        text = repr(sorted(config.non_defaults().items()))
        words = [seed, *text.encode()]
        return self.value(config) + self.noise * float(np.random.default_rng(words).standard_normal())


def _unit(value: float, low: float, high: float, log: bool = False) -> float:
    """``value``'s place between ``low`` and ``high``, from 0 to 1."""
    if log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)


_RANGES = {
    "dropout": (0.0, 0.6, False),
    "smoothing": (0.0, 0.3, False),
    "learning_rate": (1e-5, 1e-1, True),
    "weight_decay": (1e-6, 1e-1, True),
}
_OPTIMUM = {"dropout": 0.3, "smoothing": 0.7, "learning_rate": 0.62, "weight_decay": 0.45}
_WEIGHT = {"dropout": 0.15, "smoothing": 0.1, "learning_rate": 1.2, "weight_decay": 0.4}
"""As in real networks, the learning rate matters most by far."""


def _bowl(config: TrialConfig) -> float:
    places = {name: _unit(getattr(config, name), *_RANGES[name]) for name in _RANGES}
    return BEST - sum(_WEIGHT[name] * (place - _OPTIMUM[name]) ** 2 for name, place in places.items())


def _levels(count: int) -> dict[str, list[Case]]:
    """The same ranges as lists of ``count`` values, evenly spaced over the (logarithmic) range."""
    found = {}
    for name, (low, high, log) in _RANGES.items():
        steps = [i / (count - 1) for i in range(count)]
        values = [low * (high / low) ** step if log else low + (high - low) * step for step in steps]
        found[name] = [Case(Choice(tuple(values)))]
    return found


def _best_of_levels(count: int) -> float:
    """The bowl's highest value on those lists; each field counts for itself."""
    steps = [i / (count - 1) for i in range(count)]
    return BEST - sum(weight * min((step - _OPTIMUM[name]) ** 2 for step in steps) for name, weight in _WEIGHT.items())


_BACKBONE = {"mobilenet_0.5": 0.06, "mobilenet_1.0": 0.0, "vgg16": 0.04}
_DEPTH: Mapping[str | int, float] = {0: 0.08, 5: 0.0, "all": 0.03}
_HEAD = {"softmax": 0.02, "cosface": 0.02, "arcface": 0.02}
"""What each choice costs; a margin at its best wins the head's 0.02 back."""
_MARGIN = (0.05, 0.5, False)
_RATES: Mapping[str | int, tuple[float, float, bool]] = {
    0: (3e-4, 1e-1, True),
    5: (1e-4, 1e-2, True),
    "all": (1e-6, 1e-3, True),
}


def _conditional(config: TrialConfig) -> float:
    rate = _unit(config.learning_rate, *_RATES[config.unfrozen_layers])
    cost = _BACKBONE[config.backbone] + _DEPTH[config.unfrozen_layers] + 0.5 * (rate - 0.62) ** 2
    cost += _HEAD[config.head]
    if config.head == "arcface":
        margin = 0.2 if config.margin is None else config.margin
        cost += 0.2 * (_unit(margin, *_MARGIN) - 0.6) ** 2 - 0.02
    elif config.head == "cosface":
        margin = 0.2 if config.margin is None else config.margin
        cost += 0.2 * (_unit(margin, *_MARGIN) - 0.2) ** 2 - 0.01
    return BEST - cost - 0.1 * (_unit(config.dropout, 0.0, 0.6) - 0.3) ** 2


def _uniform(ends: tuple[float, float, bool]) -> Uniform:
    low, high, log = ends
    return Uniform(low, high, log)


_CONDITIONAL_SPACE = Space.of(
    {
        "backbone": [Case(Choice(tuple(_BACKBONE)))],
        "unfrozen_layers": [Case(Choice(tuple(_DEPTH)))],
        "head": [Case(Choice(tuple(_HEAD)))],
        "margin": [Case(_uniform(_MARGIN), (("head", (name,)),)) for name in ("arcface", "cosface")],
        "learning_rate": [Case(_uniform(ends), (("unfrozen_layers", (depth,)),)) for depth, ends in _RATES.items()],
        "dropout": [Case(Uniform(0.0, 0.6))],
    }
)

OBJECTIVES: tuple[Objective, ...] = (
    Objective(
        "bowl",
        "four numeric ranges, one of which matters most",
        Space.of({name: [Case(_uniform(ends))] for name, ends in _RANGES.items()}),
        _bowl,
        ("tpe", "cmaes", "gp"),
    ),
    Objective(
        "lists",
        "the same bowl as lists of five values each, 625 combinations",
        Space.of(_levels(5)),
        _bowl,
        ("grid", "tpe", "gp"),
        _best_of_levels(5),
    ),
    Objective(
        "conditional",
        "lists and ranges, where the margin depends on the head and the learning rate's range on the depth",
        _CONDITIONAL_SPACE,
        _conditional,
        ("tpe",),
    ),
)
