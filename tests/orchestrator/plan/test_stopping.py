"""The schedulers of simulated sweeps against Ray's own, and by tables."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers.async_hyperband import _Bracket

from orchestrator.plan.stopping import GO, PAUSE, STOP, Asha, Hyperband, Median, Never, StoppingRule, quantile, rule_of
from orchestrator.search.schedulers import build_scheduler
from orchestrator.search.settings import SchedulerSettings


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.floats(0, 1))
def test_the_quantile_is_numpys(values: list[float], share: float) -> None:
    assert quantile(sorted(values), share) == pytest.approx(np.percentile(values, 100 * share), abs=1e-9)


@given(st.integers(2, 30), st.integers(1, 4), st.sampled_from([2.0, 2.5, 3.0, 4.0]), st.randoms(use_true_random=False))
def test_asha_decides_as_ray_does(epochs: int, grace: int, reduction: float, draw: random.Random) -> None:
    grace = min(grace, epochs)
    ours, theirs, decided = Asha(epochs, grace, reduction), _Bracket(grace, epochs, reduction, 0), 0
    for number in range(25):
        trial = type("Trial", (), {"trial_id": str(number)})()
        worth, expected, epoch = draw.random(), epochs, 0
        stopped = 0
        for done in range(1, epochs):
            if theirs.on_result(trial, done, worth) == "STOP":
                expected = done
                break
        while epoch < epochs and not stopped:
            epoch = ours.next_epoch(number, epoch)
            if epoch < epochs and ours.report(number, epoch, worth).action == STOP:
                stopped = epoch
            decided += 1
        assert epoch == expected
    assert decided >= 25


def test_the_first_trial_at_a_milestone_goes_on_and_a_third_of_many_do() -> None:
    rule, draw = Asha(9, 3, 3.0), random.Random(0)
    assert rule.report(0, 3, 0.1).action == GO
    kept = sum(rule.report(trial, 3, draw.random()).action == GO for trial in range(1, 2001))
    assert 2000 / 3 * 0.95 < kept < 2000 / 3 * 1.1


def test_median_needs_enough_others_and_stops_the_worse_half() -> None:
    rule = Median(10, 2, 3)
    assert [rule.next_epoch(0, 0), rule.next_epoch(0, 2), rule.next_epoch(0, 9)] == [1, 3, 10]
    assert [rule.report(t, 2, score).action for t, score in enumerate([0.9, 0.1, 0.5])] == [GO] * 3
    assert rule.report(3, 2, 0.4).action == STOP  # below 0.5, the median of three
    assert rule.report(4, 2, 0.6).action == GO


def test_hyperband_lets_trials_wait_for_each_other_and_keeps_the_best() -> None:
    rule = Hyperband(9, 3.0)  # brackets: 3 trials to epoch 9, then 5 from epoch 3, then 9 from epoch 1
    for trial in range(3):
        rule.add(trial)
        assert rule.next_epoch(trial, 0) == 9
    for trial in range(3, 8):
        rule.add(trial)
        assert rule.next_epoch(trial, 0) == 3
    actions = [rule.report(trial, 3, trial / 10) for trial in range(3, 8)]
    assert [verdict.action for verdict in actions[:4]] == [PAUSE] * 4
    assert actions[4].action == GO
    assert (sorted(actions[4].resumed), sorted(actions[4].stopped)) == ([6], [3, 4, 5])
    assert rule.next_epoch(7, 3) == 9


def test_a_trial_alone_is_halved_alone() -> None:
    rule = Hyperband(9, 3.0)
    for trial in range(3):
        rule.add(trial)
        rule.ended(trial)
    rule.add(3)
    assert rule.report(3, 3, 0.5).action == GO


@pytest.mark.parametrize(
    ("name", "kind"), [("asha", Asha), ("hyperband", Hyperband), ("median", Median), ("none", Never)]
)
def test_every_scheduler_of_the_file_has_a_rule(name: str, kind: type) -> None:
    assert type(rule_of(name, 9)) is kind


# --- the rules and Ray's schedulers on the same curves ------------------------------------------------------------


class Decider(Protocol):
    """Decides on trials that train side by side, by their number."""

    stopped: set[int]
    paused: set[int]

    def add(self, trial: int) -> None: ...

    def report(self, trial: int, epoch: int, score: float) -> None: ...

    def end(self, trial: int, epoch: int, score: float) -> None: ...


class OfRule:
    def __init__(self, rule: StoppingRule) -> None:
        self.rule = rule
        self.stopped: set[int] = set()
        self.paused: set[int] = set()
        self._targets: dict[int, int] = {}

    def add(self, trial: int) -> None:
        self.rule.add(trial)
        self._targets[trial] = self.rule.next_epoch(trial, 0)

    def report(self, trial: int, epoch: int, score: float) -> None:
        if epoch < self._targets[trial]:
            return
        verdict = self.rule.report(trial, epoch, score)
        self._follow(verdict.resumed, verdict.stopped)
        if verdict.action == GO:
            self._targets[trial] = self.rule.next_epoch(trial, epoch)
        else:
            (self.paused if verdict.action == PAUSE else self.stopped).add(trial)
            self._targets[trial] = epoch

    def end(self, trial: int, epoch: int, score: float) -> None:
        verdict = self.rule.ended(trial)
        self._follow(verdict.resumed, verdict.stopped)

    def _follow(self, resumed: Sequence[int], stopped: Sequence[int]) -> None:
        self.paused -= {*resumed, *stopped}
        self.stopped |= {*stopped}
        for trial in resumed:
            self._targets[trial] = self.rule.next_epoch(trial, self._targets[trial])


class FakeTrial:
    """What Ray's schedulers read of a trial."""

    def __init__(self, number: int) -> None:
        self.number, self.trial_id, self.status, self.is_saving = number, str(number), "RUNNING", False


