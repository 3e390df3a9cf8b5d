"""Intervals, tests and the choice of a crop policy by the statistics of version 2, written from docs/statistics.md.

Shares no code with ``evaluation``: plain loops over photos and objects, one model at a time. A row of the leaderboard
is one network or one ensemble, so only photos and their groups vary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Figures = dict[str, float]
INTERVAL_FIGURES = (
    *("accuracy_low", "accuracy_high", "difference_low", "difference_high", "p_value"),
    *("macro_f1_low", "macro_f1_high", "ece_floor", "ece_debiased", "images", "groups"),
)
ASSUMED_CORRELATION, FEWEST_OBJECTS, LEAST_FREEDOM = 0.2, 10, 4.0
BINS = 15


def grouped_photos(probabilities: np.ndarray, whole: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> Figures:
    """Return ``INTERVAL_FIGURES`` of one model under one crop policy, photos of a group taken together."""
    answers, before = probabilities.argmax(axis=1), whole.argmax(axis=1)
    hits = [float(a == y) for a, y in zip(answers.tolist(), labels.tolist(), strict=True)]
    found = {"images": float(len(labels)), "groups": float(len({*groups}))}
    found["accuracy_low"], found["accuracy_high"] = accuracy(hits, groups)
    found["macro_f1_low"], found["macro_f1_high"] = _macro_f1(labels.tolist(), answers.tolist(), groups)
    found["ece_floor"], found["ece_debiased"] = _calibration(probabilities, labels)
    if probabilities is whole:
        return found | {"difference_low": 0.0, "difference_high": 0.0, "p_value": 1.0}
    gains = [h - float(b == y) for h, b, y in zip(hits, before.tolist(), labels.tolist(), strict=True)]
    if not _enough(groups):
        return found | {"difference_low": math.nan, "difference_high": math.nan, "p_value": math.nan}
    variance, freedom = _difference_variance(gains, groups)
    middle = math.fsum(gains) / (len(gains) + 2)
    half = _quantile(freedom) * math.sqrt(variance)
    bounds = {"difference_low": max(middle - half, -1.0), "difference_high": min(middle + half, 1.0)}
    return found | bounds | {"p_value": _flipped_signs(gains, groups)}


def cheapest_near_the_best(
    scores: Sequence[Mapping[str, Any]], correct: Mapping[str, np.ndarray], groups: Sequence[str]
) -> str:
    """Return the crop policy of version 2: the fewest crops among those near the most correct one.

    Near: its lead is at most (1 + e / sqrt 2) standard errors of the paired difference; e is Blom's expected maximum of
    as many standard normals as there are policies.
    """
    from scipy.stats import norm

    best = min(scores, key=lambda s: (-s["correct"], s["crops"], s["log_loss"], s["policy"]))
    count = len(scores)
    chance = float(norm.ppf((count - 0.375) / (count + 0.25))) / math.sqrt(2) if count > 1 else 0.0
    near = []
    for score in scores:
        own, leader = correct[score["policy"]], correct[best["policy"]]
        variance, _ = _difference_variance([float(b) - float(a) for a, b in zip(own, leader, strict=True)], groups)
        if (best["correct"] - score["correct"]) / score["total"] <= math.sqrt(variance) * (1 + chance):
            near.append(score)
    order = sorted(near, key=lambda s: (s["crops"], s["policy"] != "whole", -s["correct"], s["log_loss"], s["policy"]))
    return str(order[0]["policy"])


def _objects(values: Sequence[float], groups: Sequence[str]) -> list[tuple[float, int]]:
    """Return (sum of values, photos) of each group."""
    sums: dict[str, tuple[float, int]] = {}
    for value, group in zip(values, groups, strict=True):
        total, photos = sums.get(group, (0.0, 0))
        sums[group] = total + value, photos + 1
    return [*sums.values()]


def _enough(groups: Sequence[str]) -> bool:
    return len({*groups}) in (len(groups), *range(FEWEST_OBJECTS, len(groups)))


def _are_single(groups: Sequence[str]) -> bool:
    return len({*groups}) == len(groups)


def _squares(values: Sequence[float], groups: Sequence[str]) -> tuple[float, list[float]]:
    """Return the mean, and the square of each group's sum of deviations from it."""
    mean = math.fsum(values) / len(values)
    return mean, [(total - photos * mean) ** 2 for total, photos in _objects(values, groups)]


def _variance(values: Sequence[float], groups: Sequence[str]) -> float:
    """The cluster-robust variance of the mean."""
    _, squares = _squares(values, groups)
    number = len(squares)
    return math.fsum(squares) * number / max(number - 1, 1) / len(values) ** 2


def _freedom(values: Sequence[float], groups: Sequence[str]) -> float:
    """Satterthwaite's degrees of freedom, from the groups' squares."""
    _, squares = _squares(values, groups)
    number, total = len(squares), math.fsum(squares)
    most = float(max(number - 1, 1))
    spread = math.fsum(s * s for s in squares) - total * total / number
    found = LEAST_FREEDOM if total <= 0 else 2 * total * total / spread if spread > 1e-12 * total * total else most
    return min(max(found, min(LEAST_FREEDOM, most)), most)


