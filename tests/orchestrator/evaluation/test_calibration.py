"""Calibration: its error by hand, by the formula and by simulation; planted temperatures, planted precisions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.evaluation import calibration
from orchestrator.evaluation.calibration import (
    COOLEST,
    WARMEST,
    CalibrationError,
    LabelledAnswers,
    calibrate,
    calibration_error,
    calibration_lines,
    effect_on_test,
    fit_temperature,
    precision_levels,
)
from trainers.calibration import Calibration, certainty, tempered
from trainers.metrics import log_loss


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


# --- temperature --------------------------------------------------------------------------------------------------


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def planted(photos: int, temperature: float, seed: int, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right once tempered by ``temperature``, float32, and labels drawn from those."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2.5, (photos, classes))
    true = softmax(logits)
    labels = (true.cumsum(1) > draw.random((photos, 1))).argmax(1)
    return softmax(logits * temperature).astype(np.float32), labels


def answers(rows: np.ndarray, labels: np.ndarray, groups: list[str] | None = None) -> LabelledAnswers:
    return LabelledAnswers(rows, labels, groups or [f"g{i}" for i in range(len(labels))])


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.8, 4.0])
def test_a_planted_temperature_is_recovered(temperature):
    assert fit_temperature(*planted(20_000, temperature, 1)) == pytest.approx(temperature, rel=0.03)
    small = [fit_temperature(*planted(240, temperature, seed)) for seed in range(40)]
    assert np.mean(small) == pytest.approx(temperature, rel=0.06)
    assert np.std(small) < 0.2 * temperature


@pytest.mark.parametrize("seed", range(5))
def test_no_other_temperature_has_a_lower_loss(seed):
    rows, labels = planted(300, 0.6, seed)
    best = fit_temperature(rows, labels)
    losses = [log_loss(tempered(rows, best * factor), labels) for factor in (1.0, 0.5, 0.9, 0.999, 1.001, 1.1, 2.0)]
    assert min(losses) == losses[0]


def test_a_temperature_stays_within_its_bounds():
    rows, labels = planted(400, 0.01, 1)
    assert fit_temperature(rows, labels) == COOLEST
    assert fit_temperature(np.eye(3)[np.arange(90) % 3], (np.arange(90) + 1) % 3) == WARMEST


def test_the_error_of_a_smoothed_ensemble_falls_on_other_photos():
    """Three networks that are unsure, each of other things: their mean is less sure than any of them."""
    draw = np.random.default_rng(7)
    logits = draw.normal(0, 3, (1000, 6))
    labels = (softmax(logits).cumsum(1) > draw.random((1000, 1))).argmax(1)
    networks = [softmax(0.5 * (logits + draw.normal(0, 1, logits.shape))) for _ in range(3)]
    rows = np.mean(networks, 0)
    found, why = calibrate(answers(rows[:300], labels[:300]))
    test = answers(rows[300:], labels[300:])
    effect = effect_on_test(found, test)
    assert not why
    assert found.temperature < 0.7
    assert effect["before"]["ece_debiased"] > 0.1
    assert effect["after"]["ece_debiased"] < 0.04
    assert effect["after"]["log_loss"] < effect["before"]["log_loss"]
    np.testing.assert_array_equal(found.apply(test.probabilities).argmax(1), test.probabilities.argmax(1))


@pytest.mark.parametrize(
    ("photos", "groups", "right", "why"),
    [
        (0, None, 0, "there are no validation photos to fit a temperature to"),
        (49, None, 40, "49 photos are too few to fit a temperature to, which takes 50"),
        (100, 20, 80, "100 photos of 20 objects are too few to fit a temperature to, which takes 50"),
        (60, None, 60, "all of 60 validation photos are answered correctly, which says nothing about a temperature"),
    ],
)
def test_too_few_photos_or_mistakes_keep_the_probabilities(photos, groups, right, why):
    rows = np.tile([[0.6, 0.4]], (photos, 1))
    labels = (np.arange(photos) >= right).astype(int)
    named = [f"g{i % groups}" for i in range(photos)] if groups else None
    found, reason = calibrate(answers(rows, labels, named) if photos else None)
    assert (found.temperature, reason) == (1.0, why)
    assert bool(found.levels) == bool(photos)
    effect = effect_on_test(found, answers(np.array([[0.6, 0.4]]), np.array([0])))
    facts = found.to_dict() | {"reason": reason, "source": ""} | effect
    assert f"(temperature 1): {why}." in calibration_lines(facts)[0]


# --- none of these ------------------------------------------------------------------------------------------------


def drawn(photos: int, seed: int, each: int = 1) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Confidences from 0.3 to 1, each the probability of a hit; ``each`` photos of an object are answered alike."""
    draw = np.random.default_rng(seed)
    confidence = np.repeat(draw.uniform(0.3, 1, photos // each), each)
    hits = np.repeat(draw.random(photos // each), each) < confidence
    return confidence, hits, [f"g{i // each}" for i in range(len(hits))]


@pytest.mark.parametrize(
    ("wanted", "photos", "each", "often"),
    [(0.8, 250, 1, 0.7), (0.9, 1000, 1, 0.6), (0.8, 2000, 5, 0.8), (0.65, 400, 1, 0.9)],
)
def test_a_precision_is_reached_often_and_rarely_in_error(wanted, photos, each, often):
    """The true precision at threshold t is the mean of a uniform from t to 1; 0.65 is that of all photos."""
    broken, reached, draws = 0, 0, 200
    for seed in range(draws):
        level = Calibration(1.0, precision_levels(*drawn(photos, seed, each))).reached(wanted)
        if level is not None:
            reached += 1
            broken += (max(level.threshold, 0.3) + 1) / 2 < wanted
    assert reached >= often * draws
    assert broken <= 0.05 * draws


def share_in_error(wanted: float, photos: int, each: int, draws: int) -> float:
    """Return how often a threshold is chosen where every one's true precision is just below ``wanted``."""
    draw, groups, chosen = np.random.default_rng(1), [f"g{i // each}" for i in range(photos)], 0
    for _ in range(draws):
        confidence = np.repeat(draw.uniform(0.3, 1, photos // each), each)
        hits = np.repeat(draw.random(photos // each) < wanted - 1e-4, each)
        chosen += Calibration(1.0, precision_levels(confidence, hits, groups)).reached(wanted) is not None
    return chosen / draws


@pytest.mark.parametrize(("wanted", "photos", "each"), [(0.8, 250, 1), (0.8, 400, 4)])
def test_the_precision_holds_in_95_of_100_draws(wanted, photos, each, monkeypatch):
    """At the edge of the wanted precision, where errors are most frequent; 600 draws have a standard error of 0.9 %.
    Twice the risk would be seen."""
    assert 0.03 <= share_in_error(wanted, photos, each, 600) <= 0.055
    monkeypatch.setattr(calibration, "RISK", 0.1)
    assert share_in_error(wanted, photos, each, 300) > 0.055


@pytest.mark.slow
@pytest.mark.parametrize("photos", [100, 240, 1000])
@pytest.mark.parametrize("wanted", [0.8, 0.9, 0.98])
@pytest.mark.parametrize("each", [1, 4])
def test_the_precision_holds_in_95_of_100_draws_of_every_kind(wanted, photos, each):
    """1,500 draws: a standard error of 0.6 %."""
    assert share_in_error(wanted, photos, each, 1500) <= 0.062


def test_a_higher_precision_never_answers_more():
    for seed in range(30):
        found = Calibration(1.0, precision_levels(*drawn(300, seed)))
        assert found.reached(found.highest)
        assert found.reached(found.highest + 1e-9) is None
        asked = [found.reached(p).coverage for p in np.linspace(0.3, found.highest, 40)]
        assert asked == sorted(asked, reverse=True)
        assert all(level.lower <= level.precision for level in found.levels)


def test_copies_of_an_object_count_once():
    confidence, hits, groups = drawn(200, 1)
    once = precision_levels(confidence, hits, groups)
    many = precision_levels(np.repeat(confidence, 4), np.repeat(hits, 4), [g for g in groups for _ in range(4)])
    assert [level.threshold for level in many] == [level.threshold for level in once]
    np.testing.assert_allclose([level.lower for level in many], [level.lower for level in once])
    alone = precision_levels(np.repeat(confidence, 4), np.repeat(hits, 4), [str(i) for i in range(800)])
    assert all(a.lower > b.lower for a, b in zip(alone, once, strict=True))


def test_the_bound_of_no_mistakes_is_exact():
    (level,) = precision_levels(np.linspace(0.5, 0.9, 50), np.ones(50, bool), [str(i) for i in range(50)])
    assert (level.threshold, level.coverage, level.precision) == (0.0, 1.0, 1.0)
    assert level.lower == pytest.approx(0.05 ** (1 / 50))


def test_the_lines_say_what_changes_and_what_is_out_of_reach():
    rows, labels = planted(600, 0.5, 3)
    rows = np.where(np.arange(600)[:, None] % 2, rows, 0.9 * np.eye(6, dtype=np.float32)[labels] + 0.1 / 6)
    found, why = calibrate(answers(rows[:300], labels[:300]))
    facts = found.to_dict() | {"reason": why, "source": "300 photos"}
    first, *wanted, last = calibration_lines(facts | effect_on_test(found, answers(rows[300:], labels[300:])))
    assert first.startswith(f"Temperature {found.temperature:.3f}, fitted on 300 photos: on test the winner's ECE")
    assert wanted[0].startswith("Precision 80 % wanted, threshold 0.")
    assert last.startswith(
        "Higher precisions are out of reach: with 95 % confidence, 300 validation photos show at most 9"
    )
    assert not any("|" in line for line in [first, *wanted, last])
    assert calibration_lines(None) == []


@pytest.mark.parametrize("wanted", [0.8, 0.9])
def test_the_precision_holds_for_the_best_of_many_trials(wanted):
    """Of 40 equal trials the photos choose the one with the most hits; without a correction a fifth or more miss."""
    draws, broken, uncorrected = 100, 0, 0
    for seed in range(draws):
        trials = [drawn(400, 1000 * seed + trial) for trial in range(40)]
        best = max(trials, key=lambda trial: trial[1].sum())
        for chosen_among in (1, 40):
            level = Calibration(1.0, precision_levels(*best, chosen_among)).reached(wanted)
            missed = level is not None and (max(level.threshold, 0.3) + 1) / 2 < wanted
            broken, uncorrected = broken + (missed and chosen_among > 1), uncorrected + (missed and chosen_among == 1)
    assert broken <= 0.05 * draws
    assert uncorrected > broken


def test_certainties_that_differ_in_the_last_bit_are_equal():
    near = np.nextafter(1.0, 0)
    assert len({*certainty(np.array([[near, 1 - near], [1.0, 0.0]])).tolist()}) == 1
