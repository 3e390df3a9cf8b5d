"""A sweep's events, and the Parquet segments that hold them.

A segment is named ``FIRST-LAST-CHECKSUM.parquet`` after the first and last ``seq`` in it and the first twelve hex
digits of the SHA-256 of its bytes. It is written under a hidden name beside, synced and renamed, and never changed
again, so whoever reads at any instant reads whole segments that form a prefix of the record.
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
from trainers.files.atomic import atomic_write_bytes

if TYPE_CHECKING:
    import pyarrow

_SEGMENT = re.compile(r"(\d{10})-(\d{10})-([0-9a-f]{12})\.parquet")


class EventKind(StrEnum):
    """SWEEP: opened, resumed, budget changed. STAGE: began or ended. TRIAL: created or changed its state.
    EPOCH: metrics of one. NOTE: a promotion, an override, a warning."""

    SWEEP = "SWEEP"
    STAGE = "STAGE"
    TRIAL = "TRIAL"
    EPOCH = "EPOCH"
    NOTE = "NOTE"


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
"""The figures of one epoch, as ``trainers.contract.EpochMetrics`` names them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One row. ``seq`` counts from 1 without a gap; ``time_s`` is seconds since 1970.

    ``trial`` is "" where the event is about no trial. ``attempt`` counts the starts of a trial from 1.
    In a TRIAL event ``epoch`` is the number of epochs done so far. Metrics are None where there is none.
    ``fold`` 0 is the trial itself, whose figures are the mean over its folds if it has any; an EPOCH event of fold
    1, 2, ... comes before it and holds that fold's ``val_accuracy`` alone. ``objectives`` are the values of what the
    sweep is after, in its order; () where one of them is no number.
    ``payload`` is JSON text: a configuration, a stage's result, anything.
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
    """Those whose range lies within no other's; ``segments`` as ``list_segments`` sorts them."""
    kept: list[LedgerSegment] = []
    for segment in segments:
        if not kept or segment.last > kept[-1].last:
            kept.append(segment)
    return kept


def worth_merging(segments: Sequence[LedgerSegment]) -> list[LedgerSegment]:
    """Those at the end that should become one: from the first that holds no more events than all after it together.

    What is merged at least doubles the largest that goes into it, so an event is written again about log2(n) times,
    however long the record grows. None where each holds more than all after it, which 64 segments cannot. Pure.
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
    """Write ``events``, whose ``seq`` follow one another, as one segment. It is on the disk upon return."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [getattr(event, name) for event in events] for name in _schema().names}
    buffer = io.BytesIO()
    # Nobody filters these few rows: without dictionaries and statistics a small segment takes half the bytes.
    pq.write_table(
        pa.Table.from_pydict(columns, schema=_schema()), buffer, use_dictionary=False, write_statistics=False
    )
    content = buffer.getvalue()
    first, last, checksum = events[0].seq, events[-1].seq, hashlib.sha256(content).hexdigest()[:12]
    path = folder / f"{first:010d}-{last:010d}-{checksum}.parquet"
    atomic_write_bytes(path, content)
    return LedgerSegment(path, first, last, checksum)


def read_events(folder: Path) -> list[Event]:
    """The events in ``folder``, in order; safe while another process writes. Never changes anything.

    Raises OrchError that names the segment which is damaged or missing.
    """
    for attempt in range(20):
        try:
            return _read_segments(outermost(list_segments(Path(folder))), Path(folder))
        except FileNotFoundError:
            time.sleep(0.01 * attempt)  # merged away between the listing and the reading: list again
    raise OrchError(f"the segments of {folder} vanish while they are read; is something else deleting them?")


def _read_segments(segments: Sequence[LedgerSegment], folder: Path) -> list[Event]:
    import pyarrow.parquet as pq

    events: list[Event] = []
    for segment in segments:
        content = segment.path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:12] != segment.checksum:
            raise OrchError(
                f"{segment.path} is damaged: its bytes do not match the checksum in its name. "
                "Restore that file from a copy; or move it and every later segment away and run with --resume, "
                "which trains again what they recorded."
            )
        if segment.first != len(events) + 1:
            raise OrchError(
                f"{folder} misses events {len(events) + 1} to {segment.first - 1}: a segment before "
                f"{segment.path.name} is gone. Restore it from a copy; or move that and every later segment away "
                "and run with --resume."
            )
        events += [_event(row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]
    return events


def _event(row: dict[str, Any]) -> Event:
    row = upgrade(row)
    return Event(**{**row, "objectives": tuple(row["objectives"])})
