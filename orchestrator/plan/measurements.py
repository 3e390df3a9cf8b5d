"""Which networks, sizes and recipes of a space to measure, the most important first. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.plan.calibration import Calibration, PartKey
from orchestrator.plan.draws import many_of
from orchestrator.plan.estimates import cost_of
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig, evaluated, head_first
from trainers.networks.costs import layers_of

SAME_BACKBONE = 0.4
"""Weight of further parts of a backbone that is measured, since they can be estimated from the first."""
UNKNOWN_FIRST = 100
"""Weight of a backbone without a table over its stand-in, in the order of measuring."""


@dataclass(frozen=True)
class PartToMeasure:
    """An architecture to measure: one of its configurations, and its share of the space."""

    config: TrialConfig
    weights: str
    share: float = 1.0


@dataclass(frozen=True)
class MeasurementPlan:
    """What a plan of a space needs from a calibration; ``parts`` in order of importance."""

    parts: Mapping[PartKey, PartToMeasure]
    decode: tuple[tuple[str, int], ...]
    recipes: tuple[tuple[str, int], ...]

    def missing(self, known: Calibration | None) -> MeasurementPlan:
        """Return what ``known`` lacks."""
        if known is None:
            return self
        return MeasurementPlan(
            {key: part for key, part in self.parts.items() if key not in known.parts},
            tuple(each for each in self.decode if f"{each[0]}/{each[1]}" not in known.decode_s),
            tuple(each for each in self.recipes if f"{each[0]}/{each[1]}" not in known.augment_s),
        )

    def __bool__(self) -> bool:
        return bool(self.parts or self.decode or self.recipes)

    @property
    def digest(self) -> str:
        """Digest of what is needed, independent of order and shares."""
        text = repr([sorted(map(repr, self.parts)), sorted(self.decode), sorted(self.recipes)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def measurement_plan(spec: SweepSpec, precision: str = "float32") -> MeasurementPlan:
    """Return the parts of trials of ``spec``: expensive and frequent ones first, other backbones before other depths.

    ``precision``: dtype policy of the workers.
    """
    configs = many_of(spec)
    configs += [head_first(config) for config in configs if config.warm_head]
    counts = Counter(PartKey.of(config, precision) for config in configs)
    first = {PartKey.of(config, precision): config for config in reversed(configs)}
    parts = {
        key: PartToMeasure(first[key], spec.weights_for(key.backbone), counts[key] / len(configs))
        for key in _ordered(counts)
    }
    decode = Counter((view, PartKey.of(c).image_size) for c in configs for view in _views(c))
    recipes = Counter((c.recipe, PartKey.of(c).image_size) for c in configs if c.multiplier > 1)
    return MeasurementPlan(parts, tuple(each for each, _ in decode.most_common()), _one_size(recipes))


def _ordered(counts: Mapping[PartKey, int]) -> list[PartKey]:
    """Order the keys greedily by count x work."""
    left = {key: count * _work(key) for key, count in counts.items()}
    chosen: list[PartKey] = []
    while left:
        best = max(left, key=lambda key: left[key])
        chosen.append(best)
        del left[best]
        left = {key: w * (SAME_BACKBONE if key.backbone == best.backbone else 1.0) for key, w in left.items()}
    return chosen


def _work(key: PartKey) -> float:
    found = cost_of(key)
    # A user's own backbone is in no table and can only be measured, so it comes before most others.
    return (found.prefix_work + found.train_work) * (1 if layers_of(key.backbone) else UNKNOWN_FIRST)


def _views(config: TrialConfig) -> tuple[str, ...]:
    """Return the views of training and validation; a random crop is validated on the centre crop."""
    return tuple(dict.fromkeys((config.framing, evaluated(config.framing))))


def _one_size(recipes: Counter[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Return each recipe at its most frequent size; its time is proportional to the pixels."""
    found: dict[str, int] = {}
    for (recipe, size), _ in recipes.most_common():
        found.setdefault(recipe, size)
    return tuple(found.items())
