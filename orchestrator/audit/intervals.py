"""Intervals, tests and the choice of a crop policy by the statistics of versions 2 and 3, from docs/statistics.md.

Version 3 changed the intervals of accuracy and macro F1, and when intervals are withheld.

Shares no code with ``evaluation``: plain loops over photos and objects, one model at a time. A row of the leaderboard
is one network or one ensemble, so only photos and their groups vary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Figures = dict[str, float]
Interval = Callable[[float, float, float], tuple[float, float]]
"""The interval of a mean from it, its variance over mean (1 - mean), and its degrees of freedom."""
INTERVAL_FIGURES = (
    *("accuracy_low", "accuracy_high", "difference_low", "difference_high", "p_value"),
    *("macro_f1_low", "macro_f1_high", "ece_floor", "ece_debiased", "images", "groups"),
)
ASSUMED_CORRELATION, FEWEST_OBJECTS, LEAST_FREEDOM, MANY_PHOTOS_SEEN = 0.2, 10, 4.0, 2.0
BINS = 15


@dataclass(frozen=True)
class _Formulas:
    """What versions of the statistics differ in: whether groups have an interval, that of an accuracy, of macro F1."""

    is_known: Callable[[Sequence[str]], bool]
    accuracy: Interval
    macro_f1: Callable[[Sequence[int], Sequence[int], Sequence[str]], tuple[float, float]]


def grouped_photos(probabilities: np.ndarray, whole: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> Figures:
    """Return ``INTERVAL_FIGURES`` of one model under one crop policy, photos of a group taken together. Version 2."""
    return _figures(probabilities, whole, labels, groups, _formulas(2))


def smoothed_classes(
    probabilities: np.ndarray, whole: np.ndarray, labels: np.ndarray, groups: Sequence[str]
) -> Figures:
    """The same of version 3: Agresti and Coull's interval, macro F1 with more photos of each class, and any number of
    objects where a photo sees fewer than two photos of its own."""
    return _figures(probabilities, whole, labels, groups, _formulas(3))


def accuracy(hits: Sequence[float], groups: Sequence[str], version: int) -> tuple[float, float]:
    """Return the interval of a share by ``version`` of the statistics: of all photos, or of one class's alone."""
    formulas = _formulas(version)
    return _accuracy(hits, groups, formulas.is_known(groups), formulas.accuracy)


def _formulas(version: int) -> _Formulas:
    if version < 3:
        return _Formulas(_known, _score, _macro_f1)
    return _Formulas(_known_by_size, _centred, _smoothed_macro_f1)


def _figures(
    probabilities: np.ndarray, whole: np.ndarray, labels: np.ndarray, groups: Sequence[str], formulas: _Formulas
) -> Figures:
    answers, hits = _answers(probabilities, labels)
    known, unknown = formulas.is_known(groups), (math.nan, math.nan)
    bounds = {
        "accuracy": _accuracy(hits, groups, known, formulas.accuracy),
        "macro_f1": formulas.macro_f1(labels.tolist(), answers, groups) if known else unknown,
    }
    return _board(probabilities, whole, labels, groups, known) | _named(bounds)


def _named(bounds: Mapping[str, tuple[float, float]]) -> Figures:
    return {f"{name}_{side}": pair[i] for name, pair in bounds.items() for i, side in enumerate(("low", "high"))}


def _answers(probabilities: np.ndarray, labels: np.ndarray) -> tuple[list[int], list[float]]:
    answers = probabilities.argmax(axis=1).tolist()
    return answers, [float(a == y) for a, y in zip(answers, labels.tolist(), strict=True)]


def _board(
    probabilities: np.ndarray, whole: np.ndarray, labels: np.ndarray, groups: Sequence[str], known: bool
) -> Figures:
    """The figures that versions 2 and 3 compute alike; ``known``: whether there are enough objects."""
    found = {"images": float(len(labels)), "groups": float(len({*groups}))}
    found["ece_floor"], found["ece_debiased"] = _calibration(probabilities, labels)
    if probabilities is whole:
        return found | {"difference_low": 0.0, "difference_high": 0.0, "p_value": 1.0}
    if not known:
        return found | {"difference_low": math.nan, "difference_high": math.nan, "p_value": math.nan}
    (_, hits), (_, before) = _answers(probabilities, labels), _answers(whole, labels)
    gains = [h - b for h, b in zip(hits, before, strict=True)]
    variance, freedom = _difference_variance(gains, groups)
    middle = math.fsum(gains) / (len(gains) + 2)
    half = _quantile(freedom) * math.sqrt(variance)
    bounds = {"difference_low": max(middle - half, -1.0), "difference_high": min(middle + half, 1.0)}
    return found | bounds | {"p_value": _flipped_signs(gains, groups)}


