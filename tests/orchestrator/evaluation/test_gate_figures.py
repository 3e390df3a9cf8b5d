"""The gate's bound and its stated error rates, by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.evaluation.gate_figures import compare_answers, exceeds_largest_class
from orchestrator.evaluation.promotion_gate import MARGIN, Contender, JudgedImages, decide
from orchestrator.objectives import ACCURACY, MACRO_F1

REPETITIONS, STATED = 600, 60
CLASSES = ("0", "1", "2")


def passes(
    photos: int, disagree: float, gain: float, objective: str = ACCURACY, copies: int = 1
) -> tuple[float, float]:
    """Return the share of challengers, truly better by ``gain``, that ``decide`` allows, and the median of the stated
    share."""
    rng, passed, stated = np.random.default_rng(0), 0, []
    objects = photos // copies
    names = [f"{i:04d}" for i in range(objects * copies)]
    groups = [str(i // copies) for i in range(objects * copies)]
    for _ in range(REPETITIONS):
        u = rng.random(objects).repeat(copies)
        labels = rng.integers(0, 3, objects).repeat(copies)
        only_old, only_new = u < (disagree - gain) / 2, u > 1 - (disagree + gain) / 2
        neither = (u > 0.5) & (u < 0.55)
        old, new = (np.where(wrong | neither, (labels + 1) % 3, labels) for wrong in (only_new, only_old))
        truth, before, after = (dict(zip(names, map(str, a), strict=True)) for a in (labels, old, new))
        champion = Contender("m", "1", CLASSES, before, frozenset())
        challenger = Contender("m", "2", CLASSES, after, frozenset())
        images = JudgedImages(truth, dict(zip(names, groups, strict=True)))
        passed += decide(challenger, champion, images, objective=objective).allowed
        if len(stated) < STATED:
            stated.append(compare_answers(labels, old, new, groups, objective, MARGIN).pass_rate(gain))
    return passed / REPETITIONS, float(np.median(stated))


@pytest.mark.parametrize("objective", [ACCURACY, MACRO_F1])
def test_at_380_photos_3_points_better_pass_and_3_points_worse_do_not(objective):
    """The models disagree on one photo in ten; 600 repetitions: the standard errors are 0.010 and 0.006."""
    assert passes(380, 0.10, MARGIN, objective)[0] >= 0.90
    assert passes(380, 0.10, -MARGIN, objective)[0] <= 0.025


@pytest.mark.parametrize("gain", [-0.01, 0.0, 0.02])
def test_the_stated_error_rates_are_those_of_a_simulation(gain):
    found, stated = passes(380, 0.10, gain)
    assert found == pytest.approx(stated, abs=0.06)


def test_copies_of_photos_let_no_worse_model_pass():
    assert passes(400, 0.10, -MARGIN, ACCURACY, copies=4)[0] <= 0.03


def test_the_largest_class():
    labels = np.array(["a"] * 70 + ["b"] * 30)
    assert exceeds_largest_class(labels, labels == "a", [str(i) for i in range(100)]) == ("a", 0.7, False)
    assert exceeds_largest_class(labels, np.arange(100) < 95, [str(i) for i in range(100)]) == ("a", 0.7, True)
    assert not exceeds_largest_class(labels, np.arange(100) < 78, [str(i // 10) for i in range(100)])[2]
