"""The gate's bound and its stated error rates, by exact sums and by simulation."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from orchestrator.evaluation.gate_figures import (
    Evidence,
    GateFigures,
    compare_answers,
    exceeds_largest_class,
    fewest_photos,
    score,
)
from orchestrator.evaluation.promotion_gate import MARGIN
from orchestrator.objectives import ACCURACY, MACRO_F1
from trainers.metrics import macro_f1

REPETITIONS, STATED = 400, 20


def figures(n: int, only_old: int, only_new: int, objective: str = ACCURACY, margin: float = MARGIN) -> GateFigures:
    """Two models on n photos of two classes by turns: so many are right under one of them only, the others under
    both."""
    labels, place = np.arange(n) % 2, np.arange(n)
    old = np.where((place >= only_old) & (place < only_old + only_new), 1 - labels, labels)
    new = np.where(place < only_old, 1 - labels, labels)
    return compare_answers(labels, old, new, [str(i) for i in range(n)], objective, margin)


@pytest.mark.parametrize("n", [15, 50, 75, 100, 150, 153, 200, 300, 380])
@pytest.mark.parametrize("objective", [ACCURACY, MACRO_F1])
def test_a_model_that_only_loses_the_margin_passes_in_2_percent(n, objective):
    """Exact: the champion with a loss of 3 points, all disagreement against it; b photos lost with C(n, b) .03^b ..."""
    passing = 0
    while figures(n, passing, 0, objective).is_within_margin:
        passing += 1
    share = sum(comb(n, b) * MARGIN**b * (1 - MARGIN) ** (n - b) for b in range(passing))
    assert share <= 0.016
    assert bool(passing) == (n >= 153)
    if passing:
        stated = figures(n, round(MARGIN * n), 0, objective).pass_rate(-MARGIN)
        assert stated <= 0.016
        assert figures(n, 0, 0, objective).pass_rate(-MARGIN) == pytest.approx(share, abs=0.004)


@pytest.mark.parametrize("n", [50, 100, 138, 153, 200, 300, 380])
@pytest.mark.parametrize("both", [0.0, 0.002, 0.005, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
def test_however_often_models_differ_the_margin_passes_in_1_55_percent(n, both, margin):
    """``both``: share that the challenger alone has right. The rate is an exact sum, of the rule that decides."""
    assert Evidence(0.0, margin + 2 * both, n, n).pass_rate(-margin, margin) <= 0.0155


def test_equal_answers_say_how_many_photos_and_which_margin_would_do():
    small = figures(50, 0, 0)
    assert (small.is_too_small, small.photos_for_equal, small.margin_for_equal) == (True, 153, 0.087)
    assert not figures(50, 0, 0, margin=0.086).is_within_margin
    assert figures(50, 0, 0, margin=0.087).is_within_margin
    assert not figures(152, 0, 0).is_within_margin
    assert figures(153, 0, 0).is_within_margin
    assert not figures(153, 0, 0).is_too_small
    assert figures(3, 0, 0).margin_for_equal == np.inf


@pytest.mark.parametrize("loss", [-0.03, 0.01, 0.03, 0.2])
def test_the_scores_variance_is_that_of_the_likeliest_models_with_such_a_loss(loss):
    """Of 44 photos 3 are right under the challenger alone and 1 under the champion alone; q by search."""
    q = np.linspace(max(0.0, -loss), (1 - loss) / 2, 400_002)[1:-1]
    best = q[(3 * np.log(q) + np.log(q + loss) + 40 * np.log(1 - 2 * q - loss)).argmax()]
    expected = (2 / 44 + loss) / np.sqrt((2 * best + loss - loss**2) / 44)
    assert score(44, np.asarray(2 / 44), np.asarray(4 / 44), loss) == pytest.approx(expected, abs=1e-3)


def test_the_smallest_classes_hide_a_loss_best():
    assert fewest_photos(np.array([127] * 3), MARGIN) == pytest.approx(381)
    sizes = np.array([17] * 20 + [2] * 20)
    found, rng = fewest_photos(sizes, MARGIN), np.random.default_rng(0)
    assert 0.97**found == pytest.approx(0.94**40, rel=1e-3)  # 6 points in each class of two
    for _ in range(200):
        loss = rng.dirichlet(np.full(40, 0.3)) * 40 * MARGIN
        if loss.max() < 1:
            assert ((1 - loss) ** sizes).prod() <= 0.97**found * (1 + 1e-9)


def passes(
    photos: int, disagree: float, gain: float, objective: str = ACCURACY, copies: int = 1, alike: float = 1.0
) -> tuple[float, float]:
    """Return the share of challengers, truly better by ``gain``, that pass, and the median of the stated share.

    ``alike``: share of the photos that are answered as their object is.
    """
    rng, passed, stated = np.random.default_rng(0), 0, []
    objects = photos // copies
    groups = [str(i // copies) for i in range(objects * copies)]
    for _ in range(REPETITIONS):
        u = rng.random(objects).repeat(copies)
        u = np.where(rng.random(len(u)) < alike, u, rng.random(len(u)))
        labels = rng.integers(0, 3, objects).repeat(copies)
        only_old, only_new = u < (disagree - gain) / 2, u > 1 - (disagree + gain) / 2
        neither = (u > 0.5) & (u < 0.55)
        old, new = (np.where(wrong | neither, (labels + 1) % 3, labels) for wrong in (only_new, only_old))
        found = compare_answers(labels, old, new, groups, objective, MARGIN)
        passed += found.is_within_margin
        if len(stated) < STATED:
            stated.append(found.pass_rate(gain))
    return passed / REPETITIONS, float(np.median(stated))


@pytest.mark.parametrize("objective", [ACCURACY, MACRO_F1])
def test_at_380_photos_3_points_better_pass_and_3_points_worse_do_not(objective):
    """The models disagree on one photo in ten; 400 repetitions: the standard errors are 0.013 and 0.006."""
    assert passes(380, 0.10, MARGIN, objective)[0] >= 0.90
    assert passes(380, 0.10, -MARGIN, objective)[0] <= 0.025


@pytest.mark.parametrize(
    ("photos", "disagree", "gain", "objective", "copies", "alike"),
    [
        (380, 0.10, -0.01, ACCURACY, 1, 1.0),
        (380, 0.10, 0.0, MACRO_F1, 1, 1.0),
        (380, 0.05, 0.0, ACCURACY, 1, 1.0),
        (200, 0.02, 0.0, ACCURACY, 1, 1.0),
        (800, 0.10, 0.0, ACCURACY, 4, 0.5),
        (400, 0.10, 0.03, ACCURACY, 4, 1.0),
    ],
)
def test_the_stated_error_rates_are_those_of_a_simulation(photos, disagree, gain, objective, copies, alike):
    found, stated = passes(photos, disagree, gain, objective, copies, alike)
    assert found == pytest.approx(stated, abs=0.08)


@pytest.mark.parametrize("photos", [100, 200, 300])
@pytest.mark.parametrize("disagree", [0.03, 0.05])
def test_of_models_3_points_worse_as_few_pass_as_stated(photos, disagree):
    found, stated = passes(photos, disagree, -MARGIN)
    assert stated <= 0.0155
    assert found <= stated + 0.0125  # two standard errors


@pytest.mark.parametrize("disagree", [0.03, 0.10])
def test_copies_of_photos_let_no_worse_model_pass(disagree):
    assert passes(400, disagree, -MARGIN, ACCURACY, copies=4)[0] <= 0.025
    assert passes(800, disagree, -MARGIN, ACCURACY, copies=4)[0] <= 0.025


def test_small_classes_hide_no_loss_of_macro_f1():
    """40 classes of 17 photos or of 2. The challenger loses 5.9 % of the photos of the small ones, and each model alone
    is right on 1 % of all: 3.0 points of macro F1."""
    rng, classes = np.random.default_rng(0), 40
    sizes = np.where(np.arange(classes) < 20, 17, 2)

    def drawn(labels):
        def other():
            return (labels + rng.integers(1, classes, len(labels))) % classes

        old = np.where(rng.random(len(labels)) < 0.9, labels, other())
        lost = ((labels >= 20) & (rng.random(len(labels)) < 0.059)) | (rng.random(len(labels)) < 0.01)
        return old, np.where(lost, other(), np.where(rng.random(len(labels)) < 0.01, labels, old))

    many = np.repeat(np.arange(classes), sizes * 4000)
    old, new = drawn(many)
    truth = macro_f1(many, new) - macro_f1(many, old)
    assert truth == pytest.approx(-0.03, abs=0.0005)
    labels, passed, covered = np.repeat(np.arange(classes), sizes), 0, 0
    groups = [str(i) for i in range(len(labels))]
    for _ in range(300):
        found = compare_answers(labels, *drawn(labels), groups, MACRO_F1, MARGIN)
        passed += found.is_within_margin
        covered += found.difference.low <= truth <= found.difference.high
    assert passed <= 0.03 * 300
    assert covered >= 0.91 * 300  # 2,500 such draws: 0.94


def test_the_largest_class():
    labels = np.array(["a"] * 70 + ["b"] * 30)
    assert exceeds_largest_class(labels, labels == "a", [str(i) for i in range(100)]) == ("a", 0.7, False)
    assert exceeds_largest_class(labels, np.arange(100) < 95, [str(i) for i in range(100)]) == ("a", 0.7, True)
    assert not exceeds_largest_class(labels, np.arange(100) < 78, [str(i // 10) for i in range(100)])[2]