def cheapest_near_the_best(
    scores: Sequence[Mapping[str, Any]], correct: Mapping[str, np.ndarray], groups: Sequence[str]
) -> str:
    """Return the crop policy of versions 2 and 3: the fewest crops among those near the most correct one.

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


def _known(groups: Sequence[str]) -> bool:
    """Whether version 2 gives figures of ``groups`` an interval."""
    return len({*groups}) in (len(groups), *range(FEWEST_OBJECTS, len(groups)))


def _known_by_size(groups: Sequence[str]) -> bool:
    """Whether version 3 does."""
    return len({*groups}) >= FEWEST_OBJECTS or _size_seen(groups) < MANY_PHOTOS_SEEN


def _accuracy(hits: Sequence[float], groups: Sequence[str], known: bool, interval: Interval) -> tuple[float, float]:
    n, mean = len(hits), math.fsum(hits) / len(hits)
    if _are_single(groups):
        return interval(mean, 1 / n, math.inf)
    if not known:
        return interval(mean, _size_seen(groups) / n, math.inf)
    return interval(mean, _design_effect(hits, groups) / n, _freedom(hits, groups))


def _score(mean: float, per_share: float, freedom: float) -> tuple[float, float]:
    """Solve (mean - p)^2 = t^2 per_share p (1 - p) for p."""
    c = _quantile(freedom) ** 2 * per_share
    root = math.sqrt(max((2 * mean + c) ** 2 - 4 * (1 + c) * mean * mean, 0.0))
    low, high = (2 * mean + c - root) / (2 * (1 + c)), (2 * mean + c + root) / (2 * (1 + c))
    return min(max(min(low, mean), 0.0), 1.0), min(max(max(high, mean), 0.0), 1.0)


def _centred(mean: float, per_share: float, freedom: float) -> tuple[float, float]:
    """Agresti & Coull 1998: as if t^2 per_share photos of a photo were added, half of them right."""
    added = _quantile(freedom) ** 2
    size = 1 / per_share + added
    middle = (mean / per_share + added / 2) / size
    half = _quantile(freedom) * math.sqrt(middle * (1 - middle) / size)
    return max(min(middle - half, mean), 0.0), min(max(middle + half, mean), 1.0)


def _smoothed_macro_f1(labels: Sequence[int], answers: Sequence[int], groups: Sequence[str]) -> tuple[float, float]:
    """The delta method with ``_size_seen`` more photos of each class at the model's accuracy, and not below that of the
    groups' sums of influences, each photo's taken from the mean of its label's."""
    n, names, more = len(labels), sorted({*labels, *answers}), _size_seen(groups)
    pairs = [*zip(labels, answers, strict=True)]
    hits = [float(y == a) for y, a in pairs]
    accuracy = math.fsum(hits) / n
    given = {k: labels.count(k) for k in names}
    chance = {}  # of answering j where the label is k
    for k in names:
        for j in names:
            assumed = accuracy if j == k else (1 - accuracy) / (len(names) - 1)
            chance[k, j] = (pairs.count((k, j)) + more * assumed) / (given[k] + more)
    sizes = {j: given[j] + math.fsum(given[k] * chance[k, j] for k in names) for j in names}
    f1 = {k: 2 * given[k] * chance[k, k] / sizes[k] for k in names}
    variance = 0.0
    for k in names:
        effects = {j: (2 - 2 * f1[k]) / sizes[k] if j == k else -f1[k] / sizes[k] - f1[j] / sizes[j] for j in names}
        mean = math.fsum(chance[k, j] * effects[j] for j in names)
        variance += given[k] * math.fsum(chance[k, j] * (effects[j] - mean) ** 2 for j in names) / len(names) ** 2
    heavier = max(1.0, n * n * variance / max(n * accuracy * (1 - accuracy), 0.5))
    freedom = max(_freedom(hits, groups) / heavier, max(min(LEAST_FREEDOM, len({*groups}) - 1), 1))
    variance *= 1.0 if _are_single(groups) else _design_effect(hits, groups)
    figure, influences = _influences(labels, answers)
    means = {
        k: math.fsum(v for v, y in zip(influences, labels, strict=True) if y == k) / max(given[k], 1) for k in names
    }
    within = [v - means[y] for v, y in zip(influences, labels, strict=True)]
    variance = max(variance, _variance(within, groups))
    per_share = (n * n * variance + _assumed_effect(groups)) / (n * max(figure * (1 - figure), 0.0) + 1) / n
    return _centred(figure, per_share, freedom)


def _macro_f1(labels: Sequence[int], answers: Sequence[int], groups: Sequence[str]) -> tuple[float, float]:
    figure, influences = _influences(labels, answers)
    values = [figure + each for each in influences]
    return _score(figure, _design_effect(values, groups) / len(labels), _freedom(values, groups))


def _influences(labels: Sequence[int], answers: Sequence[int]) -> tuple[float, list[float]]:
    """Return macro F1, and what each photo adds to it to first order."""
    names = sorted({*labels, *answers})
    f1, sizes = {}, {}
    for name in names:
        sizes[name] = labels.count(name) + answers.count(name)
        f1[name] = 2 * sum(y == a == name for y, a in zip(labels, answers, strict=True)) / sizes[name]
    # Each photo touches at most the two classes that are its label and its answer.
    values = [
        len(labels) / len(names) * math.fsum((2 * (y == a) - f1[k] * ((y == k) + (a == k))) / sizes[k] for k in {y, a})
        for y, a in zip(labels, answers, strict=True)
    ]
    return math.fsum(f1.values()) / len(names), values


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
