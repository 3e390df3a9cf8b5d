"""Which trial wins, and with which crop policy. Pure: rows in, a choice and its reason out.

Only validation is looked at. Nothing here has a parameter through which a test figure could come in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.errors import NoWinner

COMPLETED = "COMPLETED"
WHOLE = "whole"
"""The plain policy: one view of the whole image. Every choice among policies includes it."""


@dataclass(frozen=True)
class Candidate:
    """One trial as selection sees it.

    ``val_accuracy`` in [0, 1] and ``val_loss`` (nats) are the last epoch's, NaN where there is none. Where
    ``val_correct`` and ``val_total`` (images) are given they are the accuracy, and the reason counts in images.
    ``cost``: seconds, of whatever all candidates share (an image, an epoch); lower is cheaper, NaN is unknown.
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


def choose(candidates: Iterable[Candidate], runners_up: int = 0) -> Selection:
    """The eligible candidate with the highest validation accuracy, and up to ``runners_up`` that come after it.

    Ties go to the lower validation loss, then to the cheaper one, then to the smaller id: the same candidates in
    any order give the same choice. Raises NoWinner, with the count of every state, when none is eligible.
    """
    candidates = list(candidates)
    eligible = sorted((c for c in candidates if c.is_eligible), key=_rank)
    if not eligible:
        raise NoWinner(_no_winner(candidates))
    winner, others = eligible[0], eligible[1:]
    return Selection(winner, _reason(winner, others, len(candidates)), tuple(others[: max(runners_up, 0)]))


def _rank(candidate: Candidate) -> tuple[float, float, float, str]:
    return (-candidate.accuracy, _last(candidate.val_loss), _last(candidate.cost), candidate.id)


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


def _among(eligible: int, total: int) -> str:
    if eligible == total:
        return f"{total} trials, all COMPLETED at full budget" if total > 1 else "1 trial, COMPLETED at full budget"
    return f"{eligible} COMPLETED at full budget ({total} trials in all)"


def _figure(candidate: Candidate) -> str:
    text = f"{100 * candidate.accuracy:.2f} %"
    if candidate.val_correct is not None and candidate.val_total:
        text += f" ({candidate.val_correct} of {candidate.val_total} images)"
    return text


def _lead(winner: Candidate, second: Candidate) -> str:
    if winner.val_correct is None or second.val_correct is None or winner.val_total != second.val_total:
        return ""
    images = winner.val_correct - second.val_correct
    return f", {images} image{'' if images == 1 else 's'} fewer"


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
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items(), key=lambda s: (-s[1], s[0])))
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
    if states.keys() & {"PENDING", "RUNNING", "PAUSED"}:
        return "The search is not over: go on with `--resume`."
    if states["FAILED"] and states["FAILED"] == states.total():
        return "Read why with `orch show`, mend the cause and start anew, or add trials with `--resume --trials +N`."
    if states["STOPPED"]:
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
