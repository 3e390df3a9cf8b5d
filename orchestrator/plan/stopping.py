"""The schedulers that stop trials early, as they decide in Ray Tune, without Ray: for simulated sweeps. Pure.

Each is asked for the next epoch at which it decides on a trial, and told the score there (the higher the better).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

GO, STOP, PAUSE = "go", "stop", "pause"


@dataclass(frozen=True)
class Verdict:
    """What becomes of the trial that reported, and of others that were paused."""

    action: str
    resumed: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()


class StoppingRule(Protocol):
    epochs: int

    def add(self, trial: int) -> None:
        """``trial`` is about to start."""
        ...

    def next_epoch(self, trial: int, epoch: int) -> int:
        """The first epoch after ``epoch`` at which there is something to decide, the last at the most."""
        ...

    def report(self, trial: int, epoch: int, score: float) -> Verdict:
        """``trial`` has done ``epoch`` epochs. At the last one it is complete, whatever the rule would say."""
        ...

    def ended(self, trial: int) -> Verdict:
        """``trial`` is complete: others may have waited for it."""
        ...


def rule_of(name: str, epochs: int, grace_epochs: int = 1, reduction: float = 3.0, min_trials: int = 3) -> StoppingRule:
    """The rule that a file's scheduler names."""
    if name == "asha":
        return Asha(epochs, grace_epochs, reduction)
    if name == "hyperband":
        return Hyperband(epochs, reduction)
    if name == "median":
        return Median(epochs, grace_epochs, min_trials)
    return Never(epochs)


def milestones(epochs: int, grace_epochs: int, reduction: float) -> list[int]:
    """Epochs at which asha decides, grace x reduction^k, the last epoch left out: there a trial is complete."""
    count = int(math.log(epochs / grace_epochs) / math.log(reduction) + 1)
    found = {math.ceil(grace_epochs * reduction**k - 1e-9) for k in range(count)}
    return sorted(epoch for epoch in found if epoch < epochs)


@dataclass
class Never:
    """Every trial runs to its end."""

    epochs: int

    def add(self, trial: int) -> None:
        pass

    def next_epoch(self, trial: int, epoch: int) -> int:
        return self.epochs

    def report(self, trial: int, epoch: int, score: float) -> Verdict:
        return Verdict(GO)

    def ended(self, trial: int) -> Verdict:
        return Verdict(GO)


class Asha(Never):
    """Asynchronous successive halving (Li et al. 2020): a trial goes on if it is among the best 1 / reduction so far.

    As in Ray: at a milestone the score must reach the (1 - 1 / reduction) quantile of those that came before, linearly
    interpolated; the first one always goes on.
    """

    def __init__(self, epochs: int, grace_epochs: int, reduction: float) -> None:
        super().__init__(epochs)
        self._quantile = 1 - 1 / reduction
        self._milestones = milestones(epochs, min(grace_epochs, epochs), reduction)
        self._scores: dict[int, list[float]] = {milestone: [] for milestone in self._milestones}

    def next_epoch(self, trial: int, epoch: int) -> int:
        place = bisect.bisect_right(self._milestones, epoch)
        return self._milestones[place] if place < len(self._milestones) else self.epochs

    def report(self, trial: int, epoch: int, score: float) -> Verdict:
        scores = self._scores.get(epoch)
        if scores is None:
            return Verdict(GO)
        cutoff = quantile(scores, self._quantile) if scores else -math.inf
        bisect.insort(scores, score)
        return Verdict(STOP if score < cutoff else GO)


