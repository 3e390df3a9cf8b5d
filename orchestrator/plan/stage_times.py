"""What each stage of a sweep really took, from its ledger. Pure.

The time between two events belongs to the stage that the second one ends or goes on with. A process that was killed
counts up to its last event, and the pause until the next process not at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage

START = "start"
"""Until the first worker does the search's work, reading the data and planning left out. No stage of the ledger."""
TOTAL = "total"

STAGES = (START, Stage.DATA, Stage.PLAN, Stage.SEARCH, Stage.SELECT, Stage.REFIT, Stage.LEADERBOARD)
"""In their order."""


@dataclass(frozen=True)
class StageTimes:
    """``seconds`` of each stage that was seen, over ``processes`` processes; ``build_s`` are worker-seconds of filling
    the store, which lie inside ``search`` (and ``refit``)."""

    seconds: dict[str, float] = field(default_factory=dict)
    build_s: float = 0.0
    processes: int = 0

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, float]:
        """Stage -> seconds, ``prefill`` (worker-seconds) and ``total`` among them."""
        return {**self.seconds, Stage.PREFILL: self.build_s, TOTAL: self.total_s}


def actual(events: Sequence[Event]) -> StageTimes:
    """The times of all processes that worked on the sweep, the pauses between them left out."""
    seconds: dict[str, float] = {}
    build_s, processes = 0.0, 0
    for process in _processes(events):
        processes += 1
        for stage, taken_s in _spans(process):
            seconds[stage] = seconds.get(stage, 0.0) + taken_s
        build_s += sum(_busy_s(event) for event in process if _is_build(event))
    ordered = {stage: seconds[stage] for stage in STAGES if stage in seconds}
    return StageTimes(ordered, build_s, processes)


def _processes(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each process: it begins with a SWEEP event that says RUNNING."""
    found: list[list[Event]] = []
    for event in events:
        if event.kind == EventKind.SWEEP and event.state == "RUNNING":
            found.append([])
        if found:
            found[-1].append(event)
    return found


def _spans(process: Sequence[Event]) -> list[tuple[str, float]]:
    """(stage, seconds) of the time before each event but the first."""
    work_s = _first_work_s(process)
    spans = []
    stage = START
    for before, event in itertools.pairwise(process):
        stage = _stage(event, stage)
        taken_s = max(event.time_s - before.time_s, 0.0)
        if stage == Stage.SEARCH and before.time_s < work_s:  # workers still start
            starting_s = min(taken_s, work_s - before.time_s)
            spans.append((START, starting_s))
            taken_s -= starting_s
        if event.kind == EventKind.NOTE and event.stage == Stage.PLAN:  # measuring the machine, mostly
            planning_s = taken_s if "text" in event.data else min(taken_s, float(event.data.get("planning_s", 0.0)))
            spans.append((Stage.PLAN, planning_s))
            taken_s -= planning_s
        spans.append((stage, taken_s))
    return [(stage, taken_s) for stage, taken_s in spans if taken_s > 0]


def _stage(event: Event, stage: str) -> str:
    """The stage that the time up to ``event`` belongs to; ``stage`` is the one so far."""
    if event.kind == EventKind.STAGE and event.stage == Stage.SEARCH and event.state == "BEGUN":
        return START
    if event.kind == EventKind.NOTE and stage == Stage.DATA:  # Ray starts after the data
        return START
    if event.stage == Stage.PREFILL and stage in (START, Stage.DATA):
        return Stage.SEARCH
    if event.stage in STAGES and event.kind != EventKind.NOTE:
        return str(event.stage)
    return stage


def _first_work_s(process: Sequence[Event]) -> float:
    """When the first worker began with an epoch, or to fill the store; infinite where none did in the search."""
    began = [
        event.time_s - (_wall_s(event) if _is_build(event) else event.seconds or 0.0)
        for event in process
        if (event.kind == EventKind.EPOCH and event.stage == Stage.SEARCH) or _is_build(event)
    ]
    return min(began, default=math.inf)


def _is_build(event: Event) -> bool:
    return bool(event.kind == EventKind.STAGE and event.stage == Stage.PREFILL and event.state == "ENDED")


def _wall_s(event: Event) -> float:
    return float(event.data.get("seconds", 0.0))


def _busy_s(event: Event) -> float:
    """What a worker spent on decoding and on the prefix; waiting for another worker is nobody's work."""
    return float(event.data.get("decode_s", 0.0)) + float(event.data.get("prefix_s", 0.0))
