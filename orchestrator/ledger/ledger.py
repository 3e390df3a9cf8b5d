"""The writer of a sweep's record: an append-only list of events.

What can be derived from the events is never stored: see ``state``. The format on disk: see ``segments``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.ledger.lock import take_lock
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
from orchestrator.ledger.state import TrialState, check_change
from orchestrator.paths import SweepPaths

FLUSH_AFTER_S = 1.0
"""Maximum seconds that an epoch or a note waits in memory."""
FLUSH_AFTER_EVENTS = 200
"""Maximum events that wait in memory."""
COMPACT_ABOVE_SEGMENTS = 64
"""Maximum segments in a folder before the last ones are merged."""


class Ledger:
    """The one writer of a sweep's record. Use as a context manager, or ``close`` it.

    Opening takes the sweep's lock and reads the record. State changes and stages are on disk when ``append`` returns;
    epochs and notes at most ``FLUSH_AFTER_S`` later, if ``flush_if_due`` is called that often.
    Raises OrchError if another process writes, or a segment is damaged or missing.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = Path(folder)
        self._clock = clock
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(SweepPaths(self.folder.parent).lock)
        try:
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink()
            self._events = read_events(self.folder)
            found = list_segments(self.folder)
            self._segments = outermost(found)
            _delete([segment for segment in found if segment not in self._segments])
            self._states: dict[str, TrialState] = {}
            for event in self._events:
                check_change(self._states, event)
        except BaseException:
            self._lock.release()
            raise
        self._flushed = len(self._events)
        self._oldest_unflushed_s = math.inf

    def append(self, kind: EventKind, *, payload: Any = None, **values: Any) -> Event:
        """Add an event; ``values`` are fields of ``Event``, ``payload`` anything that JSON can hold.

        NaN metrics become None. Raises OrchError for an illegal change of state, ValueError for an unknown stage.
        """
        values.setdefault("time_s", self._clock())
        if values.get("stage"):
            values["stage"] = str(Stage(values["stage"]))
        for name in METRICS:
            value = values.get(name)
            values[name] = None if value is None or math.isnan(value) else float(value)
        text = json.dumps({} if payload is None else payload, sort_keys=True, default=str)
        event = Event(seq=len(self._events) + 1, kind=str(kind), payload=text, **values)
        check_change(self._states, event)
        self._events.append(event)
        self._oldest_unflushed_s = min(self._oldest_unflushed_s, time.monotonic())
        if kind in (EventKind.TRIAL, EventKind.STAGE, EventKind.SWEEP):
            self.flush()
        else:
            self.flush_if_due()
        return event

    def events(self) -> list[Event]:
        """Return every event so far, including those not on disk yet."""
        return list(self._events)

    def flush(self) -> None:
        """Write buffered events as one segment; merge small segments if there are too many."""
        waiting = self._events[self._flushed :]
        if not waiting:
            return
        self._segments.append(write_segment(self.folder, waiting))
        self._flushed = len(self._events)
        self._oldest_unflushed_s = math.inf
        if len(self._segments) > COMPACT_ABOVE_SEGMENTS:
            self._merge(worth_merging(self._segments))

    def flush_if_due(self) -> None:
        """Flush if an event has waited for ``FLUSH_AFTER_S``, or ``FLUSH_AFTER_EVENTS`` are buffered."""
        age_s = time.monotonic() - self._oldest_unflushed_s
        if age_s >= FLUSH_AFTER_S or len(self._events) - self._flushed >= FLUSH_AFTER_EVENTS:
            self.flush()

    def compact(self) -> None:
        """Merge all segments into one. A reader finds the same events at every instant."""
        self.flush()
        if len(self._segments) > 1:
            self._merge(self._segments)

    def _merge(self, last: list[LedgerSegment]) -> None:
        """Write the events of the ``last`` segments as one, then delete them."""
        merged = write_segment(self.folder, self._events[last[0].first - 1 : last[-1].last])
        self._segments = [*self._segments[: len(self._segments) - len(last)], merged]
        _delete(last)

    def close(self) -> None:
        """Flush and release the lock. May be called twice."""
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
