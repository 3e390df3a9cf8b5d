"""Actual stage times of a sweep from its ledger, and their comparison with the recorded plan. Pure.

The time between two events belongs to the stage of the second. A killed process counts up to its last event; pauses
between processes do not count.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.plan.plan import PLANNED_STAGES, Plan
from orchestrator.plan.playthrough import START, TOTAL

STAGES = (START, Stage.DATA, Stage.PLAN, Stage.SEARCH, Stage.SELECT, Stage.REFIT, Stage.LEADERBOARD)
"""Stages of a sweep in order."""


@dataclass(frozen=True)
class StageTimes:
    """``seconds``: stage -> wall time over ``processes`` processes. ``build_s``: worker-seconds of prefills, which are
    part of ``search`` and ``refit``."""

    seconds: dict[str, float] = field(default_factory=dict)
    build_s: float = 0.0
    processes: int = 0

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, float]:
        """Return stage -> seconds, including ``prefill`` (worker-seconds) and ``total``."""
        return {**self.seconds, Stage.PREFILL: self.build_s, TOTAL: self.total_s}


def actual(events: Sequence[Event]) -> StageTimes:
    """Return the times of all processes that worked on the sweep, without the pauses between them."""
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
    """The events of each process, from a SWEEP event that says RUNNING to the next SWEEP event, if it was not killed.

    Events after that are of other commands, such as an export.
    """
    found: list[list[Event]] = []
    runs = False
    for event in events:
        begins = event.kind == EventKind.SWEEP and event.state == "RUNNING"
        if begins:
            found.append([])
        if runs or begins:
            found[-1].append(event)
        runs = begins or (runs and event.kind != EventKind.SWEEP)
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
    """Return the seconds that a worker spent on decoding and on the prefix, without waiting for other workers."""
    return float(event.data.get("decode_s", 0.0)) + float(event.data.get("prefix_s", 0.0))


@dataclass(frozen=True)
class StageComparison:
    """Planned and actual seconds of a stage. ``actual_s`` is NaN if the sweep did not reach it."""

    stage: str
    planned_s: float
    low_s: float
    high_s: float
    actual_s: float

    @property
    def ratio(self) -> float:
        """Actual over planned seconds; NaN if either is missing."""
        return self.actual_s / self.planned_s if self.planned_s > 0 else math.nan


def compare_stages(plan: Plan, actual_s: Mapping[str, float], share: bool = True) -> list[StageComparison]:
    """Compare plan and actual, one row per ``PLANNED_STAGES``. The total covers the stages that both have."""
    planned = plan.stages if share else plan.unshared
    rows = []
    for stage in PLANNED_STAGES[:-1]:
        span = planned[stage]
        rows.append(StageComparison(stage, span.mean, span.low, span.high, actual_s.get(stage, math.nan)))
    done = [row for row in rows if row.stage != Stage.PREFILL and math.isfinite(row.actual_s)]
    total = [sum(getattr(row, name) for row in done) for name in ("planned_s", "low_s", "high_s", "actual_s")]
    return [*rows, StageComparison(TOTAL, *total)] if done else rows


@dataclass(frozen=True)
class RecordedPlan:
    """A plan in the ledger. ``share``: whether the sweep shared features; ``budget``: its number of trials.

    ``machine``, ``precision``, ``data``: of the calibration that the plan was made from, "" if not recorded.
    """

    plan: Plan
    share: bool
    budget: int
    machine: str = ""
    precision: str = ""
    data: str = ""


def last_plan(events: Sequence[Event]) -> RecordedPlan | None:
    """Return the last plan in the ledger; None if there is none."""
    for event in reversed(events):
        if event.kind == EventKind.NOTE and event.stage == Stage.PLAN and "plan" in event.data:
            data = event.data
            source = data.get("calibration", {})
            return RecordedPlan(Plan.from_dict(data["plan"]), bool(data["share"]), int(data["budget"]), **source)
    return None
