"""What the stages that train ask of ``run_trials``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.sweep.context import SweepContext

if TYPE_CHECKING:
    from orchestrator.search.settings import SearchSettings

FILL = "trainers.training.prefill:fill"
"""Dotted name of what a prefill job calls."""


def search_settings(sweep: SweepContext) -> SearchSettings:
    """Return the settings of the search, less the hours that earlier processes searched."""
    from orchestrator.search.settings import SchedulerSettings

    budget = sweep.spec.budget
    chosen = budget.scheduler
    first = sweep.spec.objective[0]
    scheduler = SchedulerSettings(chosen.name, chosen.grace_epochs, chosen.reduction_factor, chosen.min_trials, first)
    hours_left_s = math.inf if budget.hours is None else 3600 * budget.hours - seconds_searched(sweep.ledger.events())
    return dataclasses.replace(
        refit_settings(sweep, budget.epochs),
        stage=Stage.SEARCH,
        objectives=sweep.spec.objective,
        scheduler=scheduler,
        hours_left_s=max(hours_left_s, 0.0),
        target_accuracy=math.inf if budget.target_accuracy is None else budget.target_accuracy,
    )


def refit_settings(sweep: SweepContext, epochs: int) -> SearchSettings:
    """Return the settings of the refit: every trial runs all its epochs."""
    from orchestrator.search.settings import SchedulerSettings, SearchSettings

    budget, resources = sweep.spec.budget, sweep.spec.resources
    return SearchSettings(
        epochs=epochs,
        logs=sweep.paths.logs.resolve(),
        storage=sweep.paths.ray.resolve(),
        scheduler=SchedulerSettings("none"),
        cpus=resources.cpus,
        gpus=sweep.gpus_per_trial(),
        concurrent=budget.most_at_once,
        retries=budget.retries,
        fill=FILL,
        stage=Stage.REFIT,
    )


def seconds_searched(events: Sequence[Event]) -> float:
    """Sum the seconds that trials of the search ran, and prefills for them, without the pauses between processes."""
    total, first, last = 0.0, math.nan, math.nan
    searched: set[str] = set()
    for event in events:
        if event.kind == EventKind.SWEEP:  # a new process
            total += 0.0 if math.isnan(first) else last - first
            first = math.nan
        elif (event.trial and event.stage == Stage.SEARCH) or (
            event.stage == Stage.PREFILL and event.data["for"] in searched
        ):
            searched.add(event.trial)
            first = event.time_s if math.isnan(first) else first
            last = event.time_s
    return total + (0.0 if math.isnan(first) else last - first)
