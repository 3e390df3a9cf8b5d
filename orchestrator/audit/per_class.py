"""The figures of each class computed again from stored probabilities, and compared with ``per_class.csv``."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from orchestrator.audit import figures as formulas
from orchestrator.audit import intervals
from orchestrator.audit.checks import (
    NOT_CHECKABLE,
    UNREADABLE,
    Check,
    JudgedSweep,
    Unreadable,
    compare,
    groups_of_test,
    in_words,
    labels_of_test,
    number,
    read_manifest,
    unknown_version,
    winner_on_test,
)
from orchestrator.ledger.folder import Sweep
from orchestrator.ledger.kept import FILES

COUNTS = ("support", "predicted")
"""Columns that hold numbers of photos."""


def compare_per_class(judged: JudgedSweep) -> Iterator[Check]:
    """Compute each figure of each class again, from the mean of the winner's networks under its crop policy."""
    sweep, path = judged.sweep, judged.sweep.paths.per_class
    part = sweep.paths.name_of(path)
    if not path.is_file() and part not in judged.record.get(FILES, {}):
        yield Check(part, "figures of each class", NOT_CHECKABLE, reason="the sweep is from before they were written")
        return
    lines = _read(sweep)
    _, classes = read_manifest(sweep)
    labels, groups = labels_of_test(sweep, classes), groups_of_test(sweep)
    answers = winner_on_test(judged, part).argmax(axis=1)
    known = judged.version in formulas.STATISTICS
    if not known:
        yield Check(part, "intervals", NOT_CHECKABLE, reason=unknown_version(judged))
    yield compare(part, "classes", [line.get("class") for line in lines], list(classes))
    rows = class_figures(labels, answers, classes, groups, judged.version)
    for line, (name, found) in zip(lines, rows.items(), strict=False):
        for figure, value in found.items():
            if figure in COUNTS:
                yield compare(part, f"{name}: {figure}", line.get(figure), str(int(value)))
            elif known or not figure.endswith(("_low", "_high")):
                yield compare(part, f"{name}: {figure}", number(line.get(figure) or math.nan), value)


def class_figures(
    labels: np.ndarray, answers: np.ndarray, classes: Sequence[str], groups: Sequence[str], version: int
) -> Mapping[str, Mapping[str, float]]:
    """Return class -> figures. F1 is 2 P R / (P + R), 0 without a hit, NaN for a class that does not occur.

    ``version``: of the statistics, by which intervals are computed.
    """
    pairs = [*zip(labels.tolist(), answers.tolist(), groups, strict=True)]
    found = {}
    for place, name in enumerate(classes):
        given = [(float(answer == label), group) for label, answer, group in pairs if answer == place]
        there = [(float(answer == label), group) for label, answer, group in pairs if label == place]
        precision, recall = _share(given, version), _share(there, version)
        hits = sum(hit for hit, _ in there)
        f1 = 2 * precision[0] * recall[0] / (precision[0] + recall[0]) if hits else 0.0
        found[name] = {
            **dict(zip(("precision", "precision_low", "precision_high"), precision, strict=True)),
            **dict(zip(("recall", "recall_low", "recall_high"), recall, strict=True)),
            "f1": f1 if given or there else math.nan,
            "support": float(len(there)),
            "predicted": float(len(given)),
        }
    return found


def _share(photos: Sequence[tuple[float, str]], version: int) -> tuple[float, float, float]:
    """Return the share of hits among (hit, group), and its interval; NaN for none."""
    if not photos:
        return math.nan, math.nan, math.nan
    hits, groups = [hit for hit, _ in photos], [group for _, group in photos]
    return math.fsum(hits) / len(hits), *intervals.accuracy(hits, groups, version)


def _read(sweep: Sweep) -> list[dict[str, str]]:
    name = sweep.paths.name_of(sweep.paths.per_class)
    try:
        with open(sweep.paths.per_class, encoding="utf-8", newline="") as file:
            return [*csv.DictReader(file)]
    except (csv.Error, *UNREADABLE) as error:
        raise Unreadable(name, name, in_words(error)) from error
