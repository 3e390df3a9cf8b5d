"""Tempered probabilities, and the thresholds of a served model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trainers.calibration import Calibration, Level, tempered, too_uncertain
from trainers.errors import TrainerError

LEVELS = (Level(0.0, 1.0, 0.9, 0.85), Level(0.6, 0.8, 0.95, 0.9), Level(0.9, 0.4, 1.0, 0.948))
MODEL = Calibration(0.5, LEVELS, 240)


def random_rows(count: int = 500, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(classes, 0.3), count).astype(np.float32)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 0.99, 1.0, 2.0, 10.0])
def test_no_answer_changes_and_rows_stay_distributions(temperature: float) -> None:
    rows = random_rows()
    warm = tempered(rows, temperature)
    np.testing.assert_array_equal(warm.argmax(1), rows.argmax(1))
    np.testing.assert_allclose(warm.sum(1), 1, atol=1e-6)


def test_it_is_p_to_the_power_of_one_over_t() -> None:
    np.testing.assert_allclose(tempered(np.array([[0.8, 0.2]]), 0.5), [[0.64 / 0.68, 0.04 / 0.68]])
    rows = random_rows()
    assert tempered(rows, 1.0) is rows
    assert tempered(rows, 2.0).max(1).mean() < rows.max(1).mean() < tempered(rows, 0.5).max(1).mean()


def test_logits_over_t_are_the_same() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (50, 4))
    soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    colder = np.exp(logits / 3) / np.exp(logits / 3).sum(1, keepdims=True)
    np.testing.assert_allclose(tempered(soft, 3.0), colder, atol=1e-12)


def test_certain_answers_stay_certain() -> None:
    np.testing.assert_allclose(tempered(np.array([[1.0, 0.0]]), 10.0), [[1, 0]], atol=2e-3)
    np.testing.assert_allclose(tempered(np.array([[1.0, 0.0]]), 0.1), [[1, 0]], atol=1e-12)


def test_what_is_kept_comes_back() -> None:
    assert Calibration.from_dict(json.loads(json.dumps(MODEL.to_dict()))) == MODEL
    assert Calibration.from_dict(None) == Calibration()
    rows = random_rows()
    assert Calibration().apply(rows) is rows
    for wrong in ({}, {"temperature": 0.0, "levels": [], "photos": 3}, {"temperature": float("nan"), "levels": []}):
        with pytest.raises((KeyError, ValueError)):
            Calibration.from_dict(wrong)


@pytest.mark.parametrize(("precision", "threshold"), [(0.5, 0.0), (0.85, 0.0), (0.851, 0.6), (0.9, 0.6), (0.94, 0.9)])
def test_the_lowest_threshold_that_reaches_the_precision(precision: float, threshold: float) -> None:
    assert MODEL.level(precision).threshold == threshold


def test_a_precision_out_of_reach_is_a_sentence_with_the_highest_in_reach() -> None:
    with pytest.raises(TrainerError, match=r"precision of 0.99: the highest that the 240 validation photos .* 0.948\."):
        MODEL.level(0.99)
    assert MODEL.level(0.948).threshold == 0.9
    with pytest.raises(TrainerError, match="no thresholds for a wanted precision"):
        Calibration().level(0.9)
    for odd in (1.0, -0.1, 95.0, float("nan")):
        with pytest.raises(TrainerError, match=r"a share between 0 and 1, such as 0\.95"):
            MODEL.level(odd)


def test_the_reason_names_the_likeliest_class_and_the_threshold() -> None:
    assert too_uncertain("glass", 0.61234, LEVELS[2], 0.94) == (
        "none of these: the likeliest is glass with 0.612, below 0.900, the threshold for a precision of 0.94."
    )
