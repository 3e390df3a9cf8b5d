"""Calibrated probabilities of a served model, and the threshold below which it answers "none of these". Pure numpy.

``orchestrator.evaluation.calibration`` fits both on validation; the served model keeps and applies them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainers.errors import TrainerError

SMALLEST = 1e-30
"""Minimum that a probability counts as before its logarithm is taken; softmax in float32 gives 0 below about 1e-38."""
PRECISION = "precision"
"""Name of the served model's parameter: the wanted precision, 0 for an answer to every photo."""
NONE_OF_THESE = "none of these"
"""What tables show in place of a label."""


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return p^(1/T), normalised over the last axis: temperature scaling (Guo et al. 2017, eq. 9) of averaged
    probabilities, whose logarithms stand for logits. Float64; as given if T is 1. The order of a row's classes stays.
    """
    if temperature == 1.0:
        return probabilities
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST)) / temperature
    powers = np.exp(logs - logs.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def certainty(probabilities: np.ndarray) -> np.ndarray:
    """Return the highest of each row of calibrated probabilities, which thresholds are compared with, (n,).

    Rounded to 12 digits: many are 1 but for the last bit, which depends on how a power is computed.
    """
    return np.round(probabilities.max(-1), 12)


@dataclass(frozen=True)
class Level:
    """Photos answered if the highest calibrated probability is at least ``threshold``, on validation.

    ``coverage``: their share of the photos. ``precision``: share of them that are answered correctly. ``lower``: the
    highest precision that can be wanted of it, a lower bound of the true one at 95 %.
    """

    threshold: float
    coverage: float
    precision: float
    lower: float


@dataclass(frozen=True)
class Calibration:
    """What a served model adds to its probabilities. ``levels``: by falling coverage, () for models without a table.

    ``photos``: number of validation photos behind it.
    """

    temperature: float = 1.0
    levels: tuple[Level, ...] = ()
    photos: int = 0

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any] | None) -> Calibration:
        """Read what ``to_dict`` returned; None, of a model from before 2026-12, is temperature 1 without levels.

        Raises KeyError, TypeError and ValueError for anything else.
        """
        if facts is None:
            return cls()
        temperature = float(facts["temperature"])
        if not 0 < temperature < float("inf"):
            raise ValueError(f"the temperature is {temperature}")
        return cls(temperature, tuple(Level(**level) for level in facts["levels"]), int(facts["photos"]))

    def to_dict(self) -> dict[str, Any]:
        levels = [asdict(level) for level in self.levels]
        return {"temperature": self.temperature, "levels": levels, "photos": self.photos}

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, (n, classes)."""
        return tempered(probabilities, self.temperature)

    @property
    def highest(self) -> float:
        """The highest precision that a threshold reaches; 0 without levels."""
        return max((level.lower for level in self.levels), default=0.0)

    def reached(self, precision: float) -> Level | None:
        """Return the level of the lowest threshold whose lower bound is at least ``precision``; None if none is."""
        found = [level for level in self.levels if level.lower >= precision]
        return min(found, key=lambda level: level.threshold) if found else None

    def level(self, precision: float) -> Level:
        """Return ``reached(precision)``. Raises TrainerError with the highest precision that can be asked for."""
        if not 0 < precision < 1:
            raise TrainerError(f"the precision is a share between 0 and 1, such as 0.95; found {precision:g}.")
        if not self.levels:
            raise TrainerError(
                "this model has no thresholds for a wanted precision: it was registered before orch kept them, or had "
                "no validation photos. Predict without one, or run its sweep again and promote that."
            )
        found = self.reached(precision)
        if found is None:
            raise TrainerError(
                f"no threshold reaches a precision of {precision:g}: the highest that the {self.photos:,} validation "
                f"photos support is {_floored(self.highest)}. Ask for at most that, or give the sweep more validation "
                "photos."
            )
        return found


def too_uncertain(label: str, probability: float, level: Level, precision: float) -> str:
    """Return the reason for "none of these"."""
    return (
        f"{NONE_OF_THESE}: the likeliest is {label} with {probability:.3f}, below {level.threshold:.3f}, the threshold "
        f"for a precision of {precision:g}."
    )


def _floored(share: float) -> str:
    """Format a share with three decimals, rounded down, so that the number can be asked for."""
    return f"{np.floor(1000 * share) / 1000:.3f}"
