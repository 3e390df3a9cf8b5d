"""Choose the crop policy on validation: the cheapest that is not clearly worse than the best. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from orchestrator.evaluation.intervals import difference_spread
from orchestrator.evaluation.selection import WHOLE
from orchestrator.evaluation.variance import Groups, difference_components


@dataclass(frozen=True)
class PolicyScore:
    """One crop policy on validation: ``correct`` of ``total`` images, ``log_loss`` in nats, ``crops`` per image."""

    policy: str
    correct: int
    total: int
    log_loss: float
    crops: int


@dataclass(frozen=True)
class PolicyChoice:
    """The chosen policy's name and the reason."""

    policy: str
    reason: str


def choose_policy(
    scores: Iterable[PolicyScore], correct: Mapping[str, np.ndarray], groups: Sequence[str] | None = None
) -> PolicyChoice:
    """Choose the policy with the fewest crops among those as good as the most accurate within chance.

    ``correct``: policy -> bool (images,), the same images in the same order; ``groups``: of each image, None if all are
    independent. The standard error is that of the paired difference from the best (Breiman et al. 1984, section 3.4.3,
    whose rule is unpaired), and the lead that the best of k equal policies has by chance is allowed for, too. Among
    equally cheap ones: ``whole``, then more correct images, the lower log loss, the name.

    Raises ValueError unless ``whole`` is among them and all were measured on the same number of images, at least 1.
    """
    ranked = sorted(scores, key=lambda s: (-s.correct, s.crops, _last(s.log_loss), s.policy))
    whole = next((s for s in ranked if s.policy == WHOLE), None)
    if whole is None:
        raise ValueError(f"`{WHOLE}` must be among the policies; got {[s.policy for s in ranked]}")
    if whole.total <= 0 or any(s.total != whole.total or len(correct[s.policy]) != s.total for s in ranked):
        raise ValueError(f"all policies need the same images, at least 1; got {[s.total for s in ranked]}")
    grouped, best = Groups.of(groups, whole.total), ranked[0]
    bounds = {s.policy: _bound(correct[s.policy], correct[best.policy], grouped, len(ranked)) for s in ranked}
    near = [s for s in ranked if (best.correct - s.correct) / s.total <= bounds[s.policy]]
    chosen = min(near, key=lambda s: (s.crops, s.policy != WHOLE, -s.correct, _last(s.log_loss), s.policy))
    return PolicyChoice(chosen.policy, _reason(chosen, best, whole, ranked))


def _bound(correct: np.ndarray, best: np.ndarray, groups: Groups, policies: int) -> float:
    """Return the largest lead of the best, as a fraction, at which another policy counts as equal.

    (1 + e_k / sqrt 2) standard errors of their difference: one, and the lead that the best of k equal and independent
    figures has over another; e_k is the expected maximum of k standard normals (Blom 1958, eq. 6.10).
    """
    parts = difference_components(correct[None], best[None], groups)
    error = math.sqrt(float(difference_spread(parts, groups).photos))
    lead = NormalDist().inv_cdf((policies - 0.375) / (policies + 0.25)) if policies > 1 else 0.0
    return error * (1 + lead / math.sqrt(2))


def _last(value: float) -> float:
    """Return ``value``, or infinity if it is not finite, so that unknown values sort last."""
    return value if math.isfinite(value) else math.inf


def _reason(chosen: PolicyScore, best: PolicyScore, whole: PolicyScore, ranked: Sequence[PolicyScore]) -> str:
    figure = f"{100 * chosen.correct / chosen.total:.2f} % ({chosen.correct} of {chosen.total} images)"
    if len(ranked) == 1:
        return f"{chosen.policy} is the only crop policy, with {figure} on validation."
    if chosen is not best:
        return (
            f"{chosen.policy}, {figure} on validation, is the cheapest ({_crops(chosen)}) of {len(ranked)} crop "
            f"policies that are as good as the best within chance, {best.policy} with {best.correct} ({_crops(best)})."
        )
    text = f"{chosen.policy} has the highest validation accuracy of {len(ranked)} crop policies, {figure}"
    if chosen is whole:
        return f"{text}, and none needs fewer crops ({chosen.crops})."
    more = chosen.correct - whole.correct
    why = "no cheaper one is as good within chance" if chosen.crops > whole.crops else "none needs fewer crops"
    return f"{text}, against {whole.correct} with {WHOLE}{f' (+{more})' if more else ''}; {why}."


def _crops(score: PolicyScore) -> str:
    return "1 crop" if score.crops == 1 else f"{score.crops} crops"
