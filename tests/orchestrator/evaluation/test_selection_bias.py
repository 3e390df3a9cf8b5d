"""The winner's figure after the choice among many: unbiased among equals, untouched where one is best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.evaluation.selection_bias import corrected_accuracy


@pytest.mark.parametrize("trials", [5, 20, 60])
def test_of_equal_trials_the_corrected_figure_is_unbiased(trials):
    """Trials of a true accuracy of 0.9 on 380 shared photos; half of what makes a photo hard is hard for all."""
    rng = np.random.default_rng(trials)
    photos = rng.standard_normal((60, 1, 380))
    right = np.sqrt(0.5) * photos + np.sqrt(0.5) * rng.standard_normal((60, trials, 380)) < 1.2815515655446004
    accuracies = right.mean(axis=2)
    best = accuracies.max(axis=1)
    corrected = np.array([corrected_accuracy(row, 380) for row in accuracies])
    assert best.mean() - 0.9 > 0.01
    assert abs(corrected.mean() - 0.9) < 0.004


def test_a_trial_that_is_clearly_best_is_hardly_corrected():
    accuracies = [*np.random.default_rng(0).normal(0.8, 0.02, 20), 0.95]
    assert 0.945 < corrected_accuracy(accuracies, 380) <= 0.95


def test_bad_trials_do_not_hide_that_the_good_ones_are_equal():
    rng = np.random.default_rng(1)
    good, bad = rng.binomial(380, 0.9, (60, 10)) / 380, rng.binomial(380, 0.5, (60, 20)) / 380
    assert good.max(axis=1).mean() > 0.92
    corrected = [corrected_accuracy([*one, *other], 380) for one, other in zip(good, bad, strict=True)]
    assert np.mean(corrected) == pytest.approx(0.9, abs=0.006)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(1, 5000))
def test_the_corrected_figure_is_between_the_worst_and_the_best(accuracies, images):
    assert min(accuracies) - 1e-9 <= corrected_accuracy(accuracies, images) <= max(accuracies)


def test_what_has_no_figure_is_refused():
    for accuracies, images in (([], 10), ([0.5], 0), ([float("nan")], 10)):
        with pytest.raises(ValueError, match="needs finite accuracies and images"):
            corrected_accuracy(accuracies, images)


@pytest.mark.parametrize("collapsed", [0, 10, 20])
def test_trials_that_collapsed_do_not_lower_the_figure_of_the_best(collapsed):
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(60):
        true = np.concatenate([rng.uniform(0.90, 0.98, 20), np.full(collapsed, 0.1)])
        seen = rng.binomial(380, true) / 380
        gaps.append(corrected_accuracy(seen, 380) - true[seen.argmax()])
    assert abs(np.mean(gaps)) < 0.006
