"""The record of a sweep: an append-only list of events, and the state that is derived from them.

The events are the truth; what a trial's state is, or which stages are done, is never stored but derived by
``derive``. How events lie on the disk is the business of ``segments.py``.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock

from orchestrator.errors import OrchError
from orchestrator.ledger.segments import (
    METRICS,
    Event,
    EventKind,
    LedgerSegment,
    list_segments,
    outermost,
    read_events,
    worth_merging,
    write_segment,
)
from orchestrator.ledger.stages import Stage
from orchestrator.paths import SweepPaths

FLUSH_AFTER_S = 1.0
FLUSH_AFTER_EVENTS = 200
COMPACT_ABOVE_SEGMENTS = 64


class Ledger:
    """The one writer of a sweep's record. Use as a context manager, or ``close`` it.

    Opening takes the sweep's lock and reads what is there. State changes and stages are on disk when ``append``
    returns; epochs and notes at most ``FLUSH_AFTER_S`` later, given that ``flush_if_due`` is called now and then.
    Raises OrchError where another process writes already, or where a segment is damaged or missing.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = Path(folder)
        self._clock = clock
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(SweepPaths(self.folder.parent).lock)
        try:
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink()
            self._events = read_events(self.folder)
            found = list_segments(self.folder)
            self._segments = outermost(found)
            _delete([segment for segment in found if segment not in self._segments])
            self._states: dict[str, TrialState] = {}
            for event in self._events:
                _advance(self._states, event)
        except BaseException:
            self._lock.release()
            raise
        self._flushed = len(self._events)
        self._oldest_unflushed_s = math.inf

    def append(self, kind: EventKind, *, payload: Any = None, **values: Any) -> Event:
        """Add an event; ``values`` are fields of ``Event``, ``payload`` anything JSON can hold.

        Metrics that are NaN are kept as None. Raises OrchError for a change of state that cannot be.
        """
        values.setdefault("time_s", self._clock())
        if values.get("stage"):
            values["stage"] = str(Stage(values["stage"]))
        for name in METRICS:
            value = values.get(name)
            values[name] = None if value is None or math.isnan(value) else float(value)
        text = json.dumps({} if payload is None else payload, sort_keys=True, default=str)
        event = Event(seq=len(self._events) + 1, kind=str(kind), payload=text, **values)
        _advance(self._states, event)
        self._events.append(event)
        self._oldest_unflushed_s = min(self._oldest_unflushed_s, time.monotonic())
        if kind in (EventKind.TRIAL, EventKind.STAGE, EventKind.SWEEP):
            self.flush()
        else:
            self.flush_if_due()
        return event

    def events(self) -> list[Event]:
        """Every event so far, those not yet on disk included."""
        return list(self._events)

    def flush(self) -> None:
        """Write what is buffered as one segment; merge the small segments when there are too many."""
        waiting = self._events[self._flushed :]
        if not waiting:
            return
        self._segments.append(write_segment(self.folder, waiting))
        self._flushed = len(self._events)
        self._oldest_unflushed_s = math.inf
        if len(self._segments) > COMPACT_ABOVE_SEGMENTS:
            self._merge(worth_merging(self._segments))

    def flush_if_due(self) -> None:
        """Flush if an event has waited for ``FLUSH_AFTER_S`` or ``FLUSH_AFTER_EVENTS`` have gathered."""
        age_s = time.monotonic() - self._oldest_unflushed_s
        if age_s >= FLUSH_AFTER_S or len(self._events) - self._flushed >= FLUSH_AFTER_EVENTS:
            self.flush()

    def compact(self) -> None:
        """Merge all segments into one. At every instant on the way a reader finds the same events."""
        self.flush()
        if len(self._segments) > 1:
            self._merge(self._segments)

    def _merge(self, last: list[LedgerSegment]) -> None:
        """Write the events of the ``last`` segments as one, then delete them."""
        merged = write_segment(self.folder, self._events[last[0].first - 1 : last[-1].last])
        self._segments = [*self._segments[: len(self._segments) - len(last)], merged]
        _delete(last)

    def close(self) -> None:
        """Flush and give the lock back. May be called twice."""
        if self._lock.is_locked:
            self.flush()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _delete(superseded: Iterable[LedgerSegment]) -> None:
    for segment in superseded:
        segment.path.unlink()


