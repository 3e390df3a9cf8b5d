"""The schedulers of simulated sweeps against Ray's own, and by tables."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.schedulers.async_hyperband import _Bracket

from orchestrator.plan.stopping import GO, PAUSE, STOP, Asha, Hyperband, Median, Never, milestones, quantile, rule_of


@pytest.mark.parametrize(
    ("epochs", "grace", "reduction", "expected"),
    [
        (8, 2, 3.0, [2, 6]),
        (20, 2, 3.0, [2, 6, 18]),
        (9, 1, 3.0, [1, 3]),  # the last epoch is no milestone: there a trial is complete
        (10, 1, 2.5, [1, 3, 7]),  # 2.5 and 6.25: the first epochs after
        (3, 3, 3.0, []),
    ],
)
def test_milestones(epochs: int, grace: int, reduction: float, expected: list[int]) -> None:
    assert milestones(epochs, grace, reduction) == expected


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
    assert [rule.next_epoch(0, 0), rule.next_epoch(0, 2), rule.next_epoch(0, 9)] == [2, 3, 10]
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
