"""The figures of the promotion gate: challenger against champion, a bound, and how often it errs. Pure numpy.

The bound is the lower of that of Agresti & Min 2005, as in the tables, and of Tango's score interval of a paired
difference (1998, Statistics in Medicine 17, 891-908; for a margin: Liu et al. 2002, Statistics in Medicine 21). The
variance of the second is that under a true loss of just so much: a loss that is seen in few photos is seen in none of
them too often, and the variance estimated from such answers is too small.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from orchestrator.evaluation.intervals import (
    BISECTIONS,
    MIN_GROUP_DF,
    PairedDifference,
    difference_bounds,
    difference_p,
    grouped_interval,
    has_interval,
    macro_f1_interval,
    paired_difference,
    student,
)
from orchestrator.evaluation.leaderboard import signed
from orchestrator.evaluation.variance import Components, Groups, components
from orchestrator.objectives import ACCURACY, MACRO_F1, OBJECTIVES
from trainers.metrics import Z_95, macro_f1, macro_f1_influence

WRONG_PROMOTIONS = 0.015
"""Maximum share of promotions of a model that is worse by exactly the margin."""
NEEDED_Z = NormalDist().inv_cdf(1 - WRONG_PROMOTIONS)
"""Least score of a difference that passes, in standard errors: 2.17."""
WIDEST_MARGIN = 0.5
"""Largest margin that ``--margin`` takes."""
DEVIATIONS = 6
"""Standard deviations around the expected counts that an error rate is summed over."""


@dataclass(frozen=True)
class Evidence:
    """A paired difference, and how many independent photos would tell as much of it.

    ``difference``, ``disagreement``: of the figure, as fractions; what both models answer alike has no part in the
    second. ``photos``: as many as the variance seen. ``fewest``: as many if all that differs lay where photos tell
    least, in objects answered alike and in the smallest classes; at most ``photos``.
    """

    difference: float
    disagreement: float
    photos: float
    fewest: float

    @property
    def lower_bound(self) -> float:
        """The one-sided bound of the difference at ``WRONG_PROMOTIONS``; the gate passes what is above -margin."""
        low, high = -self.difference, 1.0
        for _ in range(BISECTIONS):
            loss = (low + high) / 2
            enough = bool(self._excludes(loss, np.asarray(self.difference), np.asarray(self.disagreement)))
            low, high = (low, loss) if enough else (loss, high)
        return -high

    def _excludes(self, loss: float, difference: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
        """Whether such results would exclude a loss of ``loss``.

        By the variance seen, and as if only the difference itself had been seen, where photos tell least: that little
        differs elsewhere says little of it.
        """
        n = self.photos
        variance = np.maximum(n * disagreement + 1 - (n * difference) ** 2 / (n + 2), 1e-12)
        adjusted = (n * difference + (n + 2) * loss) / np.sqrt(variance)
        seen = score(n, difference, disagreement, loss)
        alone = score(self.fewest, difference, np.abs(difference), loss)
        return np.asarray(np.minimum(np.minimum(adjusted, seen), alone) >= NEEDED_Z)

    def pass_rate(self, gain: float, margin: float) -> float:
        """Return the share in which a challenger truly better by ``gain`` passes, if models disagree as these do.

        The exact sum over the numbers of ``photos`` that only one of the two has right. One more disagreement than seen
        is assumed, of 2 photos more, as in the interval (Agresti & Min 2005).
        """
        from scipy.special import gammaln, xlogy  # SciPy: a second to import

        n = max(1, round(self.photos))
        differing = min(1.0, max((n * self.disagreement + 1) / (n + 2), abs(gain)))
        worse, better = (differing - gain) / 2, (differing + gain) / 2
        b, c = np.ix_(_likely(n, worse), _likely(n, better))
        rest = n - b - c
        logs = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(np.maximum(rest, 0) + 1)
        logs = logs + xlogy(b, worse) + xlogy(c, better) + xlogy(np.maximum(rest, 0), 1 - worse - better)
        change = c - b
        half = Z_95 * np.sqrt(np.maximum(b + c + 1 - change**2 / (n + 2), 0))
        is_lower = change + half < 0
        passes = self._excludes(margin, change / n, (b + c) / n) & ~is_lower & (rest >= 0)
        return float(np.exp(logs[passes]).sum())


def score(photos: float, difference: np.ndarray, disagreement: np.ndarray, loss: float) -> np.ndarray:
    """Return the standard errors by which ``difference`` is above -``loss``, its variance being that under the loss.

    Under it the second model alone is right in a share q and the first alone in q + loss. q has the highest likelihood
    (Tango 1998, section 2): the root of a quadratic.
    """
    differing = np.maximum(disagreement, np.abs(difference))
    worse, better = (differing - difference) / 2, (differing + difference) / 2
    linear = (worse + better) * (1 - loss) - 2 * better * loss - 2 * (1 - worse - better) * loss
    root = (linear + np.sqrt(np.maximum(linear**2 + 8 * better * loss * (1 - loss), 0))) / 4
    q = np.maximum(root, max(0.0, -loss))
    variance = np.maximum(2 * q + loss - loss**2, 1e-12) / photos
    return np.asarray((difference + loss) / np.sqrt(variance))


def _likely(n: int, share: float) -> np.ndarray:
    """Return the counts of n within ``DEVIATIONS`` of the expected one, float64."""
    reach = DEVIATIONS * math.sqrt(n * share * (1 - share)) + DEVIATIONS**2
    return np.arange(max(0, math.floor(n * share - reach)), min(n, math.ceil(n * share + reach)) + 1.0)


def fewest_photos(sizes: np.ndarray, margin: float) -> float:
    """Return the number n of photos of which (1 - margin)^n is the largest probability that no loss is seen.

    ``sizes``: photos of each class, int (classes,). Of all losses of recall r_k whose mean is the margin, it is the one
    seen least: r_k = max(0, 1 - n_k / c), all in the smallest classes. Equal sizes: the sum of ``sizes``.
    """
    total, n = len(sizes) * margin, np.asarray(sizes, np.float64)
    low, high = n.min(), n.max() / (1 - margin)
    for _ in range(BISECTIONS):
        c = (low + high) / 2
        low, high = (c, high) if np.maximum(0, 1 - n / c).sum() < total else (low, c)
    return float((n * np.log(np.minimum(1, n / high))).sum() / math.log1p(-margin))


@dataclass(frozen=True)
class GateFigures:
    """``challenger``, ``champion``: their figure with its interval, in words. ``lower_bound``: one-sided, of the
    difference, at ``confidence`` percent; NaN for too few groups. ``photos_for_equal``, ``margin_for_equal``: the test
    photos and the margin with which equal answers would pass."""

    words: str
    challenger: str
    champion: str
    size: str
    difference: PairedDifference
    lower_bound: float
    evidence: Evidence
    margin: float
    same_answers: bool
    photos_for_equal: int
    margin_for_equal: float

    @property
    def confidence(self) -> str:
        return f"{100 * (1 - WRONG_PROMOTIONS):g}"

    @property
    def is_known(self) -> bool:
        return math.isfinite(self.lower_bound)

    @property
    def is_significantly_lower(self) -> bool:
        return self.difference.high < 0

    @property
    def is_within_margin(self) -> bool:
        return self.lower_bound > -self.margin and not self.is_significantly_lower

    @property
    def difference_words(self) -> str:
        gap = f"{signed(self.difference.difference)} points"
        if not self.is_known:
            return gap
        between = f"95 % {signed(self.difference.low)} to {signed(self.difference.high)}"
        return f"{gap} ({between}), p = {self.difference.p_value:.3g}"

    @property
    def is_too_small(self) -> bool:
        """Whether equal answers would not pass."""
        return self.margin_for_equal > self.margin

    def pass_rate(self, gain: float) -> float:
        """Return the share in which a challenger truly better by ``gain`` passes."""
        return self.evidence.pass_rate(gain, self.margin)

    @property
    def error_rates(self) -> str:
        """State how often the gate passes models better, equal and worse, at this test size."""
        better, equal, worse = (100 * self.pass_rate(gain) for gain in (self.margin, 0.0, -self.margin))
        points = f"{100 * self.margin:g} points"
        return (
            f"At this test size the gate passes a model {points} better in {better:.0f} %, an equal one in {equal:.0f} "
            f"% and one {points} worse in {worse:.1f} % of cases."
        )


def compare_answers(
    labels: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    groups: Sequence[str],
    objective: str,
    margin: float,
) -> GateFigures:
    """Compare the challenger's answers with the champion's, all int (images,), in the sweep's own objective.

    Macro F1 is compared by macro F1. Other objectives are compared by accuracy, and ``words`` says so: a registered
    model keeps its answers, not its probabilities.
    """
    grouped = Groups.of(groups, len(labels))
    f1 = objective == MACRO_F1
    before, after = (_values(labels, answers, f1) for answers in (champion, challenger))
    parts = components((after - before)[None], grouped)
    differing = (champion == labels) != (challenger == labels)
    if f1:
        differing = differing * _class_weights(labels, np.where(champion == labels, challenger, champion))
        parts = replace(parts, photos=np.maximum(parts.photos, _f1_variance(labels, differing, grouped)))
    lower, paired = math.nan, PairedDifference(float(parts.mean), math.nan, math.nan, math.nan)
    evidence = _evidence(parts, grouped, float(differing.mean()), _fewest(labels, grouped, f1, margin))
    if has_interval(grouped):
        lower = evidence.lower_bound
        paired = _f1_difference(parts, grouped) if f1 else paired_difference(before == 1, after == 1, grouped)
    words = "macro F1" if f1 else "accuracy"
    if objective not in (ACCURACY, MACRO_F1):
        words += f" (the objective, {OBJECTIVES[objective].words}, cannot be computed from answers)"
    return GateFigures(
        words=words,
        challenger=_figure(labels, challenger, grouped, f1),
        champion=_figure(labels, champion, grouped, f1),
        size=f"{len(labels)} test images" + ("" if grouped.are_single else f" of {grouped.count} objects"),
        difference=paired,
        lower_bound=lower,
        evidence=evidence,
        margin=margin,
        same_answers=bool((champion == challenger).all()),
        photos_for_equal=math.ceil(len(labels) * NEEDED_Z**2 * (1 - margin) / margin / evidence.fewest),
        margin_for_equal=_margin_for_equal(labels, grouped, f1, margin),
    )


def _evidence(parts: Components, groups: Groups, disagreement: float, fewest: float) -> Evidence:
    """The design effect is that of the variance seen, with Student's t and one disagreement at the largest effect
    added, or the largest where that is smaller. Independent photos have 1."""
    n, difference = groups.images, float(parts.mean)
    worst, disagreement = n / fewest, max(disagreement, abs(difference))
    independent = max(n * (disagreement - difference**2), 0.0)
    effect = (n**2 * float(parts.photos) + worst) / (independent + 1)
    t = float(student(parts.photo_df(groups, MIN_GROUP_DF), 1 - 2 * WRONG_PROMOTIONS))
    return Evidence(difference, disagreement, n / min(worst, effect * (t / NEEDED_Z) ** 2), fewest)


def _f1_variance(labels: np.ndarray, cost: np.ndarray, groups: Groups) -> float:
    """Return the least variance of a difference in macro F1: that of independent photos, with photos that differ as
    often as all do added to each class, so that no small class is taken for certain (as in ``macro_f1_variance``).

    ``cost``: of each image that differs, as ``_class_weights``, else 0, float64 (images,).
    """
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    added, most = groups.weighted_size, len(labels) / (len(counts) * counts)
    seen = np.bincount(place, weights=cost**2) + added * most**2 * (cost > 0).mean()
    variance = (counts * seen / (counts + added)).sum() / len(labels) ** 2
    return float(max(0.0, variance - cost.mean() ** 2 / len(labels)))


def _fewest(labels: np.ndarray, groups: Groups, f1: bool, margin: float) -> float:
    """Return ``Evidence.fewest``."""
    photos = fewest_photos(np.unique(labels, return_counts=True)[1], margin) if f1 else len(labels)
    return photos / groups.weighted_size


def _margin_for_equal(labels: np.ndarray, groups: Groups, f1: bool, margin: float) -> float:
    """Return ``margin`` if equal answers pass with it, else the smallest of tenths of a point, or infinity."""

    def is_enough(tried: float) -> bool:
        return _fewest(labels, groups, f1, tried) * tried / (1 - tried) >= NEEDED_Z**2

    if is_enough(margin):
        return margin
    wider = [thousandths / 1000 for thousandths in range(1, round(1000 * WIDEST_MARGIN) + 1)]
    place = bisect_left(wider, True, key=is_enough)
    return wider[place] if place < len(wider) else math.inf


def _class_weights(labels: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return what a mistake costs of macro F1, relative to accuracy: half in the label's class, half in the answer's.

    ``wrong``: the answers of the one that may be wrong, int (images,).
    """
    names, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    of = dict(zip(names.tolist(), counts.tolist(), strict=True))
    answered = np.array([of.get(answer, size) for answer, size in zip(wrong.tolist(), counts[place], strict=True)])
    return np.asarray(len(labels) / len(names) * (1 / counts[place] + 1 / answered) / 2)