def _take_lock(path: Path) -> filelock.FileLock:
    """The sweep's lock, holding this process's PID. Raises OrchError that names the PID of who has it."""
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        holder = path.read_text().strip() if path.exists() else ""
        raise OrchError(
            f"the sweep in {path.parent} is being run by another process (PID {holder or 'unknown'}); "
            "wait until it ends, or stop it with Ctrl-C there."
        ) from None
    path.write_text(f"{os.getpid()}\n")
    return lock


def running_process(paths: SweepPaths) -> str | None:
    """The PID of the process that runs the sweep, "unknown" before it has written it; None where none does.

    Holds a shared lock for an instant on a file opened for reading, so the file is neither made nor changed.
    """
    import fcntl

    try:
        file = paths.lock.open()
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "unknown"
        fcntl.flock(file, fcntl.LOCK_UN)
    return None


# --- derived state ------------------------------------------------------------------------------------------------


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
        """Whether a trial in this state may never change again."""
        return self in (TrialState.COMPLETED, TrialState.PRUNED, TrialState.STOPPED, TrialState.FAILED)


_ALLOWED: dict[TrialState | None, tuple[TrialState, ...]] = {
    None: (TrialState.PENDING,),
    TrialState.PENDING: (TrialState.PENDING, TrialState.RUNNING, TrialState.STOPPED, TrialState.FAILED),
    TrialState.RUNNING: tuple(s for s in TrialState if s != TrialState.RUNNING),
    TrialState.PAUSED: tuple(s for s in TrialState if s not in (TrialState.PAUSED, TrialState.COMPLETED)),
}


def _advance(states: dict[str, TrialState], event: Event) -> None:
    """Take ``event`` into ``states``. Raises OrchError for what cannot follow."""
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
    """What the ledger knows of one trial.

    ``epochs`` holds the metrics of each epoch in order, of the latest attempt; ``val_accuracy`` is the last one's.
    ``folds`` holds, epoch by epoch, the validation accuracy of each fold in order; () without folds.
    ``log`` is relative to the sweep's folder. ``created`` is the payload of the event that created it.
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
        """The last epoch's value of ``metric``; NaN where there is none."""
        value = self.epochs[-1].get(metric) if self.epochs else None
        return math.nan if value is None else float(value)

    @property
    def fold_val_accuracy(self) -> tuple[float, ...]:
        """The last epoch's validation accuracy of each fold; () without folds."""
        last = self.epochs[-1]["epoch"] if self.epochs else 0
        return tuple(value for epoch, _, value in sorted(self.folds) if epoch == last)


@dataclass(frozen=True)
class SweepState:
    """``stages`` holds the payload of the latest event of each stage, with its ``state``; ``notes`` and ``sweep`` the
    NOTE and SWEEP events."""

    trials: dict[str, TrialRecord] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[Event, ...] = ()
    sweep: tuple[Event, ...] = ()

    def counts(self) -> dict[str, int]:
        """State -> number of trials, in the order of ``TrialState``; states without a trial are left out."""
        found = [record.state for record in self.trials.values()]
        return {str(state): found.count(state) for state in TrialState if state in found}


def derive(events: Iterable[Event]) -> SweepState:
    """The state that ``events`` amount to. Pure. Raises OrchError for a change of state that cannot be."""
    states: dict[str, TrialState] = {}
    trials: dict[str, TrialRecord] = {}
    stages: dict[str, dict[str, Any]] = {}
    notes: list[Event] = []
    sweep: list[Event] = []
    for event in events:
        _advance(states, event)
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
    """``record`` after an EPOCH event: of a fold, or of the trial as a whole."""
    if event.fold:
        folds = tuple(row for row in record.folds if row[:2] < (event.epoch, event.fold))
        value = math.nan if event.val_accuracy is None else event.val_accuracy
        return replace(record, folds=(*folds, (event.epoch, event.fold, value)))
    kept = tuple(epoch for epoch in record.epochs if epoch["epoch"] < event.epoch)
    row = {"epoch": event.epoch, **event.metrics, "rung": event.rung, "time_s": event.time_s}
    return replace(record, epochs=(*kept, row))


def _apply(record: TrialRecord | None, event: Event) -> TrialRecord:
    """``record`` after a TRIAL event. PENDING again means a new attempt, which keeps ``event.epoch`` epochs."""
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
    """A ``pandas.DataFrame`` of one row a trial in the order of their creation; a configuration's fields are columns
    that start with ``config_``. ``epochs`` counts them; metrics are the last epoch's."""
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
