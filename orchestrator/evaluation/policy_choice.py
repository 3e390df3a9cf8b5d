"""Choose the crop policy, and the winner's form, on validation: the cheapest not clearly worse than the best. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from orchestrator.evaluation.intervals import difference_spread
from orchestrator.evaluation.selection import WHOLE
from orchestrator.evaluation.variance import Groups, difference_components
from trainers.wording import count


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


@dataclass(frozen=True)
class FormScore:
    """One form of the winner on validation: ``correct`` of ``total`` images, ``log_loss`` in nats, ``networks`` that
    predict each image."""

    form: str
    correct: int
    total: int
    log_loss: float
    networks: int


@dataclass(frozen=True)
class FormChoice:
    """The chosen form's name and the reason."""

    form: str
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
    best = ranked[0]
    as_good = _as_good_as(best.policy, {s.policy: correct[s.policy] for s in ranked}, groups)
    near = [s for s in ranked if s.policy in as_good]
    chosen = min(near, key=lambda s: (s.crops, s.policy != WHOLE, -s.correct, _last(s.log_loss), s.policy))
    return PolicyChoice(chosen.policy, _reason(chosen, best, whole, ranked))


def choose_form(
    scores: Iterable[FormScore], correct: Mapping[str, np.ndarray], groups: Sequence[str] | None = None
) -> FormChoice:
    """Choose the form with the fewest networks among those as good as the most accurate within chance.

    By the rule of ``choose_policy``, whose arguments these are. Among equally cheap ones: more correct images, the
    lower log loss, the name. Raises ValueError unless all were measured on the same number of images, at least 1.
    """
    ranked = sorted(scores, key=lambda s: (-s.correct, s.networks, _last(s.log_loss), s.form))
    if not ranked or ranked[0].total <= 0 or any(len(correct[s.form]) != ranked[0].total for s in ranked):
        raise ValueError(f"all forms need the same images, at least 1; got {[s.total for s in ranked]}")
    best = ranked[0]
    as_good = _as_good_as(best.form, {s.form: correct[s.form] for s in ranked}, groups)
    near = [s for s in ranked if s.form in as_good]
    chosen = min(near, key=lambda s: (s.networks, -s.correct, _last(s.log_loss), s.form))
    figure = f"{100 * chosen.correct / chosen.total:.2f} % ({chosen.correct} of {chosen.total} images)"
    if len(ranked) == 1:
        return FormChoice(chosen.form, f"{chosen.form} is the only form, with {figure} on validation.")
    networks = count(chosen.networks, "network")
    if chosen is not best:
        others = f"{best.form} with {best.correct} ({count(best.networks, 'network')})"
        text = f"{chosen.form}, {figure} on validation, is the cheapest ({networks}) of {len(ranked)} forms"
        return FormChoice(chosen.form, f"{text} that are as good as the best within chance, {others}.")
    cheaper = any(s.networks < chosen.networks for s in ranked)
    why = "no cheaper one is as good within chance" if cheaper else f"none needs fewer than {networks}"
    text = f"{chosen.form} has the highest validation accuracy of {len(ranked)} forms, {figure}, and {why}."
    return FormChoice(chosen.form, text)


def _as_good_as(best: str, correct: Mapping[str, np.ndarray], groups: Sequence[str] | None) -> list[str]:
    """Return the names in ``correct`` whose accuracy is below that of ``best`` by no more than ``_bound``."""
    grouped = Groups.of(groups, len(correct[best]))
    return [
        name
        for name, hits in correct.items()
        if (int(correct[best].sum()) - int(hits.sum())) / len(hits)
        <= _bound(hits, correct[best], grouped, len(correct))
    ]


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