class OfRay:
    """Also stands for Tune's controller, which stops the trials that hyperband has paused."""

    def __init__(self, settings: SchedulerSettings, epochs: int) -> None:
        self.scheduler: Any = build_scheduler(settings, epochs)
        self.stopped: set[int] = set()
        self.paused: set[int] = set()
        self._trials: dict[int, FakeTrial] = {}

    def add(self, trial: int) -> None:
        self._trials[trial] = FakeTrial(trial)
        self.scheduler.on_trial_add(self, self._trials[trial])

    def report(self, trial: int, epoch: int, score: float) -> None:
        result = {"epoch": epoch, "training_iteration": epoch, "val_accuracy": score}
        decision = self.scheduler.on_trial_result(self, self._trials[trial], result)
        if decision == "PAUSE":
            self._trials[trial].status = "PAUSED"
            self.paused.add(trial)
        elif decision == "STOP":
            self._trials[trial].status = "TERMINATED"
            self.stopped.add(trial)
        self._resume()

    def end(self, trial: int, epoch: int, score: float) -> None:
        self._trials[trial].status = "TERMINATED"
        result = {"epoch": epoch, "training_iteration": epoch, "val_accuracy": score}
        self.scheduler.on_trial_complete(self, self._trials[trial], result)
        self._resume()

    def stop_trial(self, trial: FakeTrial) -> None:
        trial.status = "TERMINATED"
        self.paused.discard(trial.number)
        self.stopped.add(trial.number)
        self.scheduler.on_trial_remove(self, trial)

    def get_trials(self) -> list[FakeTrial]:
        return list(self._trials.values())

    def _resume(self) -> None:
        while self.paused and (trial := self.scheduler.choose_trial_to_run(self)) is not None:
            trial.status = "RUNNING"
            self.paused.discard(trial.number)


def last_epochs(decider: Decider, curves: Sequence[Sequence[float]]) -> list[int]:
    """The epochs that each trial trains, all side by side, one epoch at a time."""
    done = [0] * len(curves)
    for trial in range(len(curves)):
        decider.add(trial)
    running = list(range(len(curves)))
    while running:
        for trial in running:
            if trial in decider.paused or trial in decider.stopped:
                continue
            done[trial] += 1
            score = curves[trial][done[trial] - 1]
            last = done[trial] == len(curves[trial])
            (decider.end if last else decider.report)(trial, done[trial], score)
        left = [t for t in running if t not in decider.stopped and done[t] < len(curves[t])]
        assert not left or any(trial not in decider.paused for trial in left), "every trial waits"
        running = left
    return done


@pytest.mark.parametrize("kind", ["steady", "crossing", "noisy"])
@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        (SchedulerSettings("none"), 4),
        (SchedulerSettings("asha", 1, 3.0), 9),
        (SchedulerSettings("asha", 2, 2.0), 20),
        (SchedulerSettings("asha", 1, 2.5), 10),
        (SchedulerSettings("median", 1, min_trials=3), 6),
        (SchedulerSettings("median", 3, min_trials=5), 8),
        (SchedulerSettings("hyperband", reduction_factor=3.0), 9),
        (SchedulerSettings("hyperband", reduction_factor=2.0), 8),
        (SchedulerSettings("hyperband", reduction_factor=3.0), 20),
    ],
    ids=lambda value: f"{value.name}-{value.grace_epochs}-{value.reduction_factor:g}" if hasattr(value, "name") else "",
)
def test_the_rules_decide_as_rays_schedulers(settings: SchedulerSettings, epochs: int, kind: str) -> None:
    draw = random.Random(f"{settings}{epochs}")
    worth = [draw.random() for _ in range(40)]
    noise = {"steady": 0.0, "crossing": 0.0, "noisy": 0.3}[kind]
    slope = 0.2 if kind == "crossing" else 0.001
    curves = [[w + slope * (0.5 - w) * epoch + noise * draw.random() for epoch in range(1, epochs + 1)] for w in worth]
    rule = rule_of(
        settings.name, epochs, settings.grace_epochs, settings.reduction_factor, min_trials=settings.min_trials
    )
    ours = last_epochs(OfRule(rule), curves)
    assert ours == last_epochs(OfRay(settings, epochs), curves)
    assert settings.name == "none" or min(ours) < epochs
