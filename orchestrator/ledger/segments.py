"""A sweep's events, and the Parquet segments that hold them.

A segment is named ``FIRST-LAST-CHECKSUM.parquet`` after the first and last ``seq`` in it and the first twelve hex
digits of the SHA-256 of its bytes. It is written under a temporary name, synced and renamed, and never changed again,
so at any instant a reader finds whole segments that form a prefix of the record.
``pandas.read_parquet(folder)`` opens the folder as it is.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchError
from orchestrator.ledger.compat import upgrade
from orchestrator.paths import command_line
from trainers.files.atomic import atomic_write_bytes

if TYPE_CHECKING:
    import pyarrow

_SEGMENT = re.compile(r"(\d{10})-(\d{10})-([0-9a-f]{12})\.parquet")


class EventKind(StrEnum):
    """SWEEP: opened, resumed, budget changed. STAGE: a stage began or ended. TRIAL: created, or its state changed.
    EPOCH: metrics of one epoch. NOTE: a plan, a promotion, an override, a warning."""

    SWEEP = "SWEEP"
    STAGE = "STAGE"
    TRIAL = "TRIAL"
    EPOCH = "EPOCH"
    NOTE = "NOTE"


REPLACED_WORKER = "replaced_worker"
"""Key of a NOTE's payload: ``jobs``, ``rss_bytes`` and ``machine_bytes`` of a worker that had outgrown its memory."""

METRICS = (
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "val_macro_f1",
    "learning_rate",
    "seconds",
    "train_images_per_s",
    "images_per_s",
)
"""Metrics of one epoch, named as in ``trainers.contract.EpochMetrics``."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row. ``seq`` counts from 1 without a gap; ``time_s`` is seconds since 1970.

    ``trial`` is "" in events about no trial, ``stage`` one of ``Stage`` or "". ``attempt`` counts a trial's starts from
    1. In a TRIAL event ``epoch`` is the number of epochs done so far. Missing metrics are None.
    ``fold`` 0 is the trial itself, whose metrics are means over its folds if it has any. EPOCH events of its folds
    1, 2, ... come before it and hold ``val_accuracy`` only. ``objectives`` are values in the sweep's order; ()
    if one is not a number. ``payload`` is JSON text.
    """

    seq: int
    time_s: float
    kind: str
    trial: str = ""
    stage: str = ""
    state: str = ""
    reason: str = ""
    attempt: int = 0
    fold: int = 0
    rung: int = 0
    epoch: int = 0
    loss: float | None = None
    accuracy: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    val_macro_f1: float | None = None
    learning_rate: float | None = None
    seconds: float | None = None
    train_images_per_s: float | None = None
    images_per_s: float | None = None
    objectives: tuple[float, ...] = ()
    payload: str = "{}"

    @property
    def data(self) -> Any:
        """``payload`` as a Python value."""
        return json.loads(self.payload)

    @property
    def metrics(self) -> dict[str, float | None]:
        return {name: getattr(self, name) for name in METRICS}


@dataclass(frozen=True)
class LedgerSegment:
    path: Path
    first: int
    last: int
    checksum: str

    @property
    def events(self) -> int:
        return self.last - self.first + 1


def list_segments(folder: Path) -> list[LedgerSegment]:
    found = []
    for path in folder.glob("*.parquet"):
        match = _SEGMENT.fullmatch(path.name)
        if match:
            found.append(LedgerSegment(path, int(match[1]), int(match[2]), match[3]))
    return sorted(found, key=lambda s: (s.first, -s.last, s.checksum))


def outermost(segments: Sequence[LedgerSegment]) -> list[LedgerSegment]:
    """Drop segments whose range lies within another's; ``segments`` are sorted as by ``list_segments``."""
    kept: list[LedgerSegment] = []
    for segment in segments:
        if not kept or segment.last > kept[-1].last:
            kept.append(segment)
    return kept


def worth_merging(segments: Sequence[LedgerSegment]) -> list[LedgerSegment]:
    """Choose the last segments to merge: from the first that holds no more events than all after it together. Pure.

    A merged segment is at least twice as large as the largest in it, so each event is rewritten about log2(n) times.
    [] if each segment holds more events than all after it, which 64 segments cannot.
    """
    start, after = len(segments), 0
    for i, segment in reversed(list(enumerate(segments))):
        if segment.events <= after:
            start = i
        after += segment.events
    return list(segments[start:])


@functools.cache
def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    types = {"int": pa.int64(), "float": pa.float64(), "float | None": pa.float64(), "str": pa.string()}
    types["tuple[float, ...]"] = pa.list_(pa.float64())
    return pa.schema([(f.name, types[str(f.type)]) for f in fields(Event)])


def write_segment(folder: Path, events: Sequence[Event]) -> LedgerSegment:
    """Write ``events``, with consecutive ``seq``, as one segment; durable on return."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [getattr(event, name) for event in events] for name in _schema().names}
    buffer = io.BytesIO()
    # Without dictionaries and statistics, which only filters use, a small segment takes half the bytes.
    pq.write_table(
        pa.Table.from_pydict(columns, schema=_schema()), buffer, use_dictionary=False, write_statistics=False
    )
    content = buffer.getvalue()
    first, last, checksum = events[0].seq, events[-1].seq, hashlib.sha256(content).hexdigest()[:12]
    path = folder / f"{first:010d}-{last:010d}-{checksum}.parquet"
    atomic_write_bytes(path, content)
    return LedgerSegment(path, first, last, checksum)


def read_events(folder: Path) -> list[Event]:
    """Read the events in ``folder`` in order, even while another process writes. Changes nothing.

    Raises OrchError that names a damaged or missing segment.
    """
    for attempt in range(20):
        try:
            return _read_segments(outermost(list_segments(Path(folder))), Path(folder))
        except FileNotFoundError:
            time.sleep(0.01 * attempt)  # merged away between the listing and the reading: list again
    raise OrchError(f"segments of {folder} are deleted while they are read; stop the program that deletes them.")


def _read_segments(segments: Sequence[LedgerSegment], folder: Path) -> list[Event]:
    import pyarrow.parquet as pq

    events: list[Event] = []
    resume = command_line("sweep", "--resume", "--out", folder.parent)
    # All bytes before the first is parsed, which takes a hundred times as long: a writer may merge segments meanwhile.
    contents = [segment.path.read_bytes() for segment in segments]
    for segment, content in zip(segments, contents, strict=True):
        if hashlib.sha256(content).hexdigest()[:12] != segment.checksum:
            raise OrchError(
                f"{segment.path} is damaged: its bytes do not match the checksum in its name. "
                "Restore that file from a copy; or move it and every later segment away and run "
                f"`{resume}`, which trains again what they recorded."
            )
        if segment.first != len(events) + 1:
            raise OrchError(
                f"{folder} misses events {len(events) + 1} to {segment.first - 1}: a segment before "
                f"{segment.path.name} is gone. Restore it from a copy; or move that and every later segment away "
                f"and run `{resume}`."
            )
        # small files: Arrow's threads gain nothing, and one that runs while Python exits aborts the process
        table = pq.read_table(io.BytesIO(content), use_threads=False, pre_buffer=False)
        events += [_event(row) for row in table.to_pylist()]
    return events


def _event(row: dict[str, Any]) -> Event:
    row = upgrade(row)
    return Event(**{**row, "objectives": tuple(row["objectives"])})
