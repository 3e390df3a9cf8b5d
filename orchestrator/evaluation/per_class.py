"""Precision, recall and F1 of each class, and the classes that are confused most. Pure except for ``write``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.evaluation.intervals import grouped_interval
from orchestrator.evaluation.variance import Groups
from orchestrator.paths import SweepPaths
from orchestrator.terminal_table import Column, FittedTable
from trainers.files.atomic import atomic_write

COLUMNS = (
    "class",
    "precision",
    "precision_low",
    "precision_high",
    "recall",
    "recall_low",
    "recall_high",
    "f1",
    "support",
    "predicted",
)
"""Columns of the file. ``support`` and ``predicted``: number of photos labelled, and answered, with the class."""
PAIR_COLUMNS = ("label", "predicted", "photos", "share")
TERMINAL_ROWS = 20
"""Maximum classes in a terminal's table; the file has all of them."""


def per_class(
    labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], groups: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return a row of ``COLUMNS`` for each of ``classes``, in their order.

    ``labels`` and ``predicted``: int (photos,), indices of ``classes``. ``groups``: each photo's group, None if all
    are independent; intervals respect it. Precision is NaN for a class that is never answered, recall for one without
    photos, F1 = 2TP / (2TP + FP + FN) for one that is neither, as ``trainers.metrics.macro_f1`` leaves it out.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    names = np.arange(len(labels)) if groups is None else np.asarray(groups)
    hits = labels == predicted
    rows = []
    for k, name in enumerate(classes):
        given, answered = labels == k, predicted == k
        found = int(given.sum() + answered.sum())
        f1 = 2 * int((hits & given).sum()) / found if found else math.nan
        figures = [*_share(hits, answered, names), *_share(hits, given, names), f1]
        rows.append([name, *figures, int(given.sum()), int(answered.sum())])
    return pd.DataFrame(rows, columns=[*COLUMNS])


def _share(hits: np.ndarray, chosen: np.ndarray, names: np.ndarray) -> tuple[float, float, float]:
    """Return the share of ``hits`` among the photos ``chosen``, with its interval; NaN for none."""
    if not chosen.any():
        return math.nan, math.nan, math.nan
    correct = hits[chosen]
    return float(correct.mean()), *grouped_interval(correct, Groups.of(names[chosen], len(correct)))


def confused_pairs(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], most: int = 10) -> pd.DataFrame:
    """Return up to ``most`` rows of ``PAIR_COLUMNS``, the most frequent mistakes first.

    ``share``: of the photos with that label.
    """
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    sizes = np.bincount(labels, minlength=len(classes))
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], *pairs[i]))[:most]
    rows = [(classes[pairs[i][0]], classes[pairs[i][1]], int(counts[i]), counts[i] / sizes[pairs[i][0]]) for i in order]
    return pd.DataFrame(rows, columns=[*PAIR_COLUMNS])


def to_rich(frame: pd.DataFrame, title: str, most: int = TERMINAL_ROWS) -> FittedTable:
    """Return the classes as a table for a terminal; of more than ``most`` those with the lowest F1."""
    columns = [Column("class", "left"), Column("precision %"), Column("recall %"), Column("F1 %")]
    shown = frame
    if len(frame) > most:
        shown = frame.sort_values("f1", kind="stable", na_position="last").head(most)
    left_out = len(frame) - len(shown)
    notes = [f"the {len(shown)} classes with the lowest F1; {left_out} more are not shown"] if left_out else []
    table = FittedTable(title, [*columns, Column("photos", leaves=1)], notes=notes)
    for row in shown.to_dict("records"):
        cells = [_bounded(row, "precision"), _bounded(row, "recall"), _percent(row["f1"]), f"{row['support']:,}"]
        table.add_row(str(row["class"]), *cells)
    return table


def _bounded(row: dict[str, Any], figure: str) -> str:
    share, low, high = (row[f"{figure}{end}"] for end in ("", "_low", "_high"))
    return f"{_percent(share)} ({_percent(low)}\N{EN DASH}{_percent(high)})" if math.isfinite(share) else "-"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}" if math.isfinite(share) else "-"


def write(frame: pd.DataFrame, paths: SweepPaths) -> None:
    """Write the classes of the winner on the test split as CSV."""
    with atomic_write(paths.per_class) as path:
        frame.to_csv(path, index=False)
