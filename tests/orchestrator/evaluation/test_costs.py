"""The table of costs of mistakes, and the mean cost with its interval."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import DataError
from orchestrator.evaluation.costs import mean_cost, read_costs
from orchestrator.evaluation.intervals import accuracy_interval
from orchestrator.evaluation.variance import Groups
from trainers.calibration import tempered

CLASSES = ("a", "b", "c")
GOOD = "given,c,a,b\nb,5,1,0\na,2,0,1\nc,0,3,4\n"


@pytest.mark.parametrize(
    "text", [GOOD, "\ufeff" + GOOD.replace(",", ";"), GOOD.replace("\n", ",,\r\n"), "# x\n" + GOOD]
)
def test_a_table_in_any_order_and_dialect(text: str, tmp_path: Path) -> None:
    (tmp_path / "costs.csv").write_bytes(text.encode())
    assert read_costs(tmp_path / "costs.csv", CLASSES).tolist() == [[0, 1, 2], [1, 0, 5], [3, 4, 0]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "columns must be the classes of the model, each once; missing 'a', 'b', 'c'"),
        (GOOD.replace("given,c", "given,d"), "columns .*missing 'c'; unknown 'd'"),
        (GOOD.replace("\nb,", "\na,"), "rows .*missing 'b'; twice 'a'"),
        (GOOD.replace("3,4", "3"), "line 4: found 2 costs for 3 classes"),
        (GOOD.replace("5,1", "x,1"), "line 2: found 'x'; a cost is a number"),
        (GOOD.replace("5,1", "nan,1"), "line 2: found 'nan'; a cost is a number"),
        (GOOD.replace("5,1", "inf,1"), "line 2: found 'inf'; a cost is a number"),
    ],
)
def test_a_wrong_table_is_a_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "costs.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_costs(tmp_path / "costs.csv", CLASSES)


def test_a_missing_table_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"costs\.csv: .*there is no such file"):
        read_costs(tmp_path / "costs.csv", CLASSES)


def test_a_cost_of_one_for_each_mistake_is_the_error_rate() -> None:
    labels = np.repeat([0, 1], 200)
    answers = labels.copy()
    answers[::10] = 2
    found = mean_cost(1.0 - np.eye(3), labels, answers, Groups.of(None, 400))
    low, high = accuracy_interval(40, 400)
    assert found.value == 0.1
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    scaled = mean_cost(5.0 - 3 * np.eye(3), labels, answers, Groups.of(None, 400))
    assert (scaled.low, scaled.high) == pytest.approx((2 + 3 * found.low, 2 + 3 * found.high))


def test_costs_without_a_difference_and_with_few_objects() -> None:
    labels = np.arange(3)
    assert mean_cost(np.full((3, 3), 7.0), labels, labels, Groups.of(None, 3)).high == 7
    few = mean_cost(1.0 - np.eye(3), labels, labels, Groups.of(["x", "x", "x"], 3))
    assert few.value == 0
    assert math.isnan(few.high)


@pytest.mark.parametrize("size", [1, 4])
def test_the_interval_covers(size: int) -> None:
    """Two kinds of mistakes, one ten times as dear; in groups of ``size`` photos that are all wrong or all right."""
    rng, costs, objects = np.random.default_rng(size), np.array([[0.0, 1.0, 10.0]] * 3), 300 // size
    truth, covered = 0.1 * 1 + 0.05 * 10, 0
    groups = Groups.of(np.repeat(np.arange(objects), size), objects * size)
    for _ in range(400):
        answers = np.repeat(rng.choice(3, objects, p=[0.85, 0.1, 0.05]), size)
        found = mean_cost(costs, np.zeros(len(answers), int), answers, groups)
        covered += found.low <= truth <= found.high
    assert covered / 400 >= 0.93


def test_a_temperature_changes_no_cost() -> None:
    draw = np.random.default_rng(0)
    rows, labels = draw.dirichlet(np.ones(3), 60), draw.integers(0, 3, 60)
    groups, costs = Groups.of(None, 60), draw.uniform(0, 5, (3, 3))
    before = mean_cost(costs, labels, rows.argmax(1), groups)
    for temperature in (0.1, 0.5, 3.0):
        assert mean_cost(costs, labels, tempered(rows, temperature).argmax(1), groups) == before
