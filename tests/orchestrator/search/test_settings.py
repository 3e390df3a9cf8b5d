"""The rungs of asha, and the rung that the ledger records."""

from __future__ import annotations

import pytest

from orchestrator.search.settings import SchedulerSettings, rungs


@pytest.mark.parametrize(
    ("epochs", "grace", "reduction", "expected"),
    [
        (8, 2, 3.0, [2, 6]),
        (20, 2, 3.0, [2, 6, 18]),
        (9, 1, 3.0, [1, 3]),  # the last epoch is no rung: there a trial is complete
        (10, 1, 2.5, [1, 3, 7]),  # 2.5 and 6.25: the first epochs after
        (3, 3, 3.0, []),
    ],
)
def test_milestones(epochs: int, grace: int, reduction: float, expected: list[int]) -> None:
    assert rungs(epochs, grace, reduction) == expected


@pytest.mark.parametrize(("grace", "reduction"), [(1, 2.0), (1, 2.5), (2, 3.0), (3, 4.0)])
def test_a_trial_reaches_the_next_rung_at_each_milestone(grace: int, reduction: float) -> None:
    settings = SchedulerSettings("asha", grace, reduction)
    reached = rungs(100, grace, reduction)
    assert [settings.rungs_passed(epoch) for epoch in reached] == list(range(1, len(reached) + 1))
    assert [settings.rungs_passed(epoch - 1) for epoch in reached] == list(range(len(reached)))


@pytest.mark.parametrize(
    ("settings", "passed"),
    [
        (SchedulerSettings("asha", 1, 3.0), {1: 1, 2: 1, 3: 2, 8: 2, 9: 3}),
        (SchedulerSettings("asha", 2, 4.0), {1: 0, 2: 1, 7: 1, 8: 2}),
        (SchedulerSettings("median"), {9: 0}),
    ],
)
def test_rungs_are_counted(settings: SchedulerSettings, passed: dict[int, int]) -> None:
    assert {epoch: settings.rungs_passed(epoch) for epoch in passed} == passed
