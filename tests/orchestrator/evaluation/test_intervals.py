"""Intervals and tests: values worked by hand and by other implementations; coverage under groups and networks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.coverage import Cell, draw, group_of, run_cell
from orchestrator.evaluation.intervals import (
    accuracy_interval,
    difference_bounds,
    difference_p,
    grouped_interval,
    has_interval,
    macro_f1_interval,
    paired_difference,
    score_bounds,
    sign_flip,
)
from orchestrator.evaluation.variance import Groups, components, difference_components


@pytest.mark.parametrize(
    ("correct", "total", "interval"),
    [  # as 0.1.0 wrote them into leaderboards, from the formula
        (0, 1, (0.0, 0.7934506856227626)),
        (1, 1, (0.20654931437723742, 1.0)),
        (0, 382, (0.0, 0.009956055091734722)),
        (191, 382, (0.4501099832337803, 0.5498900167662196)),
        (353, 382, (0.8930982784291226, 0.9466248580899296)),
        (382, 382, (0.9900439449082653, 1.0)),
        (14967, 20000, (0.7422884121039902, 0.7543162035869425)),
    ],
)
def test_the_interval_is_wilsons(correct, total, interval):
    assert accuracy_interval(correct, total) == pytest.approx(interval, abs=1e-14)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_no_interval_of_what_is_no_accuracy(correct, total):
    with pytest.raises(ValueError, match=f"{correct} correct of {total} images is no accuracy"):
        accuracy_interval(correct, total)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [  # as 0.1.0 wrote them into leaderboards, in whole numbers to the last step
        (0, 0, 1.0),
        (0, 1, 1.0),
        (3, 9, 0.14599609375),
        (9, 3, 0.14599609375),
        (17, 40, 0.003201543767450382),
        (412, 388, 0.4161355285396153),
        (5000, 5200, 0.04878796312682245),
        (0, 9000, 0.0),
    ],
)
def test_the_p_value_is_the_exact_mcnemar_test(only_a, only_b, p_value):
    gains = np.r_[-np.ones(only_a), np.ones(only_b), np.zeros(5)]
    assert sign_flip(gains) == pytest.approx(p_value, rel=1e-11)


def test_the_paired_difference_of_a_table_worked_by_hand():
    """50 images; 3 right under a only, 9 under b only: d = 6/52, 1.96 sqrt(13 - 36/52) / 52."""
    a = [True] * 3 + [False] * 9 + [True] * 30 + [False] * 8
    b = [False] * 3 + [True] * 9 + [True] * 30 + [False] * 8
    paired = paired_difference(a, b)
    half = 1.959963984540054 * (13 - 36 / 52) ** 0.5 / 52
    assert paired.difference == pytest.approx(0.12)
    assert (paired.low, paired.high) == pytest.approx((6 / 52 - half, 6 / 52 + half))
    assert paired.p_value == pytest.approx(2 * sum([1, 12, 66, 220]) / 4096)


ANSWERS = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.booleans(), min_size=n, max_size=n), st.lists(st.booleans(), min_size=n, max_size=n)
    )
)


@settings(deadline=None)
@given(ANSWERS)
def test_a_paired_difference_lies_in_its_interval_and_turns_with_its_sides(pair):
    a, b = pair
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert there.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert -1 <= there.low <= there.difference <= there.high <= 1
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    assert back.p_value == there.p_value


def test_a_paired_difference_needs_the_same_images():
    with pytest.raises(ValueError, match=r"the same images, at least 1; got shapes \(2,\) and \(3,\)"):
        paired_difference([True] * 2, [True] * 3)
    with pytest.raises(ValueError, match="at least 1"):
        paired_difference([], [])


@pytest.mark.parametrize("images", [100, 360, 2500])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.005, 0.015), (0.02, 0.02), (0.01, 0.04)])
def test_the_paired_interval_covers_the_truth_in_95_of_100_repetitions(images, only_a, only_b):
    """3,000 repetitions: the standard error of a coverage of 0.95 is 0.004."""
    rng = np.random.default_rng(images)
    tables = rng.multinomial(images, [only_a, only_b, 1 - only_a - only_b], size=3000)
    found, repetitions = np.unique(tables, axis=0, return_counts=True)
    covered = 0
    for (b, c, _), times in zip(found, repetitions, strict=True):
        first, second = np.zeros(images, bool), np.zeros(images, bool)
        first[:b], second[b : b + c] = True, True
        paired = paired_difference(first, second)
        covered += times * (paired.low <= only_b - only_a <= paired.high)
    assert 0.935 <= covered / 3000 <= 1


# --- groups -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_the_sign_flip_test_counts_all_signs(gains):
    observed = abs(sum(gains))
    signs = list(itertools.product((-1, 1), repeat=len(gains)))
    count = sum(abs(sum(s * g for s, g in zip(each, gains, strict=True))) >= observed for each in signs)
    assert sign_flip(np.array(gains)) == pytest.approx(count / len(signs), rel=1e-9)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 40))
def test_groups_of_one_photo_are_wilsons_interval(seed, right, wrong):
    correct = np.random.default_rng(seed).permutation(np.arange(right + wrong) < right)
    names = [f"g{i}" for i in np.random.default_rng(seed).permutation(right + wrong)]
    found = grouped_interval(correct, Groups.of(names, right + wrong))
    assert found == pytest.approx(accuracy_interval(right, right + wrong), abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 8))
def test_an_interval_of_groups_is_never_a_point_and_holds_its_figure(seed, share, size):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(12 * size, 200 + 12 * size))
    a, b = rng.random(images) < share, rng.random(images) < share
    groups = Groups.of(rng.permutation(np.arange(images) // size), images)
    low, high = grouped_interval(a, groups)
    assert 0 <= low <= a.mean() <= high <= 1
    assert high - low > 1 / images / 2
    paired = paired_difference(a, b, groups)
    assert -1 <= paired.low < paired.high <= 1
    assert paired.low <= paired.difference <= paired.high
    assert 0 <= paired.p_value <= 1


def test_all_right_is_not_certainty():
    """100.0-100.0 was shown for networks without an error."""
    groups = Groups.of(None, 200)
    low, high = score_bounds(components(np.ones((3, 200), bool), groups), groups)
    assert 0.96 < low < 0.995
    assert high == 1
    parts = difference_components(np.ones((3, 200), bool), np.ones((3, 200), bool), groups)
    low, high = difference_bounds(parts, groups)
    assert (low, difference_p(parts, groups)) == (-high, 1)
    assert 0.003 < high < 0.02


def test_p_is_below_5_percent_exactly_where_the_interval_leaves_0_out():
    cell = Cell(200, 3, 0.9, 4, 0.2, 0.01)
    group = group_of(cell)
    groups = Groups.of(group, cell.photos)
    drawn = draw(cell, group, 400, np.random.default_rng(5))
    parts = difference_components(drawn.first, drawn.better, groups)
    low, high = difference_bounds(parts, groups)
    outside = (low > 0) | (high < 0)
    assert 20 < outside.sum() < 380
    assert (outside == (difference_p(parts, groups) < 0.05)).all()


def test_when_an_interval_is_withheld():
    assert has_interval(Groups.of(None, 3))
    assert not has_interval(Groups.of(list("aabbcc"), 6))
    assert has_interval(Groups.of([i // 2 for i in range(20)], 20))
    assert not has_interval(Groups.of(None, 100), 1)
    assert has_interval(Groups.of(None, 100), 2)
    few = paired_difference([True] * 6, [False] * 6, Groups.of(list("aabbcc"), 6))
    assert few.difference == -1
    assert math.isnan(few.p_value)


def test_macro_f1_of_independent_photos_agrees_with_the_bootstrap():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 400)
    predicted = np.where(rng.random(400) < 0.8, labels, rng.integers(0, 4, 400))
    low, high = macro_f1_interval(labels, predicted, Groups.of(None, 400))
    from trainers.metrics import macro_f1

    again = [macro_f1(labels[i], predicted[i]) for i in rng.integers(0, 400, (800, 400))]
    expected = np.percentile(again, (2.5, 97.5))
    assert (low, high) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize(
    "cell",
    [
        Cell(500, 1, 0.9, 10, 0.3, 0.0),  # S1: 69 % coverage and 30 % false positives as independent photos
        Cell(382, 2, 0.9, 1, 0.0, 0.0),  # S2: twice as wide as needed
        Cell(600, 3, 0.9, 1, 0.0, 0.03),  # S2: coverage 0.84, false positives 15 %
    ],
)
def test_coverage_under_groups_and_seeds(cell):
    """600 data sets: the standard error of a coverage of 0.95 is 0.009."""
    found = run_cell(cell, 600, (4,))
    for name in ("difference", "equal", "mean_accuracy"):
        if found[name]:
            assert found[name]["coverage"] > 0.91, name
    assert found["difference"]["false_positives"] < 0.085
    assert found["equal"]["width"] < 1.5
