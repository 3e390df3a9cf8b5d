"""The state of a sweep and of its trials, derived from the events of its ledger. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from orchestrator.errors import OrchError
from orchestrator.ledger.segments import METRICS, Event, EventKind


class TrialState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    PRUNED = "PRUNED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"

    @property
    def is_final(self) -> bool:
        """Whether a trial in this state never changes again."""
        return self in (TrialState.COMPLETED, TrialState.PRUNED, TrialState.STOPPED, TrialState.FAILED)


_ALLOWED: dict[TrialState | None, tuple[TrialState, ...]] = {
    None: (TrialState.PENDING,),
    TrialState.PENDING: (TrialState.PENDING, TrialState.RUNNING, TrialState.STOPPED, TrialState.FAILED),
    TrialState.RUNNING: tuple(s for s in TrialState if s != TrialState.RUNNING),
    TrialState.PAUSED: tuple(s for s in TrialState if s not in (TrialState.PAUSED, TrialState.COMPLETED)),
}


def check_change(states: dict[str, TrialState], event: Event) -> None:
    """Update ``states`` (trial -> state) by ``event``. Raises OrchError if it cannot follow."""
    if not event.trial:
        return
    before = states.get(event.trial)
    if event.kind == EventKind.TRIAL:
        after = TrialState(event.state)
        if after not in _ALLOWED.get(before, ()):
            raise OrchError(f"trial {event.trial} cannot go from {before or 'nothing'} to {after} (event {event.seq}).")
        states[event.trial] = after
    elif event.kind == EventKind.EPOCH and before != TrialState.RUNNING:
        raise OrchError(f"trial {event.trial} is {before or 'unknown'} and cannot report an epoch (event {event.seq}).")


@dataclass(frozen=True)
class TrialRecord:
    """What the ledger holds about one trial.

    ``epochs``: metrics of each epoch of the latest attempt, in order. ``folds``: validation accuracies by epoch and
    fold; () without folds. ``log`` is relative to the sweep's folder. ``created``: payload of its first event.
    """

    id: str
    name: str
    number: int
    stage: str
    config: dict[str, Any]
    state: TrialState
    reason: str = ""
    epochs: tuple[dict[str, Any], ...] = ()
    folds: tuple[tuple[int, int, float], ...] = ()  # epoch, fold, validation accuracy
    attempts: int = 0
    log: str = ""
    created_s: float = math.nan
    started_s: float = math.nan
    ended_s: float = math.nan
    created: dict[str, Any] = field(default_factory=dict)

    @property
    def val_accuracy(self) -> float:
        return self.figure("val_accuracy")

    def figure(self, metric: str) -> float:
        """Return the last epoch's value of ``metric``; NaN if there is none."""
        value = self.epochs[-1].get(metric) if self.epochs else None
        return math.nan if value is None else float(value)

    @property
    def fold_val_accuracy(self) -> tuple[float, ...]:
        """Validation accuracy of each fold in the last epoch; () without folds."""
        last = self.epochs[-1]["epoch"] if self.epochs else 0
        return tuple(value for epoch, _, value in sorted(self.folds) if epoch == last)


@dataclass(frozen=True)
class SweepState:
    """Trials by id, and what happened to the sweep.

    ``stages``: payload of each stage's latest event, with its ``state``. ``notes``, ``sweep``: NOTE and SWEEP events.
    """

    trials: dict[str, TrialRecord] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[Event, ...] = ()
    sweep: tuple[Event, ...] = ()

    def counts(self) -> dict[str, int]:
        """Count trials by state, in the order of ``TrialState``; states without a trial are left out."""
        found = [record.state for record in self.trials.values()]
        return {str(state): found.count(state) for state in TrialState if state in found}


def derive(events: Iterable[Event]) -> SweepState:
    """Derive the state from ``events``. Raises OrchError for an illegal change of state."""
    states: dict[str, TrialState] = {}
    trials: dict[str, TrialRecord] = {}
    stages: dict[str, dict[str, Any]] = {}
    notes: list[Event] = []
    sweep: list[Event] = []
    for event in events:
        check_change(states, event)
        if event.kind == EventKind.TRIAL:
            trials[event.trial] = _apply(trials.get(event.trial), event)
        elif event.kind == EventKind.EPOCH:
            trials[event.trial] = _with_epoch(trials[event.trial], event)
        elif event.kind == EventKind.STAGE:
            stages[event.stage] = {**event.data, "state": event.state}
        elif event.kind == EventKind.NOTE:
            notes.append(event)
        else:
            sweep.append(event)
    return SweepState(trials, stages, tuple(notes), tuple(sweep))


def _with_epoch(record: TrialRecord, event: Event) -> TrialRecord:
    """Return ``record`` after an EPOCH event of a fold or of the whole trial."""
    if event.fold:
        folds = tuple(row for row in record.folds if row[:2] < (event.epoch, event.fold))
        value = math.nan if event.val_accuracy is None else event.val_accuracy
        return replace(record, folds=(*folds, (event.epoch, event.fold, value)))
    kept = tuple(epoch for epoch in record.epochs if epoch["epoch"] < event.epoch)
    row = {"epoch": event.epoch, **event.metrics, "rung": event.rung, "time_s": event.time_s}
    return replace(record, epochs=(*kept, row))


def _apply(record: TrialRecord | None, event: Event) -> TrialRecord:
    """Return ``record`` after a TRIAL event. PENDING again starts a new attempt, which keeps ``event.epoch`` epochs."""
    state, data = TrialState(event.state), event.data
    if record is None:
        record = TrialRecord(
            event.trial,
            data.get("name") or event.trial,
            data.get("number", 0),
            event.stage,
            data.get("config", {}),
            state,
            created_s=event.time_s,
            created=data,
        )
    changes: dict[str, Any] = {"state": state, "reason": event.reason}
    if state == TrialState.PENDING:
        changes["epochs"] = tuple(epoch for epoch in record.epochs if epoch["epoch"] <= event.epoch)
        changes["folds"] = tuple(row for row in record.folds if row[0] <= event.epoch)
    if state == TrialState.RUNNING:
        changes["attempts"] = max(record.attempts, event.attempt)
        if math.isnan(record.started_s):
            changes["started_s"] = event.time_s
    if state.is_final:
        changes["ended_s"] = event.time_s
    if data.get("log"):
        changes["log"] = data["log"]
    return replace(record, **changes)


def trials_frame(state: SweepState) -> Any:
    """Return a ``pandas.DataFrame`` with one row per trial in order of creation.

    A configuration's fields are columns ``config_NAME``; ``epochs`` is their number, metrics are the last epoch's.
    """
    import pandas as pd

    rows = []
    for record in state.trials.values():
        last = record.epochs[-1] if record.epochs else {}
        row = {name: getattr(record, name) for name in ("id", "name", "number", "stage")}
        row |= {"state": str(record.state), "reason": record.reason, "epochs": len(record.epochs)}
        row |= {name: last.get(name) for name in METRICS if name != "seconds"}
        row["seconds"] = sum(epoch["seconds"] or 0.0 for epoch in record.epochs)
        row |= {name: getattr(record, name) for name in ("attempts", "log", "created_s", "started_s", "ended_s")}
        rows.append(row | {f"config_{key}": value for key, value in record.config.items()})
    return pd.DataFrame(rows)
