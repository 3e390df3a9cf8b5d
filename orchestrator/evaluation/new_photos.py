"""Figures of a model on new labelled photos, and their difference from its figure on the test split. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.evaluation.calibration import CalibrationError, calibration_error
from orchestrator.evaluation.costs import Figure, mean_cost
from orchestrator.evaluation.intervals import (
    LEVEL,
    grouped_interval,
    has_interval,
    macro_f1_interval,
    score_bounds,
    wilson,
)
from orchestrator.evaluation.per_class import confused_pairs, per_class
from orchestrator.evaluation.variance import Components, Groups, components
from trainers.metrics import log_loss, macro_f1

CERTAIN_SHARE = 0.05
"""Figure of the test photos whose highest probability is below the limit of ``less_certain``."""
FAR_SHARE = 0.05
"""Share of the test photos that are farther from the training photos than the limit of ``Farness``."""
BISECTIONS = 40
"""Halvings in the search for a p-value: to 1e-12."""
WORST = 10
"""Number of mistakes, and of far photos, that are listed."""


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers on labelled photos. ``labels``: int (photos,), indices of ``classes``. ``probabilities``: float
    (photos, classes). ``groups``: each photo's group, as photos of one object or copies share it. ``distances``: float
    (photos,), from the training photos, None if they are not known."""

    classes: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    groups: Sequence[str]
    distances: np.ndarray | None = None

    @property
    def predicted(self) -> np.ndarray:
        return np.asarray(self.probabilities.argmax(1))


@dataclass(frozen=True, eq=False)
class TestAnswers:
    """What is known of the model's answers on its test split. ``correct``: bool (photos,). ``groups``: None if they are
    not known. ``certainty``: the highest probability of each photo, ``distances``: each photo's from the training
    photos; None if they are not known."""

    __test__ = False  # no test case of pytest

    correct: np.ndarray
    groups: Sequence[str] | None = None
    certainty: np.ndarray | None = None
    distances: np.ndarray | None = None


@dataclass(frozen=True)
class UnpairedDifference:
    """A share of the new photos minus that of the test split, its 95 % interval, and p; NaN for too few groups."""

    test: Figure
    test_photos: int
    test_groups: int
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.p_value)

    @property
    def exceeds_chance(self) -> bool:
        return self.p_value < 1 - LEVEL


@dataclass(frozen=True)
class Farness:
    """How far the new photos are from the training photos. ``limit``: the distance beyond which ``FAR_SHARE`` of the
    test photos are. ``share``: of the new photos beyond it. ``against_test``: its difference from the test photos'."""

    limit: float
    share: Figure
    against_test: UnpairedDifference

    @property
    def are_far(self) -> bool:
        """Whether more of the new photos are beyond the limit than chance explains."""
        return self.against_test.exceeds_chance and self.against_test.difference > 0


@dataclass(frozen=True, eq=False)
class Evaluation:
    """``photos`` of ``groups`` objects. ``classes``: of ``per_class``. ``confused``: of ``confused_pairs``. ``worst``:
    positions of the mistakes with the highest probability. ``against_test``, ``less_certain`` (share of the photos),
    ``test_less_certain`` (of the test photos, below the same limit), ``cost`` and ``farness``: None if what they need
    is not known. ``farthest``: positions of the photos beyond its limit, the farthest first."""

    photos: int
    groups: int
    accuracy: Figure
    macro_f1: Figure
    log_loss: float
    calibration: CalibrationError
    classes: pd.DataFrame
    confused: pd.DataFrame
    worst: tuple[int, ...]
    against_test: UnpairedDifference | None = None
    less_certain: float | None = None
    test_less_certain: Figure | None = None
    cost: Figure | None = None
    farness: Farness | None = None
    farthest: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Judged:
    """A model on new photos. ``model``: in words. ``paths``: of the photos, in the order of ``answers``. ``trained``,
    ``tested``: paths of photos left out because the model was trained or chosen, or tested, on them or on copies of
    them. ``unreadable``: path -> why it cannot be read."""

    model: str
    paths: Sequence[str]
    answers: Answers
    evaluation: Evaluation
    trained: Sequence[str] = ()
    tested: Sequence[str] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    @property
    def mistakes(self) -> list[dict[str, Any]]:
        """Return the mistakes with the highest probability: path, label, predicted, probability."""
        return [self._photo(i) for i in self.evaluation.worst]

    @property
    def farthest(self) -> list[dict[str, Any]]:
        """Return the photos that are farthest from the training photos: as ``mistakes``, and distance."""
        distances = self.answers.distances
        if distances is None:
            return []
        return [self._photo(i) | {"distance": float(distances[i])} for i in self.evaluation.farthest]

    def _photo(self, i: int) -> dict[str, Any]:
        answers, classes = self.answers, self.answers.classes
        return {
            "path": self.paths[i],
            "label": classes[answers.labels[i]],
            "predicted": classes[answers.predicted[i]],
            "probability": float(answers.probabilities[i].max()),
        }


