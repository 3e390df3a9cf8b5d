"""Select the winning trial. Pure: rows in, a choice and its reason out. Crop policies: ``policy_choice``.

By default the most accurate trial wins; with a ``SelectionRule``, the best in one figure among those within bounds.

Only validation figures are used. No function here has a parameter for a test figure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import NoWinner
from orchestrator.evaluation.selection_bias import corrected_accuracy
from orchestrator.objectives import ACCURACY, LOSS, MACRO_F1, OBJECTIVES, SPEED, front_of
from trainers.wording import count

COMPLETED = "COMPLETED"
WHOLE = "whole"
"""Name of the baseline policy, one view of the whole image; every choice among policies includes it."""


@dataclass(frozen=True)
class Candidate:
    """One trial's figures for selection.

    ``val_accuracy`` in [0, 1] and ``val_loss`` (nats) are the last epoch's, NaN if unknown. ``val_correct`` and
    ``val_total`` (images), if given, determine the accuracy, and the reason quotes them. ``cost``: seconds per unit
    shared by all candidates (an image, an epoch); NaN is unknown. ``val_macro_f1`` in [0, 1] and ``images_per_s`` are
    used only as objectives or bounds. ``folds``: number of folds behind the figures, 0 for one validation split.
    """

    id: str
    name: str
    state: str
    epochs_done: int
    epochs_full: int
    val_accuracy: float
    val_loss: float
    val_correct: int | None = None
    val_total: int | None = None
    cost: float = math.nan
    val_macro_f1: float = math.nan
    images_per_s: float = math.nan
    folds: int = 0

    def value(self, figure: str) -> float:
        """Return the objective called ``figure``; NaN if unknown."""
        known = {ACCURACY: self.accuracy, MACRO_F1: self.val_macro_f1, LOSS: self.val_loss, SPEED: self.images_per_s}
        return known[figure]

    @property
    def accuracy(self) -> float:
        if self.val_correct is not None and self.val_total:
            return self.val_correct / self.val_total
        return self.val_accuracy

    @property
    def is_eligible(self) -> bool:
        """Whether the trial is COMPLETED at full budget and has a validation accuracy."""
        return self.state == COMPLETED and self.epochs_done >= self.epochs_full and math.isfinite(self.accuracy)

    @property
    def label(self) -> str:
        return self.name if self.name == self.id or not self.name else f"{self.name} ({self.id})"


@dataclass(frozen=True)
class Selection:
    """The winner, the reason, and the runners-up (best first)."""

    winner: Candidate
    reason: str
    runners_up: tuple[Candidate, ...]


@dataclass(frozen=True)
class SelectionRule:
    """The figure in which the winner is best, and bounds (figure -> value) it must meet; names of ``OBJECTIVES``."""

    best: str = ACCURACY
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[tuple[str, float], ...]:
        return (*self.at_least.items(), *self.at_most.items())

    def shortfalls(self, candidate: Candidate) -> dict[str, float]:
        """Return figure -> relative distance to its missed bound, infinite if unknown; {} if all bounds are met."""
        found = {}
        for name, bound in self.bounds:
            missing = OBJECTIVES[name].cost(candidate.value(name)) - OBJECTIVES[name].cost(bound)
            if not missing <= 0:
                found[name] = _last(missing) / bound if bound else _last(missing)
        return found

    def words(self) -> str:
        """Format the bounds for a sentence: "at least 50.0 images/s and at most 0.5000 in val_loss"."""
        lower = [f"at least {_bound(name, value)}" for name, value in self.at_least.items()]
        return " and ".join([*lower, *(f"at most {_bound(name, value)}" for name, value in self.at_most.items())])


def _bound(name: str, value: float) -> str:
    shown = OBJECTIVES[name].show(value)
    return shown if name == SPEED else f"{shown} {OBJECTIVES[name].words}"


PLAIN = SelectionRule()
"""Default rule: the highest accuracy, no bounds."""


def choose(candidates: Iterable[Candidate], runners_up: int = 0, rule: SelectionRule = PLAIN) -> Selection:
    """Choose the eligible candidate that is best by ``rule``, and up to ``runners_up`` next ones.

    Ties go to the lower validation loss, then to the lower cost, then to the smaller id, so the order of candidates
    does not matter. Raises NoWinner if none is eligible, with the count of every state, or if no eligible one meets
    the rule's bounds, with the nearest.
    """
    candidates = list(candidates)
    eligible = [c for c in candidates if c.is_eligible]
    if not eligible:
        raise NoWinner(_no_winner(candidates))
    within = sorted((c for c in eligible if not rule.shortfalls(c)), key=lambda c: _rank(c, rule))
    known = [c for c in within if math.isfinite(c.value(rule.best))]
    if not known:
        raise NoWinner(_none_within(within, eligible, rule))
    winner, others = known[0], known[1:]
    if rule.best == ACCURACY and not rule.bounds:
        reason = _reason(winner, others, len(candidates)) + _correction(winner, others)
    else:
        reason = _reason_by_rule(winner, others, (len(eligible), len(candidates)), rule)
    return Selection(winner, reason, tuple(others[: max(runners_up, 0)]))


def pareto_front(candidates: Iterable[Candidate], objectives: Sequence[str]) -> tuple[Candidate, ...]:
    """Return the eligible candidates that no other dominates: as good in all of ``objectives`` and better in one.

    Candidates with equal figures are all kept, those with an unknown figure are omitted. Sorted by the first objective;
    the order of candidates does not matter.
    """
    known = [c for c in candidates if c.is_eligible and all(math.isfinite(c.value(name)) for name in objectives)]
    front = front_of([[OBJECTIVES[name].cost(c.value(name)) for name in objectives] for c in known])
    return tuple(sorted((known[i] for i in front), key=lambda c: _rank(c, SelectionRule(best=objectives[0]))))


def _rank(candidate: Candidate, rule: SelectionRule = PLAIN) -> tuple[float, float, float, str]:
    first = _last(OBJECTIVES[rule.best].cost(candidate.value(rule.best)))
    return (first, _last(candidate.val_loss), _last(candidate.cost), candidate.id)


def _last(value: float) -> float:
    """Return ``value``, or infinity if it is not finite, so that unknown values sort last."""
    return value if math.isfinite(value) else math.inf


def _reason(winner: Candidate, others: Sequence[Candidate], total: int) -> str:
    eligible = _among(1 + len(others), total)
    if not others:
        return f"{winner.label} wins with {_figure(winner)} on validation: it is the only one of {eligible}."
    second = others[0]
    if second.accuracy < winner.accuracy:
        return (
            f"{winner.label} has the highest validation accuracy of {eligible}: {_figure(winner)}; "
            f"the runner-up {second.label} has {_figure(second)}{_lead(winner, second)}."
        )
    tied = 1 + sum(c.accuracy == winner.accuracy for c in others)
    who = f"{second.label} has" if tied == 2 else f"{tied - 1} others have"
    return (
        f"{winner.label} has the highest validation accuracy of {eligible}, {_figure(winner)}, "
        f"and {who} the same; {_tie_break(winner, second)}."
    )


def _correction(winner: Candidate, others: Sequence[Candidate]) -> str:
    """Return what is left of the winner's accuracy after allowing for its having been the best; "" if unknown."""
    if not others or not winner.val_total or any(c.val_total != winner.val_total for c in others):
        return ""
    figure = corrected_accuracy([winner.accuracy, *(c.accuracy for c in others)], winner.val_total)
    return f" That is about {100 * figure:.1f} % after correcting for the choice among {1 + len(others)}."


