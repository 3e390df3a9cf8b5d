"""Calibration error: by hand, by the formula, its floor and its bias by simulation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.evaluation.calibration import CalibrationError, calibration_error


def test_calibration_of_a_table_worked_by_hand():
    """Bins of a fifteenth: 0.9 (right, wrong), 0.6 (right), and 0.6 again, 9/15, on the upper edge of its bin."""
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    p = np.stack([confidence, 1 - confidence], axis=1)
    assert calibration_error(p, np.array([0, 1, 0, 0])).measured == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_calibration_of_the_extremes():
    certain = np.eye(2)[[0, 1, 1]]
    assert dataclasses.astuple(calibration_error(certain, np.array([0, 1, 1]))) == (0, 0, 0)
    assert calibration_error(certain, np.array([1, 0, 0])).measured == 1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_calibration_equals_the_formula_bin_by_bin(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 80)
    scores = rng.normal(size=(80, 4))
    scores[np.arange(80), truth] += 1.5
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    confidence, right, total = p.max(axis=1), p.argmax(axis=1) == truth, 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(p, truth).measured == pytest.approx(total)


def simulated(images: int, overconfident: float, repetitions: int = 200) -> np.ndarray:
    """Mean ``measured``, ``floor`` and ``debiased`` of models whose confidence is too high by ``overconfident``."""
    rng, found = np.random.default_rng(0), []
    for _ in range(repetitions):
        confidence = 1 - 0.5 * rng.beta(0.5, 4.5, images)
        labels = (rng.random(images) > confidence - overconfident).astype(int)
        error = calibration_error(np.stack([confidence, 1 - confidence], axis=1), labels)
        found.append(dataclasses.astuple(error))
    return np.mean(found, axis=0)


@pytest.mark.parametrize("images", [100, 382, 2000])
def test_the_floor_is_what_a_perfect_model_shows(images):
    measured, floor, debiased = simulated(images, 0.0)
    assert floor == pytest.approx(measured, rel=0.06)
    assert debiased < 0.75 * measured


def test_a_model_that_is_off_by_8_points_is_shown_so():
    measured, floor, debiased = simulated(382, 0.08)
    assert measured > 0.08
    assert abs(debiased - 0.08) < abs(measured - 0.08) / 1.5
    assert floor < 0.03


def test_no_figure_is_negative_or_nan_for_one_image():
    found = calibration_error(np.array([[0.7, 0.3]]), np.array([0]))
    assert found == CalibrationError(pytest.approx(0.3), pytest.approx(0.42), pytest.approx(0.3))