def evaluate(answers: Answers, test: TestAnswers | None = None, costs: np.ndarray | None = None) -> Evaluation:
    """Judge ``answers``, at least one. ``costs``: float (classes, classes), of each label and answer."""
    labels, predicted, groups = answers.labels, answers.predicted, Groups.of(answers.groups, len(answers.labels))
    hits = predicted == labels
    certainty = answers.probabilities.max(1)
    wrong = np.flatnonzero(~hits)
    worst = wrong[np.argsort(-certainty[wrong], kind="stable")][:WORST]
    less_certain = test_less_certain = None
    if test is not None and test.certainty is not None:
        limit = np.quantile(test.certainty, CERTAIN_SHARE)
        less_certain, below = float((certainty < limit).mean()), test.certainty < limit
        interval = grouped_interval(below, Groups.of(test.groups, len(below)))
        test_less_certain = Figure(float(below.mean()), *interval)
    farness, farthest = None, tuple[int, ...]()
    if answers.distances is not None and test is not None and test.distances is not None:
        farness, farthest = how_far(answers.distances, groups, test)
    return Evaluation(
        photos=groups.images,
        groups=groups.count,
        accuracy=Figure(float(hits.mean()), *grouped_interval(hits, groups)),
        macro_f1=Figure(macro_f1(labels, predicted), *macro_f1_interval(labels, predicted, groups)),
        log_loss=log_loss(answers.probabilities, labels),
        calibration=calibration_error(answers.probabilities, labels),
        classes=per_class(labels, predicted, answers.classes, answers.groups),
        confused=confused_pairs(labels, predicted, answers.classes),
        worst=tuple(worst.tolist()),
        against_test=None if test is None else against_test(hits, groups, test),
        less_certain=less_certain,
        test_less_certain=test_less_certain,
        cost=None if costs is None else mean_cost(costs, labels, predicted, groups),
        farness=farness,
        farthest=farthest,
    )


def how_far(distances: np.ndarray, groups: Groups, test: TestAnswers) -> tuple[Farness, tuple[int, ...]]:
    """Compare distances from the training photos, float (photos,), with those of the test photos, ``test.distances``;
    return also the positions of the photos beyond the limit, at most ``WORST``.

    The limit is a quantile of the test photos (Sun et al. 2022, section 3), so its own error is that of the share of
    the test photos beyond it: the interval of ``unpaired_bounds`` has both.
    """
    assert test.distances is not None
    limit = float(np.quantile(test.distances, 1 - FAR_SHARE))
    far = distances > limit
    compared = against_test(far, groups, TestAnswers(test.distances > limit, test.groups))
    farthest = np.argsort(-distances, kind="stable")[: min(WORST, int(far.sum()))]
    share = Figure(float(far.mean()), *grouped_interval(far, groups))
    return Farness(limit, share, compared), tuple(farthest.tolist())


def against_test(hits: np.ndarray, groups: Groups, test: TestAnswers) -> UnpairedDifference:
    """Compare the accuracy on new photos, ``hits``: bool (photos,), with that on the test split, which has others; or
    another share, such as that of ``how_far``.

    p is that level at which the interval of ``unpaired_bounds`` just touches 0; by bisection.
    """
    test_groups = Groups.of(test.groups, len(test.correct))
    share = Figure(float(test.correct.mean()), *grouped_interval(test.correct, test_groups))
    gap = float(hits.mean()) - share.value
    low = high = p_value = math.nan
    if has_interval(groups) and has_interval(test_groups):
        before, after = components(test.correct[None], test_groups), components(hits[None], groups)

        def bounds(level: float) -> tuple[float, float]:
            found = unpaired_bounds(before, test_groups, after, groups, level)
            return float(found[0]), float(found[1])

        low, high = bounds(LEVEL)
        p_value = 1.0 if gap == 0 else _p_value(bounds)
    return UnpairedDifference(share, test_groups.images, test_groups.count, gap, low, high, p_value)


def _p_value(bounds: Callable[[float], tuple[float, float]]) -> float:
    least, most = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (least + most) / 2
        low, high = bounds(1 - middle)
        least, most = (least, middle) if low > 0 or high < 0 else (middle, most)
    return (least + most) / 2


def unpaired_bounds(
    first: Components, first_groups: Groups, second: Components, second_groups: Groups, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of mean(second) - mean(first) of independent photos; arrays over data sets.

    With the score intervals l, u of both: d - sqrt((p_2 - l_2)^2 + (u_1 - p_1)^2) and d + sqrt((u_2 - p_2)^2 + (p_1 -
    l_1)^2) (Newcombe 1998, Statistics in Medicine 17, 873-890, method 10; for any interval: Zou & Donner 2008,
    Statistics in Medicine 27).
    """
    low_1, high_1 = score_bounds(first, first_groups, level, wilson)
    low_2, high_2 = score_bounds(second, second_groups, level, wilson)
    gap = second.mean - first.mean
    below = np.sqrt((second.mean - low_2) ** 2 + (high_1 - first.mean) ** 2)
    above = np.sqrt((high_2 - second.mean) ** 2 + (first.mean - low_1) ** 2)
    return np.maximum(-1.0, gap - below), np.minimum(1.0, gap + above)
