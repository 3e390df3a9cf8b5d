"""Formulas of the audit, written without the code that they check: a leaderboard's figures, the choice of a winner.

Nothing here imports ``evaluation``, ``report`` or ``trainers.metrics``. The figures with an interval or a p follow the
version of the statistics that the leaderboard recorded (``STATISTICS``): a new version of ``evaluation.leaderboard``'s
formulas needs its own function here, under the next number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.audit import intervals

Figures = dict[str, float]
POINT_FIGURES = ("accuracy", "macro_f1", "log_loss", "ece", "images_per_s", "difference")
INTERVAL_FIGURES = ("accuracy_low", "accuracy_high", "difference_low", "difference_high", "p_value")
LEAST_PROBABILITY = 1e-7
CONFIDENCE_BINS = 15
TOLERANCE = 1e-7
"""Maximum difference of two equal figures, relative above 1: losses were computed in single precision up to 42b062d.
One photo of a million changes an accuracy by ten times that."""


def point_figures(probabilities: np.ndarray, whole: np.ndarray, labels: np.ndarray, seconds: float) -> Figures:
    """Return ``POINT_FIGURES`` of one model under one crop policy.

    ``probabilities``, ``whole``: (photos, classes), under the policy and under the policy whole. ``labels``: int
    (photos,). ``seconds``: for all photos, 0 if not measured.
    """
    answers, photos = probabilities.argmax(axis=1), len(labels)
    right = int(np.count_nonzero(answers == labels))
    before = int(np.count_nonzero(whole.argmax(axis=1) == labels))
    return {
        "accuracy": right / photos,
        "macro_f1": _macro_f1(labels, answers),
        "log_loss": log_loss(probabilities, labels),
        "ece": _calibration_error(probabilities, labels),
        "images_per_s": photos / seconds if seconds > 0 else math.nan,
        "difference": (right - before) / photos,
    }


def older_macro_f1(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the macro F1 of leaderboards from before 2026-11-29: over the classes in the labels alone."""
    return _macro_f1(labels, probabilities.argmax(axis=1), {*labels.tolist()})


def _macro_f1(labels: np.ndarray, answers: np.ndarray, classes: Collection[int] = ()) -> float:
    """The mean over ``classes`` (all that occur) of 2 precision recall / (precision + recall), 0 without a hit."""
    scores = []
    for name in sorted(classes or {*labels.tolist(), *answers.tolist()}):
        hits = int(((labels == name) & (answers == name)).sum())
        given, there = int((answers == name).sum()), int((labels == name).sum())
        precision, recall = hits / given if given else 0.0, hits / there if there else 0.0
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return math.fsum(scores) / len(scores)


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of -ln p(true class), p at least ``LEAST_PROBABILITY``."""
    rows = zip(probabilities.astype(float), labels.tolist(), strict=True)
    return math.fsum(-math.log(max(float(row[label]), LEAST_PROBABILITY)) for row, label in rows) / len(labels)


def _calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. 2017, eq. 3: over bins ((m - 1)/15, m/15] of the highest probability, |right - confidence| summed."""
    gaps: dict[int, list[float]] = {}
    for row, label in zip(probabilities.astype(float), labels.tolist(), strict=True):
        confidence = float(row.max())
        place = min(max(math.ceil(confidence * CONFIDENCE_BINS), 1), CONFIDENCE_BINS)
        gaps.setdefault(place, []).append(float(int(row.argmax()) == label) - confidence)
    return math.fsum(abs(math.fsum(each)) for each in gaps.values()) / len(labels)


