"""The stage ``plan``: plan a sweep before it trains, and compare the plan with what happened."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.errors import OrchError, TransientError
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.paths import cache_folder, command_line
from orchestrator.plan.calibrate import CalibrationRequest, calibrated, doubts, known
from orchestrator.plan.calibration import Calibration
from orchestrator.plan.calibration_file import read_calibration, write_calibration
from orchestrator.plan.learning import learn
from orchestrator.plan.plan import refusals
from orchestrator.plan.plan_file import (
    ROUGH_DRAWS,
    WORTH_CALIBRATING_S,
    free_bytes,
    growth_bytes,
    planned,
)
from orchestrator.plan.playthrough import TOTAL
from orchestrator.plan.stage_times import RecordedPlan, actual, compare_stages, last_plan
from orchestrator.spec.slots import Resources, slots_of
from orchestrator.sweep.context import SweepContext
from trainers.data.manifest import Manifest


@dataclass(frozen=True)
class PlanRequest:
    """What a sweep knows when it plans. ``has``: resources of the cluster. ``ray_s``: seconds that Ray took to start.
    ``anyway``: start whatever the plan says."""

    has: Resources
    address: str = ""
    ray_s: float = 0.0
    anyway: bool = False


def plan_sweep(sweep: SweepContext, manifest: Manifest, about: PlanRequest) -> None:
    """Plan the sweep before it trains, and record the plan. Ray must be up.

    Without a calibration of this space on this machine, one is made only if ``budget.hours`` is given or the sweep is
    long; else only the disk is checked. A resumed sweep keeps its first plan.

    Raises OrchError if the sweep fits neither its hours nor the disk, unless ``about.anyway``.
    """
    if any(record.stage == Stage.SEARCH for record in sweep.state().trials.values()):
        return
    spec, began_s = sweep.spec, time.monotonic()
    slots = slots_of(spec, about.has)
    request = CalibrationRequest(spec, manifest, slots, cache_folder(), about.address)
    calibration = _calibration_for(sweep, request, about)
    if calibration is None:
        return
    result = planned(request, calibration, share=sweep.share)
    _refuse(sweep, result.refusals, about.anyway)
    payload: dict[str, Any] = {"plan": result.plan.to_dict(), "share": sweep.share, "budget": spec.budget.trials}
    payload |= {"refusals": list(result.refusals), "planning_s": time.monotonic() - began_s}
    payload["warnings"] = list(result.warnings)
    payload["calibration"] = {"machine": request.machine, "precision": request.precision, "data": request.data}
    sweep.record(EventKind.NOTE, stage=Stage.PLAN, payload=payload)


def _calibration_for(sweep: SweepContext, request: CalibrationRequest, about: PlanRequest) -> Calibration | None:
    """Return this machine's calibration, measured now if the sweep is long enough; None, with a note, for no plan.

    Raises OrchError if the disk alone is too small."""
    kept, has_hours = known(request), request.spec.budget.hours is not None
    if kept is not None and not doubts(request, kept):
        return kept
    rough = kept or Calibration(request.machine, request.slots.workers, 0.0)
    plan = planned(request, rough, ROUGH_DRAWS).plan
    if kept is None:
        # What was not measured may be wrong by far: enough to decide whether to measure, not to refuse for hours.
        free, growth = free_bytes(request.cache), growth_bytes(request.cache)
        _refuse(sweep, refusals(plan, None, free, growth), about.anyway)
    if not has_hours and plan.stages[TOTAL].mean < WORTH_CALIBRATING_S:
        if kept is None:
            sweep.note(
                Stage.PLAN, "none: it looks short, and this machine was not measured for it yet; `orch plan` does that"
            )
        return kept
    try:
        return calibrated(request, ray_s=about.ray_s, tell=lambda text: sweep.note(Stage.PLAN, text))
    except OrchError as error:  # a sweep does not need its plan
        why = error.what if isinstance(error, TransientError) else error  # the sweep goes on
        sweep.note(Stage.PLAN, f"{'by what was measured before' if kept else 'none'}: {why}")
        return kept


def _refuse(sweep: SweepContext, refused: Sequence[str], anyway: bool) -> None:
    """Raise OrchError with the reasons against the sweep; if it is to start anyway, warn of them."""
    if refused and not anyway:
        start = command_line("sweep", "--resume", "--out", sweep.paths.root, "--anyway")
        raise OrchError(
            f"{' '.join(refused)} Nothing was trained yet: change the file and start again with `--fresh`, or start "
            f"anyway: `{start}`"
        )
    for sentence in refused:
        sweep.warn(sentence)


def compare_with_plan(sweep: SweepContext) -> None:
    """Record how the plan compares with what happened, and correct the kept calibration; nothing without a plan."""
    events = sweep.ledger.events()
    noted = last_plan(events)
    if noted is None:
        return
    if noted.budget != sweep.spec.budget.trials:
        sweep.note(Stage.PLAN, f"not compared: it was of {noted.budget} trials, and the sweep ran another number")
        return
    times = actual(events)
    rows = compare_stages(noted.plan, times.to_dict(), noted.share)
    payload: dict[str, Any] = {"compared": [dataclasses.asdict(row) for row in rows], "processes": times.processes}
    payload["unplanned"] = {name: times.seconds[name] for name in (Stage.DATA, Stage.PLAN) if name in times.seconds}
    sweep.record(EventKind.NOTE, stage=Stage.PLAN, payload=payload)
    if noted.share:
        _learn(sweep, noted, events)


def _learn(sweep: SweepContext, noted: RecordedPlan, events: Sequence[Event]) -> None:
    """Correct the kept calibration, from which ``noted`` was made, by the times of the sweep."""
    cache = cache_folder()
    kept = read_calibration(cache, noted.machine) if noted.machine else None
    if kept is None:
        return
    learned = learn(kept.calibration, events, noted.precision, same_data=kept.data in ("", noted.data))
    if learned.calibration == kept.calibration:
        return
    try:
        write_calibration(cache, replace(kept, calibration=learned.calibration))
    except OrchError as error:
        sweep.warn(str(error))
        return
    sweep.note(
        Stage.PLAN,
        f"{learned.changed} figures of this machine's speed were off, by {learned.largest:.1f} times at the "
        "most; corrected in part for the next plan",
    )
