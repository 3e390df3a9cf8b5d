"""Which trial or prefill a free slot gets from the queue."""

from __future__ import annotations

from typing import Any

from orchestrator.search.next_step import LOOK_AHEAD
from orchestrator.search.queue import LiveTrial, TrialQueue
from orchestrator.search.source import FixedTrials, TrialRequest
from trainers.config import TrialConfig
from trainers.contract import FitJob


def job(**values: Any) -> FitJob:
    return FitJob("t", TrialConfig(**values), 0, "m")


class Learner(FixedTrials):
    """A source whose next trial depends on results."""

    @property
    def knows_next(self) -> bool:
        return False


def requests(count: int) -> list[TrialRequest]:
    return [TrialRequest(str(n), "", n, job(image_size=160 + 32 * (n % 3))) for n in range(count)]


def fill_up(queue: TrialQueue, source: FixedTrials, active: int, slots: int) -> int:
    while queue.may_ask(source, active, slots):
        request = source.ask()
        if request is None:
            break
        queue.add(LiveTrial(request, 1))
    return len(queue.waiting)


def test_a_source_is_asked_ahead_only_where_that_changes_nothing() -> None:
    assert fill_up(TrialQueue(True), FixedTrials(requests(20)), active=0, slots=2) == 2 + LOOK_AHEAD
    assert fill_up(TrialQueue(True), Learner(requests(20)), active=0, slots=2) == 2
    assert fill_up(TrialQueue(True), Learner(requests(20)), active=1, slots=2) == 1
    assert fill_up(TrialQueue(False), FixedTrials(requests(20)), active=0, slots=2) == 1


def test_trials_whose_rows_are_stored_run_while_others_are_filled() -> None:
    queue, source = TrialQueue(True), FixedTrials(requests(6))
    fill_up(queue, source, active=0, slots=2)
    first, second = queue.next("p1", True), queue.next("p2", True)
    assert [prefill.request.id for prefill in (first, second) if prefill] == ["0", "1"]
    queue.prefill_ended("p1")
    started = queue.next("t1", True), queue.next("t2", True)
    assert [live.request.id for live in started if live] == ["0", "3"]
    third = queue.next("p3", True)
    assert third is not None
    assert third.request.id == "2"
    helper = queue.next("p4", True)
    assert helper is not None
    assert helper.request.id == "1"
    for prefill in ("p2", "p3", "p4"):
        queue.prefill_ended(prefill)
    left = [queue.next(f"t{n}", True) for n in range(3, 8)]
    assert [live.request.id for live in left if live] == ["1", "2", "4", "5"]
    assert not queue.prefills