def _reason_by_rule(
    winner: Candidate, others: Sequence[Candidate], counts: tuple[int, int], rule: SelectionRule
) -> str:
    row, (eligible, total) = OBJECTIVES[rule.best], counts
    superlative = "lowest" if row.minimised else "highest"
    pool = _among(eligible, total)
    if rule.bounds:
        verb = "is" if not others else "are"
        pool = f"the {1 + len(others)} that {verb} within the bounds ({rule.words()}), of {pool}"
    text = f"{winner.label} has the {superlative} {row.words} of {pool}: {_rule_figure(winner, rule)}"
    if not others:
        return f"{text}."
    second = others[0]
    tied = row.cost(second.value(rule.best)) == row.cost(winner.value(rule.best))
    text += f"; the runner-up {second.label} has {_rule_figure(second, rule)}"
    return f"{text}, and {_tie_break(winner, second)}." if tied else f"{text}."


def _rule_figure(candidate: Candidate, rule: SelectionRule) -> str:
    """Format one candidate's deciding figure and its bounded figures."""
    shown = []
    for name in dict.fromkeys([rule.best, *(bounded for bounded, _ in rule.bounds)]):
        figure = _figure(candidate) if name == ACCURACY else OBJECTIVES[name].show(candidate.value(name))
        shown.append(figure if name in (rule.best, SPEED) else f"{figure} {OBJECTIVES[name].words}")
    return " at ".join([shown[0], " and ".join(shown[1:])]) if len(shown) > 1 else shown[0]