def _quantile(freedom: float) -> float:
    from scipy.stats import norm, t

    return float(norm.ppf(0.975)) if math.isinf(freedom) else float(t.ppf(0.975, freedom))


def _size_seen(groups: Sequence[str]) -> float:
    sizes = [photos for _, photos in _objects([0.0] * len(groups), groups)]
    return math.fsum(size * size for size in sizes) / len(groups)


def _assumed_effect(groups: Sequence[str]) -> float:
    return 1 + (_size_seen(groups) - 1) * ASSUMED_CORRELATION


def _design_effect(values: Sequence[float], groups: Sequence[str]) -> float:
    n, mean = len(values), math.fsum(values) / len(values)
    above = n * n * _variance(values, groups) + _assumed_effect(groups)
    return above / (n * max(mean * (1 - mean), 0.0) + 1)


def accuracy(hits: Sequence[float], groups: Sequence[str]) -> tuple[float, float]:
    """Return the interval of a share: of all photos, or of those with one label or one answer."""
    n = len(hits)
    if _are_single(groups):
        return _score(hits, 1 / n, math.inf)
    if not _enough(groups):
        return _score(hits, _size_seen(groups) / n, math.inf)
    return _score(hits, _design_effect(hits, groups) / n, _freedom(hits, groups))


def _score(values: Sequence[float], per_share: float, freedom: float) -> tuple[float, float]:
    """Solve (mean - p)^2 = t^2 per_share p (1 - p) for p."""
    mean = math.fsum(values) / len(values)
    c = _quantile(freedom) ** 2 * per_share
    root = math.sqrt(max((2 * mean + c) ** 2 - 4 * (1 + c) * mean * mean, 0.0))
    low, high = (2 * mean + c - root) / (2 * (1 + c)), (2 * mean + c + root) / (2 * (1 + c))
    return min(max(min(low, mean), 0.0), 1.0), min(max(max(high, mean), 0.0), 1.0)


def _macro_f1(labels: Sequence[int], answers: Sequence[int], groups: Sequence[str]) -> tuple[float, float]:
    if not _enough(groups):
        return math.nan, math.nan
    names = sorted({*labels, *answers})
    f1, sizes = {}, {}
    for name in names:
        sizes[name] = labels.count(name) + answers.count(name)
        f1[name] = 2 * sum(y == a == name for y, a in zip(labels, answers, strict=True)) / sizes[name]
    figure = math.fsum(f1.values()) / len(names)
    n = len(labels)
    # Each photo touches at most the two classes that are its label and its answer.
    values = [
        figure + n / len(names) * math.fsum((2 * (y == a) - f1[k] * ((y == k) + (a == k))) / sizes[k] for k in {y, a})
        for y, a in zip(labels, answers, strict=True)
    ]
    return _score([figure] * n, _design_effect(values, groups) / n, _freedom(values, groups))


def _difference_variance(gains: Sequence[float], groups: Sequence[str]) -> tuple[float, float]:
    """Return the variance of a paired difference of two models, and its degrees of freedom."""
    n, number = len(gains), len({*groups})
    single = _are_single(groups)
    mean = math.fsum(gains) / n
    robust = n * n * _variance(gains, groups) * ((number - 1) / number if single else 1.0)
    extra = _assumed_effect(groups) + 2 * n / (n + 2) * mean * mean
    return (robust + extra) / (n + 2) ** 2, math.inf if single else _freedom(gains, groups)


def _flipped_signs(gains: Sequence[float], groups: Sequence[str]) -> float:
    """The exact share of all signs of the groups' sums whose total is as far from 0 as the one seen."""
    sums = [round(total) for total, _ in _objects(gains, groups) if round(total)]
    chances = {0: 1.0}
    for size in sums:
        after: dict[int, float] = {}
        for total, chance in chances.items():
            for sign in (size, -size):
                after[total + sign] = after.get(total + sign, 0.0) + chance / 2
        chances = after
    return min(1.0, math.fsum(chance for total, chance in chances.items() if abs(total) >= abs(sum(sums))))


def _calibration(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return the calibration error of a perfectly calibrated model, and the measured one without its bias."""
    from scipy.stats import binom, norm

    bins: dict[int, list[tuple[float, bool]]] = {}
    for row, label in zip(probabilities.astype(float), labels.tolist(), strict=True):
        confidence = float(row.max())
        place = min(max(math.ceil(confidence * BINS), 1), BINS)
        bins.setdefault(place, []).append((confidence, int(row.argmax()) == label))
    floor = measured = again = 0.0
    for photos in bins.values():
        n = len(photos)
        stated, right = math.fsum(c for c, _ in photos) / n, sum(hit for _, hit in photos) / n
        share = n / len(labels)
        counts, chance = np.arange(n + 1), min(stated, 1.0)
        floor += share * float(np.abs(counts - n * chance) @ binom.pmf(counts, n, chance)) / n
        gap, deviation = right - stated, math.sqrt(right * (1 - right) / n)
        measured += share * abs(gap)
        folded = abs(gap)
        if deviation > 0:
            z = gap / deviation
            folded = deviation * 2 * float(norm.pdf(z)) + gap * (1 - 2 * float(norm.cdf(-z)))
        again += share * folded
    return floor, max(0.0, 2 * measured - again)
