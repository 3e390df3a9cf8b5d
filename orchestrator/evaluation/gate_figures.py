"""The figures of the promotion gate: challenger against champion, a bound, and how often it errs. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from orchestrator.evaluation.intervals import (
    PairedDifference,
    difference_bounds,
    difference_p,
    difference_spread,
    grouped_interval,
    has_interval,
    macro_f1_interval,
    paired_difference,
)
from orchestrator.evaluation.leaderboard import signed
from orchestrator.evaluation.variance import Components, Groups, components
from orchestrator.objectives import ACCURACY, MACRO_F1, OBJECTIVES
from trainers.metrics import Z_95, macro_f1, macro_f1_influence

WRONG_PROMOTIONS = 0.015
"""Maximum share of promotions of a model that is worse by exactly the margin."""


@dataclass(frozen=True)
class GateFigures:
    """``challenger``, ``champion``: their figure with its interval, in words. ``lower_bound``: one-sided, of the
    difference, at ``confidence`` percent. ``standard_error``: of the difference. NaN for too few groups."""

    words: str
    challenger: str
    champion: str
    size: str
    difference: PairedDifference
    lower_bound: float
    standard_error: float
    margin: float
    same_answers: bool

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

    def pass_rate(self, gain: float) -> float:
        """Return the share in which a challenger truly better by ``gain`` passes at this standard error."""
        needed = max(NormalDist().inv_cdf(1 - WRONG_PROMOTIONS) - self.margin / self.standard_error, -Z_95)
        return NormalDist().cdf(gain / self.standard_error - needed)

    @property
    def error_rates(self) -> str:
        """State how often the gate passes models better, equal and worse, at this test size."""
        better, equal, worse = (f"{100 * self.pass_rate(gain):.0f} %" for gain in (self.margin, 0.0, -self.margin))
        points = f"{100 * self.margin:g} points"
        return (
            f"At this test size the gate passes a model {points} better in {better}, an equal one in {equal} and one "
            f"{points} worse in {worse} of cases."
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
    lower, error, paired = math.nan, math.nan, PairedDifference(float(parts.mean), math.nan, math.nan, math.nan)
    if has_interval(grouped):
        shape = difference_spread(parts, grouped, estimated=f1)
        error = math.sqrt(float(shape.photos))
        lower = float(difference_bounds(parts, grouped, 1 - 2 * WRONG_PROMOTIONS, estimated=f1)[0])
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
        standard_error=error,
        margin=margin,
        same_answers=bool((champion == challenger).all()),
    )


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
