"""Which trial wins, and with which crop policy. Pure: rows in, a choice and its reason out.

With one objective the best trial wins. With a ``SelectionRule`` it is the best in one figure among those within bounds.

Only validation is looked at. Nothing here has a parameter through which a test figure could come in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.errors import NoWinner
from orchestrator.objectives import ACCURACY, LOSS, MACRO_F1, OBJECTIVES, SPEED, front_of
from trainers.wording import count

COMPLETED = "COMPLETED"
WHOLE = "whole"
"""The plain policy: one view of the whole image. Every choice among policies includes it."""


@dataclass(frozen=True)
class Candidate:
    """One trial as selection sees it.

    ``val_accuracy`` in [0, 1] and ``val_loss`` (nats) are the last epoch's, NaN where there is none. Where
    ``val_correct`` and ``val_total`` (images) are given they are the accuracy, and the reason counts in images.
    ``cost``: seconds, of whatever all candidates share (an image, an epoch); lower is cheaper, NaN is unknown.
    ``val_macro_f1`` in [0, 1] and ``images_per_s`` matter where they are objectives or bounds. ``folds``: how many
    folds the figures are taken over, 0 for one validation split.
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
        """The objective called ``figure``; NaN where it is unknown."""
        known = {ACCURACY: self.accuracy, MACRO_F1: self.val_macro_f1, LOSS: self.val_loss, SPEED: self.images_per_s}
        return known[figure]

    @property
    def accuracy(self) -> float:
        if self.val_correct is not None and self.val_total:
            return self.val_correct / self.val_total
        return self.val_accuracy

    @property
    def is_eligible(self) -> bool:
        """COMPLETED at full budget, with a validation accuracy."""
        return self.state == COMPLETED and self.epochs_done >= self.epochs_full and math.isfinite(self.accuracy)

    @property
    def label(self) -> str:
        return self.name if self.name == self.id or not self.name else f"{self.name} ({self.id})"


@dataclass(frozen=True)
class Selection:
    """The winner, why, and who came next (best first)."""

    winner: Candidate
    reason: str
    runners_up: tuple[Candidate, ...]


@dataclass(frozen=True)
class SelectionRule:
    """What the winner is best in, among the candidates within the bounds (figure -> value); names of ``OBJECTIVES``."""

    best: str = ACCURACY
    at_least: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[tuple[str, float], ...]:
        return (*self.at_least.items(), *self.at_most.items())

    def shortfalls(self, candidate: Candidate) -> dict[str, float]:
        """Figure -> by how much of its bound ``candidate`` misses it, infinite where unknown; {} within all bounds."""
        found = {}
        for name, bound in self.bounds:
            missing = OBJECTIVES[name].cost(candidate.value(name)) - OBJECTIVES[name].cost(bound)
            if not missing <= 0:
                found[name] = _last(missing) / bound if bound else _last(missing)
        return found

    def words(self) -> str:
        """The bounds for a sentence: "at least 50.0 images/s and at most 0.5000 in val_loss"."""
        said = [f"at least {_bound(name, value)}" for name, value in self.at_least.items()]
        return " and ".join([*said, *(f"at most {_bound(name, value)}" for name, value in self.at_most.items())])


def _bound(name: str, value: float) -> str:
    shown = OBJECTIVES[name].show(value)
    return shown if name == SPEED else f"{shown} {OBJECTIVES[name].words}"


PLAIN = SelectionRule()
"""The most accurate one."""