def _values(labels: np.ndarray, answers: np.ndarray, f1: bool) -> np.ndarray:
    """Return values of the images whose mean is the figure."""
    if not f1:
        return (answers == labels).astype(np.float64)
    figure, influence = macro_f1_influence(labels, answers)
    return np.asarray(figure + influence)


def _f1_difference(parts: Components, groups: Groups) -> PairedDifference:
    low, high = difference_bounds(parts, groups, estimated=True)
    p_value = float(difference_p(parts, groups, estimated=True))
    return PairedDifference(float(parts.mean), float(low), float(high), p_value)


def _figure(labels: np.ndarray, answers: np.ndarray, groups: Groups, f1: bool) -> str:
    if f1:
        share, (low, high) = macro_f1(labels, answers), macro_f1_interval(labels, answers, groups)
    else:
        share, (low, high) = float((answers == labels).mean()), grouped_interval(answers == labels, groups)
    shown = f"{100 * share:.1f} %"
    return f"{shown} ({100 * low:.1f} to {100 * high:.1f})" if math.isfinite(low) else shown


def exceeds_largest_class(labels: np.ndarray, right: np.ndarray, groups: Sequence[str]) -> tuple[str, float, bool]:
    """Return the most frequent label, its share, and whether the model is better than always answering it.

    Better: the lower bound of the paired difference is above 0; with too few groups, the difference.
    """
    names, counts = np.unique(labels, return_counts=True)
    name = names[counts.argmax()]
    paired = paired_difference(labels == name, right, Groups.of(groups, len(labels)))
    least = paired.low if math.isfinite(paired.low) else paired.difference
    return str(name), float(counts.max() / len(labels)), least > 0