def _none_within(within: Sequence[Candidate], eligible: Sequence[Candidate], rule: SelectionRule) -> str:
    """Explain why the rule finds no winner, and name the nearest candidate."""
    if within:
        return (
            f"there is no winner: none of the {len(within)} COMPLETED trials within the bounds has a "
            f"{OBJECTIVES[rule.best].words}; name another figure in final.choose.best and continue with `--resume`."
        )
    bounds = f"there is no winner: none of {len(eligible)} trials COMPLETED at full budget has {rule.words()}"
    unknown = [n for n, _ in rule.bounds if not any(math.isfinite(c.value(n)) for c in eligible)]
    if unknown:
        return (
            f"{bounds}, because {unknown[0]} was not measured in this sweep. Remove its bound from final.choose and "
            "continue with `--resume`, or start another sweep."
        )
    nearest = min(eligible, key=lambda c: (sum(rule.shortfalls(c).values()), _rank(c, rule)))
    figures = dict.fromkeys([*(name for name, _ in rule.bounds), ACCURACY])
    has = " and ".join(_bound(name, nearest.value(name)) for name in figures)
    return (
        f"{bounds}; {nearest.label} comes nearest, with {has}. "
        "Relax final.choose and continue with `--resume`, or add trials with `--resume --trials +N`."
    )


def _among(eligible: int, total: int) -> str:
    if eligible == total:
        return f"{total} trials, all COMPLETED at full budget" if total > 1 else "1 trial, COMPLETED at full budget"
    return f"{eligible} COMPLETED at full budget ({total} trials in all)"


def _figure(candidate: Candidate) -> str:
    text = f"{100 * candidate.accuracy:.2f} %"
    if candidate.val_correct is not None and candidate.val_total:
        over = f" in {candidate.folds} folds" if candidate.folds else ""
        text += f" ({candidate.val_correct} of {candidate.val_total} images{over})"
    return text


def _lead(winner: Candidate, second: Candidate) -> str:
    if winner.val_correct is None or second.val_correct is None or winner.val_total != second.val_total:
        return ""
    images = winner.val_correct - second.val_correct
    return f", {count(images, 'image')} fewer"


def _tie_break(winner: Candidate, second: Candidate) -> str:
    if _last(winner.val_loss) < _last(second.val_loss):
        return f"the tie goes to its lower validation loss, {winner.val_loss:.4f} against {_number(second.val_loss)}"
    if _last(winner.cost) < _last(second.cost):
        return f"the losses tie too, and it is the cheaper one, {winner.cost:.3g} s against {_number(second.cost)} s"
    return "loss and cost tie too, so the smaller id decides"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "unknown"


def _no_winner(candidates: Sequence[Candidate]) -> str:
    if not candidates:
        return "there is no winner: no trial was run. Start the search with `orch sweep FILE`."
    states = Counter(c.state for c in candidates)
    counts = ", ".join(f"{number} {state}" for state, number in sorted(states.items(), key=lambda s: (-s[1], s[0])))
    text = f"there is no winner: of {len(candidates)} trials ({counts}) none was COMPLETED at full budget"
    short = [c for c in candidates if c.state == COMPLETED and c.epochs_done < c.epochs_full]
    blind = states[COMPLETED] - len(short)
    if short:
        best = max(short, key=lambda c: c.epochs_done)
        text += f"; the longest of the COMPLETED ran {best.epochs_done} of {best.epochs_full} epochs"
    if blind:
        text += f"; {blind} COMPLETED without a validation accuracy"
    return f"{text}. {_advice(states)}"


def _advice(states: Counter[str]) -> str:
    if states.keys() & {"RUNNING", "PAUSED"}:
        return "The search is not over: continue it with `--resume`."
    if states["FAILED"] and states["FAILED"] == states.total():
        return "See why with `orch show`, fix the cause and start again, or add trials with `--resume --trials +N`."
    if states["STOPPED"] or states["PENDING"]:  # the hours were used up
        return "Raise `budget.hours` and continue with `--resume`."
    return "Add trials with `--resume --trials +N`, or set a `budget.scheduler` that prunes less."
