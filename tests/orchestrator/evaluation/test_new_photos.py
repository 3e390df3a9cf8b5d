"""Figures on new photos, and whether they differ from those on the test split by more than chance."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.evaluation.intervals import accuracy_interval
from orchestrator.evaluation.new_photos import (
    Answers,
    TestAnswers,
    against_test,
    evaluate,
    how_far,
    unpaired_bounds,
)
from orchestrator.evaluation.variance import Groups, components

CLASSES = ("a", "b", "c")


def answers(wrong: int, photos: int = 200, groups: list[str] | None = None) -> Answers:
    """Each photo with a probability of 0.6 to 0.9 for its label, or for the class after it in the first ``wrong``."""
    labels = np.arange(photos) % 3
    top = np.where(np.arange(photos) < wrong, (labels + 1) % 3, labels)
    rows = np.full((photos, 3), 0.0)
    certain = np.linspace(0.6, 0.9, photos)
    rows[:] = ((1 - certain) / 2)[:, None]
    rows[np.arange(photos), top] = certain
    return Answers(CLASSES, labels, rows, groups or [str(i) for i in range(photos)])


def hits(wrong: int, photos: int) -> np.ndarray:
    return np.arange(photos) >= wrong


def test_the_figures_of_all_photos() -> None:
    found = evaluate(answers(20), costs=1.0 - np.eye(3))
    assert (found.photos, found.groups, found.accuracy.value) == (200, 200, 0.9)
    assert (found.accuracy.low, found.accuracy.high) == accuracy_interval(180, 200)
    assert found.macro_f1.low < found.macro_f1.value < found.macro_f1.high
    assert found.cost is not None
    assert found.cost.value == pytest.approx(0.1)
    assert found.classes["support"].tolist() == [67, 67, 66]
    assert found.confused["photos"].sum() == 20
    assert found.worst == tuple(range(19, 9, -1))  # the highest probability first
    assert found.against_test is None
    assert found.less_certain is None


def test_a_difference_is_judged_by_the_photos_of_both() -> None:
    """Newcombe's own example (1998, table II): 56/70 and 48/80, a difference of 0.2 (0.0524 to 0.3339)."""
    test, new = hits(32, 80), hits(14, 70)
    found = against_test(new, Groups.of(None, 70), TestAnswers(test))
    assert found.difference == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert found.exceeds_chance
    assert 0.005 < found.p_value < 0.01
    assert (found.test.value, found.test_photos, found.test_groups) == (0.6, 80, 80)


def test_p_is_where_the_interval_touches_zero() -> None:
    test, new = hits(10, 300), hits(12, 150)
    found = against_test(new, Groups.of(None, 150), TestAnswers(test))
    groups = Groups.of(None, 300), Groups.of(None, 150)
    before, after = components(test[None], groups[0]), components(new[None], groups[1])
    low, high = unpaired_bounds(before, groups[0], after, groups[1], 1 - found.p_value)
    assert min(abs(low), abs(high)) < 1e-6
    assert against_test(test, groups[0], TestAnswers(test)).p_value == 1
    assert against_test(hits(300, 300), groups[0], TestAnswers(hits(0, 300))).p_value < 1e-6


def test_the_same_objects_again_and_again_prove_less() -> None:
    new = np.repeat(hits(3, 20), 10)
    alone = against_test(new, Groups.of(None, 200), TestAnswers(hits(8, 200)))
    grouped = against_test(new, Groups.of(np.repeat(np.arange(20), 10), 200), TestAnswers(hits(8, 200)))
    assert alone.difference == grouped.difference
    assert alone.exceeds_chance
    assert not grouped.exceeds_chance
    few = against_test(new, Groups.of(np.repeat(np.arange(5), 40), 200), TestAnswers(hits(8, 200)))
    assert math.isnan(few.low)
    assert not few.is_known
    assert not few.exceeds_chance


@pytest.mark.parametrize(
    ("accuracy", "test", "new"), [(0.6, 60, 60), (0.9, 380, 100), (0.96, 380, 380), (0.99, 300, 60)]
)
def test_of_equal_accuracies_few_are_called_different(accuracy: float, test: int, new: int) -> None:
    """Over all outcomes, each with its binomial probability."""
    from scipy.stats import binom

    groups = Groups.of(None, test), Groups.of(None, new)
    sides = [
        components(np.arange(n)[None, None] < np.arange(n + 1)[:, None, None], g)
        for n, g in zip((test, new), groups, strict=True)
    ]
    chances = [binom.pmf(np.arange(n + 1), n, accuracy) for n in (test, new)]
    rejected = 0.0
    for after in range(new + 1):
        one = components((np.arange(new) < after)[None], groups[1])
        low, high = unpaired_bounds(sides[0], groups[0], one, groups[1])
        rejected += chances[1][after] * float(chances[0] @ ((low > 0) | (high < 0)))
    assert rejected <= 0.07


def test_certainty_is_compared_with_that_of_the_test_photos() -> None:
    test = TestAnswers(hits(5, 100), certainty=np.linspace(0.7, 1.0, 100))
    found = evaluate(answers(20), test)
    assert found.less_certain == pytest.approx(0.38, abs=0.01)  # below 0.715, of 0.6 to 0.9
    assert found.against_test is not None
    assert found.against_test.test.value == 0.95


@pytest.mark.parametrize("photos", [1, 2])
def test_few_photos_are_judged_as_well(photos: int) -> None:
    found = evaluate(answers(0, photos), TestAnswers(hits(5, 100)))
    assert found.accuracy.value == 1
    assert found.accuracy.low < 0.4
    assert found.against_test is not None
    assert not found.against_test.exceeds_chance


def test_the_share_of_far_photos_and_its_limit() -> None:
    test = TestAnswers(np.ones(100, bool), distances=np.arange(100) / 100)
    distances = np.array([0.1, 0.99, 0.2, 2.0, 0.5] * 10)
    farness, farthest = how_far(distances, Groups.of(None, 50), test)
    assert farness.limit == pytest.approx(0.9405)
    assert farness.against_test.test.value == 0.05
    assert (farness.share.value, farness.are_far) == (0.4, True)
    assert farthest == (*range(3, 50, 5),)  # no more than are listed, the first first among equals
    near, none = how_far(np.zeros(50), Groups.of(None, 50), test)
    assert (near.share.value, near.are_far, none) == (0.0, False, ())


def test_photos_like_those_of_the_test_split_are_seldom_called_far() -> None:
    """By chance in at most 7 %, also of small sets and in groups; a real shift is found."""
    draw = np.random.default_rng(0)
    said = {(size, shift): 0 for size in (40, 400) for shift in (0.0, 1.5)}
    for size, shift in said:
        for _ in range(300):
            test = TestAnswers(np.ones(100, bool), distances=draw.normal(size=100))
            groups = Groups.of(np.arange(size) // 2, size)
            new = np.repeat(draw.normal(shift, size=size // 2), 2)
            said[size, shift] += how_far(new, groups, test)[0].are_far
    assert said[40, 0.0] <= 21
    assert said[400, 0.0] <= 21
    assert said[40, 1.5] >= 200
    assert said[400, 1.5] >= 295
