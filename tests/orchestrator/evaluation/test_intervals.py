"""Intervals and tests: values worked by hand and by other implementations; coverage under groups and networks."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

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
    [  # (correct + 1.92) of (total + 3.84), plus and minus its standard error times 1.96
        (0, 1, (0.0, 0.832500514520587)),
        (1, 1, (0.167499485479413, 1.0)),
        (0, 382, (0.0, 0.012000477111403753)),
        (191, 382, (0.4501099832337803, 0.5498900167662197)),
        (353, 382, (0.892770551657165, 0.9469525848618873)),
        (382, 382, (0.9879995228885962, 1.0)),
        (14967, 20000, (0.742288223036108, 0.7543163926548248)),
    ],
)
def test_the_interval_is_agresti_and_coulls(correct, total, interval):
    assert accuracy_interval(correct, total) == pytest.approx(interval, abs=1e-12)


@pytest.mark.parametrize("images", [20, 150, 2500])
def test_the_interval_of_an_accuracy_near_1_covers_it(images):
    """Exact sums over the binomial: Wilson's interval, the one before, covers 0.84 at 0.17 expected errors."""
    errors = np.arange(images + 1)
    bounds = np.array([accuracy_interval(images - k, images) for k in errors])
    for expected in (0.05, 0.17, 0.5, 0.9, 1.4, 2.3, 4.1):
        share = binom.pmf(errors, images, expected / images)
        truth = 1 - expected / images
        assert share[(bounds[:, 0] <= truth) & (truth <= bounds[:, 1])].sum() > 0.94, expected


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
def test_groups_of_one_photo_are_independent_photos(seed, right, wrong):
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
    assert has_interval(Groups.of(list("aabcdefghi"), 10))
    assert has_interval(Groups.of(list("aab"), 3))
    assert not has_interval(Groups.of(list("aa"), 2))
    assert has_interval(Groups.of([*"a" * 91, *"bcdefghij"], 100))
    few = paired_difference([True] * 6, [False] * 6, Groups.of(list("aabbcc"), 6))
    assert few.difference == -1
    assert math.isnan(few.p_value)


def test_a_pair_among_single_photos_leaves_the_intervals_and_widens_them():
    """They were withheld: 9 groups are fewer than 10."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 10)
    before, after = (np.where(rng.random(10) < share, labels, 1 - labels) for share in (0.6, 0.8))
    pair, single = Groups.of(list("aabcdefghi"), 10), Groups.of(None, 10)
    for groups in (pair, single):
        low, high = macro_f1_interval(labels, after, groups)
        assert 0 <= low < high <= 1
        paired = paired_difference(before == labels, after == labels, groups)
        assert -1 <= paired.low < paired.difference < paired.high <= 1
        assert 0 < paired.p_value <= 1
    (low, high), (narrow, upper) = (grouped_interval(after == labels, each) for each in (pair, single))
    assert high - low > upper - narrow


def test_a_class_of_one_group_is_not_certain():
    """Its group's sum of influences is about 0 whatever its accuracy: coverage was 86 % with 19 groups."""
    found = run_cell(Cell(340, 1, 0.9, 20, 0.45, 0.0), 600, (7,))
    assert found["macro_f1"]["coverage"] > 0.92
    assert found["macro_f1"]["width"] < 1.5


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
    if found["equal"].get("floor", 0) < 1.3:
        assert found["equal"]["width"] < 1.3
    assert found["equal"]["width"] < 2
