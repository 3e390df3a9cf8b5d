"""What one side took, and what it would take for the whole list. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from benchmarks.common.task import Trial
from trainers.wording import count


@dataclass(frozen=True)
class TrialTime:
    """One trial of one side. ``began`` and ``ended`` in seconds of the wall clock; ``epochs``: seconds of each."""

    trial: Trial
    began: float
    ended: float
    epochs: tuple[float, ...]
    val_accuracy: float


@dataclass(frozen=True)
class Cost:
    """Seconds of one trial: ``overhead_s`` once (model, tracing, what lies between trials) and ``epoch_s`` an epoch."""

    overhead_s: float
    epoch_s: float

    def of(self, epochs: int) -> float:
        return self.overhead_s + epochs * self.epoch_s


@dataclass(frozen=True)
class Side:
    """One run of one side over ``trials``, from the start of its process to its end.

    ``threads``: of each trial; ``concurrent``: trials at once.
    """

    name: str
    began: float
    ended: float
    trials: tuple[TrialTime, ...]
    threads: int
    concurrent: int
    breakdown: tuple[tuple[str, float], ...] = ()

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def once_s(self) -> float:
        """What does not grow with the list: before the first trial begins and after the last one ended."""
        return self.seconds - self.span_s

    @property
    def span_s(self) -> float:
        """From the first trial's beginning to the last one's end."""
        return max(t.ended for t in self.trials) - min(t.began for t in self.trials)

    @property
    def accuracy(self) -> dict[str, float]:
        """The validation accuracy after each trial's last epoch, by its name."""
        return {time.trial.name: time.val_accuracy for time in self.trials}

    @property
    def how(self) -> str:
        """Such as "2 trials at once, 1 thread each"."""
        return f"{count(self.concurrent, 'trial')} at once, {count(self.threads, 'thread')} each"

    def whole_s(self, trials: Sequence[Trial]) -> float:
        """Seconds for all of ``trials``: measured where all were run, else the time between the first trial's beginning
        and the last one's end grown as the trials' costs say, ``concurrent`` at once, and the rest counted once."""
        if {trial.name for trial in trials} == {time.trial.name for time in self.trials}:
            return self.seconds
        costs = cost_by_kind(self.trials)

        def clock_s(chosen: Iterable[Trial]) -> float:
            return makespan([costs[trial.kind].of(trial.epochs) for trial in chosen], self.concurrent)

        return self.once_s + self.span_s * clock_s(trials) / clock_s(time.trial for time in self.trials)


def makespan(seconds: Iterable[float], workers: int) -> float:
    """From the first one's beginning to the last one's end, each in this order taken by the first free worker."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def cost_by_kind(times: Iterable[TrialTime]) -> dict[tuple[str, int | str], Cost]:
    """The cost of each kind of trial. An epoch costs the mean of those after a trial's first, which also traces; where
    every trial of a kind has one epoch alone, all that they took."""
    by_kind: dict[tuple[str, int | str], list[TrialTime]] = {}
    for time in times:
        by_kind.setdefault(time.trial.kind, []).append(time)
    costs = {}
    for kind, same in by_kind.items():
        later = [seconds for time in same for seconds in time.epochs[1:]]
        epoch_s = mean(later) if later else mean(time.epochs[0] for time in same)
        rest = [time.ended - time.began - len(time.epochs) * epoch_s for time in same]
        costs[kind] = Cost(max(0.0, mean(rest)), epoch_s)
    return costs


def trial_times(report: Mapping[str, Any], trials: Sequence[Trial]) -> tuple[TrialTime, ...]:
    """What a peer reported of ``trials``. Raises SystemExit where a trial or an epoch is missing."""
    found = {entry["name"]: entry for entry in report["trials"]}
    times = []
    for trial in trials:
        entry = found.get(trial.name)
        if entry is None or len(entry["epochs"]) != trial.epochs:
            done = "not at all" if entry is None else f"for {len(entry['epochs'])} epochs"
            raise SystemExit(f"trial {trial.name} should have run for {trial.epochs} epochs and ran {done}.")
        times.append(TrialTime(trial, entry["began"], entry["ended"], tuple(entry["epochs"]), entry["val_accuracy"]))
    return tuple(times)


def implausible(sides: Sequence[Side], tolerance: float, least: float) -> str:
    """Why accuracies say that the sides did not do the same work, as a sentence; "" where they are alike.

    Means over the trials that all of ``sides`` ran may differ by ``tolerance`` and must reach ``least``.
    """
    shared = set.intersection(*(set(side.accuracy) for side in sides))
    if not shared:
        return "the sides have no trial in common."
    means = {side.name: mean(side.accuracy[name] for name in shared) for side in sides}
    words = ", ".join(f"{name} {value:.3f}" for name, value in means.items())
    if not all(math.isfinite(value) and value >= least for value in means.values()):
        return f"validation accuracy over {len(shared)} trials is below {least:g}: {words}."
    if max(means.values()) - min(means.values()) > tolerance:
        return f"validation accuracy over {len(shared)} trials differs by more than {tolerance:g}: {words}."
    return ""