def quantile(ascending: Sequence[float], share: float) -> float:
    """As numpy's default: linear between the two nearest of the sorted values."""
    place = share * (len(ascending) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (place - low) * (ascending[high] - ascending[low])


class Median(Never):
    """A trial stops when its best score is below the median of the others' means so far (Golovin et al. 2017)."""

    def __init__(self, epochs: int, grace_epochs: int, min_trials: int) -> None:
        super().__init__(epochs)
        self._grace, self._min_trials = grace_epochs, min_trials
        self._best: dict[int, float] = {}
        self._sums: dict[int, list[float]] = {}  # of the epochs from grace on, running
        self._means: dict[int, list[tuple[float, int]]] = {}  # epoch -> (mean, trial), ascending

    def next_epoch(self, trial: int, epoch: int) -> int:
        return min(max(epoch + 1, self._grace), self.epochs)

    def report(self, trial: int, epoch: int, score: float) -> Verdict:
        self._best[trial] = max(score, self._best.get(trial, -math.inf))
        if epoch < self._grace:
            return Verdict(GO)
        sums = self._sums.setdefault(trial, [])
        sums.append(score + (sums[-1] if sums else 0.0))
        means = self._means.setdefault(epoch, [])
        others = [mean for mean, _ in means]
        bisect.insort(means, (sums[-1] / len(sums), trial))
        if len(others) < self._min_trials:
            return Verdict(GO)
        return Verdict(GO if self._best[trial] >= quantile(others, 0.5) else STOP)


@dataclass
class _Bracket:
    """Trials that are halved together. ``size``: how many may live; ``until``: the epoch at which they wait."""

    size: int
    until: int
    halvings: int
    added: int = 0
    is_open: bool = True
    reached: dict[int, int] = field(default_factory=dict)  # live trials -> their epochs
    scores: dict[int, float] = field(default_factory=dict)


class Hyperband(Never):
    """Successive halving in brackets whose trials wait for each other (Li et al. 2018), as Ray counts it.

    A bracket takes its number of trials, or those that came before its first halving.
    """

    def __init__(self, epochs: int, reduction: float) -> None:
        super().__init__(epochs)
        self._eta = reduction
        self._kinds = round(math.log(epochs) / math.log(reduction)) + 1
        self._opened = 0
        self._newest: _Bracket | None = None
        self._of: dict[int, _Bracket] = {}

    def _open(self) -> _Bracket:
        while True:
            s = self._opened % self._kinds
            self._opened += 1
            until = int(self.epochs * self._eta**-s)
            if until > 0:
                return _Bracket(math.ceil(self._kinds / (s + 1) * self._eta**s), until, s)

    def add(self, trial: int) -> None:
        if self._newest is None or not self._newest.is_open or self._newest.added >= self._newest.size:
            self._newest = self._open()
        self._newest.added += 1
        self._newest.reached[trial] = 0
        self._of[trial] = self._newest

    def next_epoch(self, trial: int, epoch: int) -> int:
        return min(max(self._of[trial].until, epoch + 1), self.epochs)

    def report(self, trial: int, epoch: int, score: float) -> Verdict:
        bracket = self._of[trial]
        bracket.reached[trial], bracket.scores[trial] = epoch, score
        return self._halve(bracket, trial) if epoch >= bracket.until else Verdict(GO)

    def ended(self, trial: int) -> Verdict:
        bracket = self._of.pop(trial)
        bracket.reached.pop(trial, None)
        return self._halve(bracket, trial) if bracket.reached else Verdict(GO)

    def _halve(self, bracket: _Bracket, reporting: int) -> Verdict:
        """When all have come to where they wait, the best go on to ``reduction`` times the epochs."""
        if any(epoch < bracket.until for epoch in bracket.reached.values()):
            return Verdict(PAUSE)
        kept = 0
        bracket.is_open = False
        if bracket.halvings:
            bracket.halvings -= 1
            bracket.size = math.ceil(bracket.size / self._eta)
            bracket.until = int(min(bracket.until * self._eta, self.epochs))
            kept = bracket.size
        ranked = sorted(bracket.reached, key=lambda trial: -bracket.scores[trial])
        good, bad = ranked[:kept], ranked[kept:]
        for trial in bad:
            del bracket.reached[trial]
            del self._of[trial]
        action = GO if reporting in good else STOP
        return Verdict(action, *(tuple(t for t in part if t != reporting) for part in (good, bad)))
