"""Costs of mistakes: the table of a person, and the mean cost of a model's answers. Pure except for ``read_costs``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from orchestrator.errors import DataError
from orchestrator.evaluation.intervals import estimated_bounds, has_interval
from orchestrator.evaluation.variance import Groups, components
from trainers.errors import TrainerError
from trainers.files.csv_records import Record, csv_records
from trainers.files.encodings import decode_text
from trainers.files.plain import read_plain


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; NaN bounds if there are too few groups for one."""

    value: float
    low: float
    high: float


def mean_cost(costs: np.ndarray, labels: np.ndarray, predicted: np.ndarray, groups: Groups) -> Figure:
    """Return the mean cost of a photo. ``costs``: float (classes, classes), of each label and answer.

    Costs are scaled to [0, 1] by the lowest and the highest of the table; the interval is that of
    ``intervals.estimated_bounds``, whose effective sample size is estimated from the photos and their groups.
    """
    own, least, most = costs[labels, predicted], float(costs.min()), float(costs.max())
    mean = float(own.mean())
    if most == least:
        return Figure(mean, mean, mean)
    if not has_interval(groups):
        return Figure(mean, math.nan, math.nan)
    low, high = estimated_bounds(components(((own - least) / (most - least))[None], groups), groups)
    return Figure(mean, least + float(low) * (most - least), least + float(high) * (most - least))


def read_costs(file: Path, classes: Sequence[str]) -> np.ndarray:
    """Read a square table of the cost of each label (rows) and answer (columns); float (classes, classes).

    The header and the first column hold the classes, in any order. Raises DataError.
    """
    try:
        text, _ = decode_text(read_plain(file))
        records = list(csv_records(text, ()))
    except TrainerError as error:
        raise DataError(f"--costs: {file}: {error}") from error
    return costs_of(records, classes, f"--costs: {file}")


def costs_of(records: Sequence[Record], classes: Sequence[str], where: str) -> np.ndarray:
    """Return the costs in the ``records`` of a CSV; ``where`` begins the sentence of a DataError."""
    cells = [(line, [cell.strip() for cell in record]) for line, record in records]
    columns = _without_empty_end(cells[0][1][1:]) if cells else []
    _check_names(columns, "columns", classes, where)
    _check_names([record[0] for _, record in cells[1:]], "rows", classes, where)
    costs = np.zeros((len(classes), len(classes)))
    for line, record in cells[1:]:
        values = _without_empty_end(record[1:])
        if len(values) != len(columns):
            raise DataError(f"{where}, line {line:,}: found {len(values)} costs for {len(columns)} classes.")
        for name, cell in zip(columns, values, strict=True):
            costs[classes.index(record[0]), classes.index(name)] = _cost(cell, f"{where}, line {line:,}")
    return costs


def _without_empty_end(cells: list[str]) -> list[str]:
    """Leave out the empty cells that separators at the line's end make."""
    end = len(cells)
    while end and not cells[end - 1]:
        end -= 1
    return cells[:end]


def _check_names(names: Sequence[str], what: str, classes: Sequence[str], where: str) -> None:
    missing, unknown = sorted({*classes} - {*names}), sorted({*names} - {*classes})
    twice = sorted({name for name in names if names.count(name) > 1})
    found = [
        f"{word} {', '.join(map(repr, some))}"
        for word, some in (("missing", missing), ("unknown", unknown), ("twice", twice))
        if some
    ]
    if found:
        raise DataError(
            f"{where}: its {what} must be the classes of the model, each once; {'; '.join(found)}. The first row "
            "holds the answers, the first column the labels."
        )


def _cost(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: found {cell!r}; a cost is a number.")
    return value