def independent_photos(
    probabilities: np.ndarray, whole: np.ndarray, labels: np.ndarray, groups: Sequence[str]
) -> Figures:
    """Return ``INTERVAL_FIGURES`` that take photos as independent, whatever ``groups``, version 1.

    Accuracy: the roots of (p - x)^2 = z^2 x (1 - x) / n (Wilson 1927). Difference: Agresti & Min 2005, half a photo
    added to each cell of the 2 x 2 table. p: McNemar's exact test, two-sided.
    """
    from scipy.stats import binom, norm

    z = float(norm.ppf(0.975))
    hits, before = probabilities.argmax(axis=1) == labels, whole.argmax(axis=1) == labels
    n, right = len(labels), int(hits.sum())
    a, b, c = n + z * z, -(2 * right + z * z), right * right / n  # of a x^2 + b x + c = 0
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    figures = {"accuracy_low": (-b - root) / (2 * a), "accuracy_high": (-b + root) / (2 * a)}
    gained, lost = int((hits & ~before).sum()), int((before & ~hits).sum())
    if probabilities is whole:
        return figures | {"difference_low": 0.0, "difference_high": 0.0, "p_value": 1.0}
    total, up, down = n + 2, gained + 0.5, lost + 0.5
    middle = (up - down) / total
    half = z * math.sqrt((up + down) - (up - down) ** 2 / total) / total
    changed = gained + lost
    p_value = min(1.0, 2 * float(binom.cdf(min(gained, lost), changed, 0.5))) if changed else 1.0
    bounds = {"difference_low": max(middle - half, -1.0), "difference_high": min(middle + half, 1.0)}
    return figures | bounds | {"p_value": p_value}


STATISTICS: Mapping[int, Callable[[np.ndarray, np.ndarray, np.ndarray, Sequence[str]], Figures]] = {
    1: independent_photos,
    2: intervals.grouped_photos,
    3: intervals.smoothed_classes,
    4: intervals.smoothed_classes,
}
"""Version of the statistics, as the leaderboard records it -> the figures with an interval, from probabilities, those
under whole, labels and groups."""


def equal(recorded: float, computed: float) -> bool:
    """Whether two figures agree but for rounding, or are both unknown; see ``TOLERANCE``."""
    if math.isnan(recorded) or math.isnan(computed):
        return math.isnan(recorded) and math.isnan(computed)
    return abs(recorded - computed) <= TOLERANCE * max(1.0, abs(recorded))


# --- the choice on validation -------------------------------------------------------------------------------------


def best_trials(
    trials: Sequence[Mapping[str, Any]], best: str, at_least: Mapping[str, float], at_most: Mapping[str, float]
) -> list[str]:
    """Return the ids of the trials that may win, the best first.

    ``trials``: ``id``, the metrics of the last epoch by name, ``seconds`` of an epoch (the median). The best has the
    highest ``best`` (the lowest val_loss), then the lowest val_loss, the fewest seconds, the smallest id.
    """

    def sign(name: str) -> float:
        return 1.0 if name == "val_loss" else -1.0

    def known(value: float | None) -> float:
        return value if value is not None and math.isfinite(value) else math.inf

    within = [
        trial
        for trial in trials
        if math.isfinite(known(trial.get(best)))
        and all(known(trial.get(name)) != math.inf and trial[name] >= bound for name, bound in at_least.items())
        and all(known(trial.get(name)) <= bound for name, bound in at_most.items())
    ]
    order = sorted(
        within, key=lambda t: (sign(best) * t[best], known(t.get("val_loss")), known(t.get("seconds")), t["id"])
    )
    return [str(trial["id"]) for trial in order]


def most_correct_policy(
    scores: Sequence[Mapping[str, Any]], correct: Mapping[str, np.ndarray], groups: Sequence[str]
) -> str:
    """Return the crop policy with the most correct photos; ties: fewer crops, lower loss, name. Version 1."""
    return str(min(scores, key=lambda s: (-s["correct"], s["crops"], s["log_loss"], s["policy"]))["policy"])


POLICY_RULES: Mapping[int, Callable[[Sequence[Mapping[str, Any]], Mapping[str, np.ndarray], Sequence[str]], str]] = {
    1: most_correct_policy,
    2: intervals.cheapest_near_the_best,
    3: intervals.cheapest_near_the_best,
    4: intervals.cheapest_near_the_best,
}
"""Version of the statistics -> the rule that chooses the crop policy, from scores, policy -> bool (photos,), groups."""
