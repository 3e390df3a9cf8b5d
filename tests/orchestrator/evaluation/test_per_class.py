"""Precision, recall and F1 of each class, and the most confused classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.evaluation.intervals import accuracy_interval
from orchestrator.evaluation.per_class import COLUMNS, confused_pairs, per_class, to_rich, write
from orchestrator.paths import SweepPaths
from trainers.metrics import macro_f1

CLASSES = ("glass", "metal", "paper", "trash")
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2])
ANSWERS = np.array([0, 0, 0, 1, 1, 1, 0, 1])


def test_figures_by_hand() -> None:
    rows = per_class(LABELS, ANSWERS, CLASSES).to_dict("records")
    glass, metal, paper, trash = rows
    assert (glass["precision"], glass["recall"], glass["f1"]) == (3 / 4, 3 / 4, 3 / 4)
    assert (metal["precision"], metal["recall"], metal["f1"]) == (2 / 4, 2 / 3, 4 / 7)
    assert (glass["recall_low"], glass["recall_high"]) == accuracy_interval(3, 4)
    assert (metal["precision_low"], metal["precision_high"]) == accuracy_interval(2, 4)
    assert math.isnan(paper["precision"])
    assert math.isnan(paper["precision_low"])
    assert (paper["recall"], paper["f1"], paper["support"], paper["predicted"]) == (0, 0, 1, 0)
    assert all(math.isnan(trash[name]) for name in ("precision", "recall", "f1"))
    assert [row["support"] for row in rows] == [4, 3, 1, 0]


@settings(deadline=None)  # scikit-learn takes a second to import
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_figures_agree_with_scikit_learn_and_with_macro_f1(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import precision_recall_fscore_support

    labels, answers = np.array(pairs).T
    frame = per_class(labels, answers, [f"class {k}" for k in range(6)])
    found = precision_recall_fscore_support(labels, answers, labels=range(6), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "support"), found, strict=True):
        assert np.allclose(frame[name].fillna(0), values)
    assert math.isclose(frame["f1"].mean(), macro_f1(labels, answers))


def test_intervals_respect_groups() -> None:
    """Fifty photos of each of twelve objects, all right or all wrong, are worth twelve photos."""
    labels = np.zeros(600, int)
    answers = np.repeat([0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0], 50)
    names = np.repeat([f"object {i}" for i in range(12)], 50).tolist()
    alone, grouped = (per_class(labels, answers, ("a", "b"), g).iloc[0] for g in (None, names))
    assert alone["recall"] == grouped["recall"] == 10 / 12
    assert grouped["recall_high"] - grouped["recall_low"] > 5 * (alone["recall_high"] - alone["recall_low"])


def test_confused_pairs_begin_with_the_most_frequent() -> None:
    assert confused_pairs(LABELS, ANSWERS, CLASSES).to_dict("records") == [
        {"label": "glass", "predicted": "metal", "photos": 1, "share": 1 / 4},
        {"label": "metal", "predicted": "glass", "photos": 1, "share": 1 / 3},
        {"label": "paper", "predicted": "metal", "photos": 1, "share": 1.0},
    ]
    assert confused_pairs(np.array([1, 1, 0]), np.array([0, 0, 1]), CLASSES, most=1)["photos"].tolist() == [2]
    assert confused_pairs(LABELS, LABELS, CLASSES).empty


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_fits(columns: int) -> None:
    rng = np.random.default_rng(0)
    classes = [f"a class with a long name, number {k}, of [many]" for k in range(40)]
    labels, answers = rng.integers(0, 40, (2, 9000))
    console = Console(width=columns, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(to_rich(per_class(labels, answers, classes), "each class"))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= columns
    assert text.count("\N{EN DASH}") == 40
    assert "20 more are not shown" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


def test_the_file_holds_every_class(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path)
    write(per_class(LABELS, ANSWERS, CLASSES), paths)
    lines = paths.per_class.read_text().splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert [line.partition(",")[0] for line in lines[1:]] == [*CLASSES]
