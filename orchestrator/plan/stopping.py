"""The decisions of Ray Tune's early-stopping schedulers without Ray, for simulated sweeps. Pure.

A rule returns the next epoch at which it decides on a trial, and decides there from the score (higher is better). A
test compares the rules with Ray's schedulers on the same curves.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.search.settings import rungs

GO, STOP, PAUSE = "go", "stop", "pause"


@dataclass(frozen=True)
class Verdict:
    """The decision on the trial that reported, and on paused trials."""

    action: str
    resumed: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()


class StoppingRule(Protocol):
    epochs: int

    def add(self, trial: int) -> None:
        """Add a trial that is about to start."""
        ...

    def next_epoch(self, trial: int, epoch: int) -> int:
        """Return the first epoch after ``epoch`` at which to decide, or the last epoch."""
        ...

    def report(self, trial: int, epoch: int, score: float) -> Verdict:
        """Decide on ``trial`` after ``epoch`` epochs. Not called at the last epoch, where it is complete."""
        ...

    def ended(self, trial: int) -> Verdict:
        """Decide on the trials that waited for ``trial``, which is complete."""
        ...


def rule_of(name: str, epochs: int, grace_epochs: int = 1, reduction: float = 3.0, min_trials: int = 3) -> StoppingRule:
    """Return the rule of the scheduler ``name``."""
    if name == "asha":
        return Asha(epochs, grace_epochs, reduction)
    if name == "hyperband":
        return Hyperband(epochs, reduction)
    if name == "median":
        return Median(epochs, grace_epochs, min_trials)
    return Never(epochs)


@dataclass
class Never:
    """Run every trial to its last epoch."""

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
    """Asynchronous successive halving (Li et al. 2020): a trial continues if it is among the best 1 / reduction.

    As in Ray: at a rung the score must reach the (1 - 1 / reduction) quantile of the earlier scores, linearly
    interpolated; the first trial always continues.
    """

    def __init__(self, epochs: int, grace_epochs: int, reduction: float) -> None:
        super().__init__(epochs)
        self._quantile = 1 - 1 / reduction
        self._rungs = rungs(epochs, min(grace_epochs, epochs), reduction)
        self._scores: dict[int, list[float]] = {rung: [] for rung in self._rungs}

    def next_epoch(self, trial: int, epoch: int) -> int:
        place = bisect.bisect_right(self._rungs, epoch)
        return self._rungs[place] if place < len(self._rungs) else self.epochs

    def report(self, trial: int, epoch: int, score: float) -> Verdict:
        scores = self._scores.get(epoch)
        if scores is None:
            return Verdict(GO)
        cutoff = quantile(scores, self._quantile) if scores else -math.inf
        bisect.insort(scores, score)
        return Verdict(STOP if score < cutoff else GO)


def quantile(ascending: Sequence[float], share: float) -> float:
    """Return a quantile of sorted values by linear interpolation, as numpy's default."""
    place = share * (len(ascending) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (place - low) * (ascending[high] - ascending[low])


class Median(Never):
    """Stop a trial whose best score is below the median of the others' running means (Golovin et al. 2017)."""

    def __init__(self, epochs: int, grace_epochs: int, min_trials: int) -> None:
        super().__init__(epochs)
        self._grace, self._min_trials = grace_epochs, min_trials
        self._best: dict[int, float] = {}
        self._sums: dict[int, list[float]] = {}  # of the epochs from grace on, running
        self._means: dict[int, list[tuple[float, int]]] = {}  # epoch -> (mean, trial), ascending

    def next_epoch(self, trial: int, epoch: int) -> int:
        return min(epoch + 1, self.epochs)  # scores before the grace epochs count for a trial's best

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
    """Trials that are halved together. ``size``: maximum live trials; ``until``: the epoch at which they wait."""

    size: int
    until: int
    halvings: int
    added: int = 0
    is_open: bool = True
    reached: dict[int, int] = field(default_factory=dict)  # live trials -> their epochs
    scores: dict[int, float] = field(default_factory=dict)


class Hyperband(Never):
    """Successive halving in brackets whose trials wait for each other (Li et al. 2018), with Ray's sizes.

    A bracket takes its number of trials, or those added before its first halving.
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
        """Once all trials wait, continue the best to ``reduction`` times the epochs and stop the others."""
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
