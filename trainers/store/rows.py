"""Read-only views of stored rows: verified on first read, repaired if damaged, with bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from trainers.errors import TrainerError
from trainers.store.eviction import NoRoom
from trainers.store.segments import OpenSegment, checksums_of

IN_MEMORY_BYTES = 256 * 2**20
"""Maximum bytes of a set of rows that is copied into memory; larger sets are read from the files."""
RELEASE_BYTES = 32 * 2**20
"""Maximum bytes of mapped pages at a time."""
FAULT_BYTES = 2 * 2**20
"""Bytes of read-ahead assumed per row: Linux may map a whole large page of the file at once."""
READ_ALONE_BYTES = 16 * 2**10
"""Minimum bytes of a row that is read from its file by itself: mapping and releasing its pages takes longer."""


class RowSource(Protocol):
    """The rows of ``keys``, and how to replace damaged ones."""

    @property
    def keys(self) -> Sequence[str]: ...

    def repair(self, damaged: Sequence[OpenSegment], opened: Iterable[OpenSegment]) -> list[OpenSegment]: ...

    def computed(self, positions: Sequence[int]) -> Iterator[np.ndarray]: ...


class Rows:
    """Read-only rows in a given order. ``shape`` and ``dtype`` are of one row.

    A set larger than IN_MEMORY_BYTES stays in its files: only the rows taken last are in memory, and its segments are
    not evicted while this object lives. Thread-safe.
    """

    def __init__(self, source: RowSource, segments: list[OpenSegment]) -> None:
        """``segments``: together hold every key of ``source``."""
        self._source = source
        self._count = len(source.keys)
        self._located = _locate(source.keys, segments)
        self.shape, self.dtype = segments[0].header.shape, segments[0].header.dtype
        self._dense: np.ndarray | None = None
        if self.nbytes <= IN_MEMORY_BYTES:
            self._dense = self._gather(np.arange(len(self)))
            self._located = [], np.empty((0, 2), np.int64)  # drop the files

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def is_in_memory(self) -> bool:
        return self._dense is not None

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the rows at ``indices``, shape (len(indices), *shape).

        Raises TrainerError if a damaged row stays damaged after it was computed again.
        """
        if self._dense is not None:
            return np.take(self._dense, indices, axis=0)
        return self._gather(np.asarray(indices, np.int64))

    def _gather(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self.shape), self.dtype)
        segments, places = self._located
        damaged = _read(segments, places[indices], out)
        if len(damaged):
            affected = [segments[number] for number in np.unique(places[indices[damaged], 0])]
            again = np.empty((len(damaged), *self.shape), self.dtype)
            try:
                repaired = self._source.repair(affected, segments)
                self._located = segments, places = _locate(self._source.keys, repaired)
            except NoRoom:  # a later reader may be able to replace them
                return self._with_computed(out, damaged, indices)
            if len(_read(segments, places[indices[damaged]], again)):
                raise TrainerError(
                    f"rows in {segments[0].header.keys_file.parent} were damaged, computed again, and are damaged "
                    "again; check the disk, or set ORCH_CACHE to a folder on another one."
                )
            out[damaged] = again
        return out

    def _with_computed(self, out: np.ndarray, damaged: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Compute ``out[damaged]``, the rows at ``indices[damaged]``, for this call only."""
        begin = 0
        for batch in self._source.computed(indices[damaged].tolist()):
            out[damaged[begin : begin + len(batch)]] = batch
            begin += len(batch)
        return out


def _locate(keys: Sequence[str], segments: list[OpenSegment]) -> tuple[list[OpenSegment], np.ndarray]:
    """Return ``segments`` and, for each key, the index of its segment and of its row in it, int (n, 2)."""
    places = {key: (number, row) for number, s in enumerate(segments) for row, key in enumerate(s.header.keys)}
    return segments, np.array([places[key] for key in keys], np.int64)


def _read(segments: Sequence[OpenSegment], places: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Copy the rows at ``places`` into ``out``; return the positions in ``out`` of damaged rows.

    At most RELEASE_BYTES of the files' pages are mapped at a time.
    """
    row_bytes = segments[0].header.row_bytes
    damaged = [np.empty(0, np.int64)]
    order = np.lexsort((places[:, 1], places[:, 0]))
    numbers = places[order, 0]
    begins = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(order)]
    for begin, end in itertools.pairwise(begins) if len(order) else ():
        segment = segments[numbers[begin]]
        if not segment.is_whole:
            damaged.append(order[begin:end])
            continue
        if row_bytes >= READ_ALONE_BYTES:
            step = max(1, RELEASE_BYTES // row_bytes)
            for start in range(begin, end, step):
                damaged.append(_read_alone(segment, places, order[start : min(start + step, end)], out))
            continue
        first, last = (int(places[order[place], 1]) for place in (begin, end - 1))
        span = (last - first + 1) * row_bytes + FAULT_BYTES
        touched = min(span, (end - begin) * (row_bytes + FAULT_BYTES))
        pieces = -(-touched // RELEASE_BYTES)
        for chosen in np.array_split(order[begin:end], pieces) if pieces > 1 else (order[begin:end],):
            rows = places[chosen, 1]
            out[chosen] = segment.rows[rows]
            damaged.append(_damaged_rows(segment, rows, chosen, out))
    return np.concatenate(damaged)


def _read_alone(segment: OpenSegment, places: np.ndarray, chosen: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Read the rows at ``places[chosen]`` into ``out[chosen]`` one by one; return the damaged part of ``chosen``."""
    rows = places[chosen, 1]
    whole = [segment.read(row, out[place]) for place, row in zip(chosen.tolist(), rows.tolist(), strict=True)]
    read = np.array(whole, bool)
    return np.concatenate([chosen[~read], _damaged_rows(segment, rows[read], chosen[read], out)])


def _damaged_rows(segment: OpenSegment, rows: np.ndarray, chosen: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The subset of ``chosen``, positions in ``out`` of the segment's ``rows``, that is damaged.

    Verifies a row only the first time that the process reads it.
    """
    checked = segment.header.checked
    if checked[rows].all():
        return np.empty(0, np.int64)
    new = np.flatnonzero(~checked[rows])
    intact = checksums_of(out[chosen[new]]) == segment.header.checksums[rows[new]]
    checked[rows[new[intact]]] = True
    return chosen[new[~intact]]
