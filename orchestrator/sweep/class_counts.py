"""What each way to balance the classes makes of their counts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.cells import cell_len

from orchestrator.spec.reachable import reachable
from orchestrator.spec.sweep import SweepSpec
from trainers.data.manifest import Manifest
from trainers.images.augment import plan_copies
from trainers.training.balance import class_weights, draws_per_class

MOST_CLASSES = 12
"""Maximum number of classes that are all shown."""
SHOWN_OF_MANY = 7
"""Number of classes shown of more, from the smallest to the largest."""
MOST_MULTIPLIERS = 5
"""Maximum number of multipliers shown."""
LONGEST_NAME = 24
"""Maximum letters of a class name."""
EVEN_ENOUGH = 1.5
"""Maximum ratio of the largest class to the smallest that needs no balancing."""
LEGEND = {
    "weight": "what one example counts in the loss under class_weights; on average over the examples 1.",
    "draws": "examples that an epoch takes of the class under sampling; some repeat if it has fewer.",
}


def class_count_lines(manifest: Manifest, spec: SweepSpec) -> list[str]:
    """Return a table as lines: the training photos of each class, and what each way to balance makes of them.

    ``x2``: examples of a class at multiplier 2, copies included; ``weight`` and ``draws`` are those of the multiplier
    to their left (``photos`` is multiplier 1). Of many classes, a few from the smallest to the largest are shown. A
    single line if nothing in the file balances. Counts training images; with folds all of them, of which each fold
    trains on a share.
    """
    labels = manifest.split("train").labels()
    photos = _counts(labels, manifest)
    ways = reachable(spec, "multiplier", "balance", "copies", "steps")
    about = (
        f"{len(labels):,} photos of {len(photos)} classes to train on; "
        f"the largest class has {_ratio(photos):.1f} times as many as the smallest"
    )
    if all(way["balance"] == "none" and way["multiplier"] == 1 for way in ways):
        return [f"{about}. Nothing in this file balances them: {_advice(photos)}"]
    columns = [_Column("photos", photos)]
    sets = sorted({(_number(way["multiplier"]), str(way["copies"])) for way in ways})
    for multiplier, copies in (sets[place] for place in _spread(len(sets), MOST_MULTIPLIERS)):
        own = [way for way in ways if (way["multiplier"], way["copies"]) == (multiplier, copies)]
        balances, steps = {way["balance"] for way in own}, {way["steps"] for way in own}
        draws = len(labels) if steps == {"originals"} else round(multiplier * len(labels))
        heading = f"x{multiplier:g}" if copies == "even" else f"x{multiplier:g} {copies}"
        examples = _examples(labels, multiplier, copies, manifest)
        columns += [_Column(heading, examples)] if multiplier > 1 else []
        columns += _balanced(balances, examples, draws)
    headings = {column.heading for column in columns}
    legend = [f"{word}: {meaning}" for word, meaning in LEGEND.items() if word in headings]
    return [f"{about}. What each way to balance makes of them:", *_table(manifest.classes, photos, columns), *legend]


@dataclass(frozen=True, eq=False)
class _Column:
    """A heading and a number for each class; ``weights``: not counts, so not summed."""

    heading: str
    values: np.ndarray
    weights: bool = False

    def cell(self, place: int) -> str:
        return f"{self.values[place]:,.2f}" if self.weights else f"{self.values[place]:,.0f}"

    @property
    def total(self) -> str:
        return "" if self.weights else f"{self.values.sum():,.0f}"

    @property
    def ratio(self) -> str:
        return "" if self.weights else f"{_ratio(self.values):.1f}"


def _balanced(balances: Collection[Any], examples: np.ndarray, draws: int) -> list[_Column]:
    """Return a column for each way to balance ``examples`` (per class) in an epoch of ``draws`` examples."""
    columns = []
    if "class_weights" in balances:
        columns.append(_Column("weight", class_weights(examples), weights=True))
    if "sampling" in balances:
        each = draws_per_class(examples) * draws / max(int(examples.sum()), 1)
        columns.append(_Column("draws", np.where(examples > 0, each, 0.0)))
    return columns


def _table(classes: Sequence[str], photos: np.ndarray, columns: Sequence[_Column]) -> list[str]:
    if len(classes) > MOST_CLASSES:
        ascending = np.argsort(photos, kind="stable")
        shown = [int(ascending[place]) for place in _spread(len(classes), SHOWN_OF_MANY)]
    else:
        shown = list(range(len(classes)))
    rows = [["class", *(column.heading for column in columns)]]
    rows += [[_short(classes[place]), *(column.cell(place) for column in columns)] for place in shown]
    rows.append([f"all {len(classes)}", *(column.total for column in columns)])
    rows.append(["largest / smallest", *(column.ratio for column in columns)])
    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    """Align the first cell to the left, the others to the right; a Chinese letter is two columns wide."""
    room = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
    cells = [row[0] + room[0], *(blank + cell for blank, cell in zip(room[1:], row[1:], strict=True))]
    return "  ".join(cells).rstrip()


def _examples(labels: np.ndarray, multiplier: float, copies: str, manifest: Manifest) -> np.ndarray:
    """Count the training examples of each class, copies included: int64 (classes,)."""
    added = plan_copies(labels, multiplier, copies)
    return np.bincount(labels, weights=1 + added, minlength=len(manifest.classes)).astype(np.int64)


def _counts(labels: np.ndarray, manifest: Manifest) -> np.ndarray:
    return np.bincount(labels, minlength=len(manifest.classes))


def _number(value: object) -> float:
    return float(value)  # type: ignore[arg-type]  # a multiplier


def _spread(count: int, most: int) -> list[int]:
    """Choose at most ``most`` of ``count`` indices, evenly spaced, the first and the last included."""
    return [int(place) for place in np.linspace(0, count - 1, min(count, most)).round()]


def _ratio(counts: np.ndarray) -> float:
    """Return the largest class over the smallest that is not empty."""
    there = counts[counts > 0]
    return float(there.max() / there.min()) if len(there) else 1.0


def _advice(photos: np.ndarray) -> str:
    if _ratio(photos) <= EVEN_ENOUGH:
        return "they are even enough."
    return "a multiplier above 1, or balance: class_weights or sampling, would."


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