def choose(candidates: Iterable[Candidate], runners_up: int = 0, rule: SelectionRule = PLAIN) -> Selection:
    """The eligible candidate that is best by ``rule``, and up to ``runners_up`` that come after it.

    Ties go to the lower validation loss, then to the cheaper one, then to the smaller id: the same candidates in
    any order give the same choice. Raises NoWinner when none is eligible, with the count of every state, or when
    none of the eligible lies within the rule's bounds, with the one that comes nearest.
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
        reason = _reason(winner, others, len(candidates))
    else:
        reason = _reason_by_rule(winner, others, (len(eligible), len(candidates)), rule)
    return Selection(winner, reason, tuple(others[: max(runners_up, 0)]))


def pareto_front(candidates: Iterable[Candidate], objectives: Sequence[str]) -> tuple[Candidate, ...]:
    """The eligible candidates that no other beats: none is as good in all of ``objectives`` and better in one.

    Those of equal figures are all kept; one with an unknown figure is left out. The best in the first objective comes
    first; the same candidates in any order give the same front.
    """
    known = [c for c in candidates if c.is_eligible and all(math.isfinite(c.value(name)) for name in objectives)]
    front = front_of([[OBJECTIVES[name].cost(c.value(name)) for name in objectives] for c in known])
    return tuple(sorted((known[i] for i in front), key=lambda c: _rank(c, SelectionRule(best=objectives[0]))))


def _rank(candidate: Candidate, rule: SelectionRule = PLAIN) -> tuple[float, float, float, str]:
    first = _last(OBJECTIVES[rule.best].cost(candidate.value(rule.best)))
    return (first, _last(candidate.val_loss), _last(candidate.cost), candidate.id)


def _last(value: float) -> float:
    """``value``, or infinity where it is not a number, so that the unknown sorts after everything known."""
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


def _reason_by_rule(
    winner: Candidate, others: Sequence[Candidate], counts: tuple[int, int], rule: SelectionRule
) -> str:
    row, (eligible, total) = OBJECTIVES[rule.best], counts
    superlative = "lowest" if row.minimised else "highest"
    pool = _among(eligible, total)
    if rule.bounds:
        lies = "lies" if not others else "lie"
        pool = f"the {1 + len(others)} that {lies} within the bounds ({rule.words()}), of {pool}"
    text = f"{winner.label} has the {superlative} {row.words} of {pool}: {_rule_figure(winner, rule)}"
    if not others:
        return f"{text}."
    second = others[0]
    tied = row.cost(second.value(rule.best)) == row.cost(winner.value(rule.best))
    text += f"; the runner-up {second.label} has {_rule_figure(second, rule)}"
    return f"{text}, and {_tie_break(winner, second)}." if tied else f"{text}."


def _rule_figure(candidate: Candidate, rule: SelectionRule) -> str:
    """The figure that decides, and those that are bounded, of one candidate."""
    shown = []
    for name in dict.fromkeys([rule.best, *(bounded for bounded, _ in rule.bounds)]):
        figure = _figure(candidate) if name == ACCURACY else OBJECTIVES[name].show(candidate.value(name))
        shown.append(figure if name in (rule.best, SPEED) else f"{figure} {OBJECTIVES[name].words}")
    return " at ".join([shown[0], " and ".join(shown[1:])]) if len(shown) > 1 else shown[0]


def _none_within(within: Sequence[Candidate], eligible: Sequence[Candidate], rule: SelectionRule) -> str:
    """Why the rule finds nobody, and who comes nearest."""
    if within:
        return (
            f"there is no winner: none of the {len(within)} COMPLETED trials within the bounds has a "
            f"{OBJECTIVES[rule.best].words}; name another figure in final.choose.best and go on with `--resume`."
        )
    bounds = f"there is no winner: none of {len(eligible)} trials COMPLETED at full budget has {rule.words()}"
    unknown = [n for n, _ in rule.bounds if not any(math.isfinite(c.value(n)) for c in eligible)]
    if unknown:
        return (
            f"{bounds}, for {unknown[0]} was not measured in this sweep. Leave its bound out of final.choose and go on "
            "with `--resume`, or start another sweep."
        )
    nearest = min(eligible, key=lambda c: (sum(rule.shortfalls(c).values()), _rank(c, rule)))
    figures = dict.fromkeys([*(name for name, _ in rule.bounds), ACCURACY])
    has = " and ".join(_bound(name, nearest.value(name)) for name in figures)
    return (
        f"{bounds}; {nearest.label} comes nearest, with {has}. "
        "Loosen final.choose and go on with `--resume`, or give it more trials with `--resume --trials +N`."
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
        return "The search is not over: go on with `--resume`."
    if states["FAILED"] and states["FAILED"] == states.total():
        return "Read why with `orch show`, mend the cause and start anew, or add trials with `--resume --trials +N`."
    if states["STOPPED"] or states["PENDING"]:  # the hours were used up
        return "Give it more time: raise `budget.hours` and go on with `--resume`."
    return "Give it more trials with `--resume --trials +N`, or a gentler `budget.scheduler`."


@dataclass(frozen=True)
class PolicyScore:
    """How one crop policy did on validation: ``correct`` of ``total`` images, ``log_loss`` in nats, ``crops`` each."""

    policy: str
    correct: int
    total: int
    log_loss: float
    crops: int


@dataclass(frozen=True)
class PolicyChoice:
    """The chosen policy's name, and why."""

    policy: str
    reason: str


def choose_policy(scores: Iterable[PolicyScore]) -> PolicyChoice:
    """The policy with the most correct validation images; ties go to fewer crops, then lower log loss, then the name.

    Raises ValueError unless ``whole`` is among them and all were measured on the same number of images, above 0.
    """
    ranked = sorted(scores, key=lambda s: (-s.correct, s.crops, _last(s.log_loss), s.policy))
    whole = next((s for s in ranked if s.policy == WHOLE), None)
    if whole is None:
        raise ValueError(f"`{WHOLE}` must be among the policies; got {[s.policy for s in ranked]}")
    if whole.total <= 0 or any(s.total != whole.total for s in ranked):
        raise ValueError(f"all policies need the same images, at least 1; got {[s.total for s in ranked]}")
    best = ranked[0]
    return PolicyChoice(best.policy, _policy_reason(best, whole, ranked))


def _policy_reason(best: PolicyScore, whole: PolicyScore, ranked: Sequence[PolicyScore]) -> str:
    figure = f"{100 * best.correct / best.total:.2f} % ({best.correct} of {best.total} images)"
    if len(ranked) == 1:
        return f"{best.policy} is the only crop policy, with {figure} on validation."
    text = f"{best.policy} has the highest validation accuracy of {len(ranked)} crop policies, {figure}"
    if best is not whole:
        more = best.correct - whole.correct
        text += f", against {whole.correct} with {WHOLE}" + (f" (+{more})" if more else "")
    tied = [s.policy for s in ranked[1:] if s.correct == best.correct]
    if tied:
        fewer = all(s.crops > best.crops for s in ranked[1:] if s.correct == best.correct)
        why = f"it needs the fewest crops ({best.crops})" if fewer else "its log loss is lower for as few crops"
        text += f"; the tie with {', '.join(tied)} goes to it because {why}"
    return text + "."
