"""Objectives of a search: metrics of a trial, and the direction in which each is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """A metric of a trial's last epoch.

    ``words``: its name in a sentence. ``validation``: whether it measures quality, so that a scheduler can stop by it.
    """

    name: str
    words: str
    minimised: bool = False
    validation: bool = True

    def cost(self, value: float) -> float:
        """Return ``value`` with the sign that makes lower better."""
        return value if self.minimised else -value

    def show(self, value: float) -> str:
        """Format ``value`` with its unit."""
        if self.name == SPEED:
            return f"{value:,.1f} images/s" if value < 100 else f"{value:,.0f} images/s"
        return f"{value:.4f}" if self.minimised else f"{100 * value:.2f} %"


ACCURACY, MACRO_F1, LOSS, SPEED = "val_accuracy", "val_macro_f1", "val_loss", "images_per_s"

OBJECTIVES: Mapping[str, Objective] = {
    row.name: row
    for row in (
        Objective(ACCURACY, "validation accuracy"),
        Objective(MACRO_F1, "validation macro F1"),
        Objective(LOSS, "validation loss", minimised=True),
        Objective(SPEED, "speed", validation=False),
    )
}


def front_of(costs: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """Return the positions of the Pareto front: rows of ``costs`` that no other row dominates. Pure.

    Equal rows are all kept. Rows must be finite and of one length.
    """

    def beaten(row: Sequence[float]) -> bool:
        return any(
            all(a <= b for a, b in zip(other, row, strict=True)) and tuple(other) != tuple(row) for other in costs
        )

    return tuple(i for i, row in enumerate(costs) if not beaten(row))
