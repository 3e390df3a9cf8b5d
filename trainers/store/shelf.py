"""Rows computed once and shared by every process that reads the same folder: decoded images, features.

A *shelf* holds rows of one kind, all of one shape and dtype; each row has a key. Rows lie in immutable segments
(``trainers.store.segments``), under the limit of the cache folder (``trainers.store.eviction``). Keys are spread over
buckets with a lock each: several workers that need the same rows compute different buckets.

A row's checksum is compared the first time a process reads it. One that is not what was written is computed again and
replaced on the disk; nobody gets it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write_text
from trainers.store.eviction import NoRoom, has_room_for_set, room
from trainers.store.segments import (
    BUCKETS,
    FORMAT,
    OpenSegment,
    SegmentWriter,
    bucket_lock,
    checksums_of,
    open_segment,
    read_header,
    remove_leftovers,
    remove_segment,
    suffix,
)

IN_MEMORY_BYTES = 256 * 2**20
"""Sets of rows up to this size are copied into memory; larger ones are read from the files."""
SEGMENT_BYTES = 256 * 2**20
"""Rows of a bucket go into segments of this size at most: what a killed writer loses, what goes when room is needed."""
RELEASE_BYTES = 32 * 2**20
"""So much of the mapped files may count as this process's memory before it is given back."""
FAULT_BYTES = 2 * 2**20
"""So much around a row may come into memory with it: Linux maps a large page of the file at once."""

Compute = Callable[[Sequence[int]], Iterator[np.ndarray]]


class Rows:
    """Read-only rows in a given order. ``shape`` and ``dtype`` are one row's.

    Of a set larger than IN_MEMORY_BYTES only the rows just taken are in memory, and its segments cannot be removed
    while this object lives. Several threads may take.
    """

    def __init__(self, request: _Request, segments: list[OpenSegment]) -> None:
        self._request = request
        self._count = len(request.keys)
        self._where = _places(request.keys, segments)
        self._mapped = _Mapped()
        self.shape, self.dtype = segments[0].head.shape, segments[0].head.dtype
        self._dense: np.ndarray | None = None
        if self.nbytes <= IN_MEMORY_BYTES:
            self._dense = self._gather(np.arange(len(self)))
            self._where, self._mapped = ([], np.empty((0, 2), np.int64)), _Mapped()  # the files are not needed any more

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self.shape)) * self.dtype.itemsize

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the rows at ``indices``, shape (len(indices), *shape).

        Raises TrainerError where a damaged row cannot be computed again.
        """
        if self._dense is not None:
            return self._dense[indices]
        return self._gather(np.asarray(indices, np.int64))

    def _gather(self, indices: np.ndarray) -> np.ndarray:
        out = np.empty((len(indices), *self.shape), self.dtype)
        segments, places = self._where
        damaged = self._mapped.read(segments, places[indices], out)
        if len(damaged):
            wrong = [segments[number] for number in np.unique(places[indices[damaged], 0])]
            again = np.empty((len(damaged), *self.shape), self.dtype)
            try:
                self._where = segments, places = _places(self._request.keys, self._request.mend(wrong, segments))
            except NoRoom:  # whoever reads them on a better day replaces them
                return self._filled(out, damaged, indices)
            if len(self._mapped.read(segments, places[indices[damaged]], again)):
                raise TrainerError(
                    f"rows in {segments[0].head.names.parent} were damaged, computed again, and are damaged again; "
                    "check the disk, or set ORCH_CACHE to a folder on another one."
                )
            out[damaged] = again
        return out

    def _filled(self, out: np.ndarray, damaged: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """``out`` with its ``damaged`` rows, those at ``indices[damaged]``, computed for this once."""
        begin = 0
        for batch in self._request.computed(indices[damaged].tolist()):
            out[damaged[begin : begin + len(batch)]] = batch
            begin += len(batch)
        return out


def _places(keys: Sequence[str], segments: list[OpenSegment]) -> tuple[list[OpenSegment], np.ndarray]:
    """The segments, and for each key the number of its segment and of its row there, int (n, 2)."""
    where = {key: (number, row) for number, s in enumerate(segments) for row, key in enumerate(s.head.keys)}
    return segments, np.array([where[key] for key in keys], np.int64)


class _Mapped:
    """Reads rows from mapped segments, and gives the memory of what was read back once that is RELEASE_BYTES."""

    def __init__(self) -> None:
        self._segments: set[OpenSegment] = set()
        self._bytes = 0

    def read(self, segments: Sequence[OpenSegment], places: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy the rows at ``places`` into ``out``; the positions in ``out`` of those that are not what was written."""
        row_bytes = segments[0].head.row_bytes
        damaged = [np.empty(0, np.int64)]
        order = np.lexsort((places[:, 1], places[:, 0]))
        numbers = places[order, 0]
        begins = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(order)]
        for begin, end in itertools.pairwise(begins) if len(order) else ():
            segment = segments[numbers[begin]]
            if not segment.is_whole:
                damaged.append(order[begin:end])
                continue
            first, last = (int(places[order[place], 1]) for place in (begin, end - 1))
            span = (last - first + 1) * row_bytes + FAULT_BYTES
            touched = min(span, (end - begin) * (row_bytes + FAULT_BYTES))
            pieces = -(-touched // RELEASE_BYTES)
            for chosen in np.array_split(order[begin:end], pieces) if pieces > 1 else (order[begin:end],):
                rows = places[chosen, 1]
                out[chosen] = segment.rows[rows]
                damaged.append(_not_as_written(segment, rows, chosen, out))
                self._count(segment, touched // pieces)
        return np.concatenate(damaged)

    def _count(self, segment: OpenSegment, touched: int) -> None:
        self._segments.add(segment)
        self._bytes += touched
        if self._bytes > RELEASE_BYTES:
            segments, self._segments, self._bytes = self._segments, set(), 0
            for used in segments:
                used.release()


def _not_as_written(segment: OpenSegment, rows: np.ndarray, chosen: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Those of ``chosen``, the places in ``out`` of the segment's ``rows``, that are wrong. A row is compared once."""
    checked = segment.head.checked
    if checked[rows].all():
        return np.empty(0, np.int64)
    new = np.flatnonzero(~checked[rows])
    right = checksums_of(out[chosen[new]]) == segment.head.checksums[rows[new]]
    checked[rows[new[right]]] = True
    return chosen[new[~right]]


class Shelf:
    """Rows of one kind. ``description`` says everything that a row depends on besides its own key, the dtype included
    where there is a choice."""

    def __init__(self, cache: Path, kind: str, description: Mapping[str, Any]) -> None:
        text = json.dumps(description, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = cache / kind / f"{digest}{suffix()}"
        self.written = 0
        """Rows that this object has computed so far."""
        self._cache, self._kind = cache, kind
        self._description = {"format": FORMAT, "description": description}

    def count(self, keys: Iterable[str]) -> int:
        """How many of ``keys`` are stored. Reads the lists of keys, no rows; computes nothing."""
        wanted = set(keys)
        stored: set[str] = set()
        for names in self._files():
            head = read_header(names)
            if head is not None:
                stored.update(wanted.intersection(head.keys))
        return len(stored)

    def has_room_for(self, keys: Iterable[str], row_bytes: int) -> bool:
        """Whether all rows of ``keys``, stored ones included, can be stored at once under the limit of the cache.

        A forecast: what may be removed to make room counts as free, and others may take it first. Raises TrainerError
        where ORCH_CACHE_GB is no number.
        """
        key_bytes = 128
        return has_room_for_set(self._cache, self.folder, frozenset(keys), row_bytes + key_bytes)

    def rows(self, keys: Sequence[str], compute: Compute, dtype: Any = None) -> Rows:
        """The rows of ``keys``, in that order; missing ones are computed first.

        ``compute`` gets positions in ``keys`` and yields batches of rows in the same order. It is called in one process
        at a time for each bucket; and again whenever a row turns out to be damaged, as long as the rows are in use.
        Rows are kept in ``dtype``, or as they are computed.
        Raises NoRoom where the disk is full or cannot be used, or the limit of the cache leaves no room; TrainerError
        where a row is too large a number for ``dtype``.
        """
        if not keys:
            raise TrainerError("no images were asked for; the split is empty.")
        request = _Request(self, keys, compute, None if dtype is None else np.dtype(dtype))
        return Rows(request, request.fill([]))

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.keys"))

    def _lock(self, bucket: int) -> FileLock:
        return bucket_lock(self._cache, self._kind, self.folder.name, bucket)

    def _write(self, bucket: int, keys: Sequence[str], batches: Iterator[np.ndarray]) -> None:
        """Write the rows of ``keys`` as new segments. Only under the bucket's lock."""
        remove_leftovers(self.folder, bucket)
        begin, writer, start = 0, None, time.perf_counter()
        try:
            for batch in batches:
                while len(batch):
                    if writer is None:
                        if begin == len(keys):
                            raise AssertionError(f"more rows were computed than the {len(keys)} that were asked for")
                        rows = max(1, SEGMENT_BYTES // max(batch[0].nbytes, 1))
                        self.folder.mkdir(parents=True, exist_ok=True)
                        writer = SegmentWriter(self.folder, bucket, keys[begin : begin + rows], batch)
                        with room(self._cache, writer.needed, holds=(self.folder, bucket)):
                            writer.reserve()
                            self._describe()
                        begin += writer.missing
                    part, batch = batch[: writer.missing], batch[writer.missing :]
                    writer.add(part)
                    if not writer.missing:
                        writer.finish(time.perf_counter() - start)
                        writer, start = None, time.perf_counter()
            if writer is not None or begin != len(keys):
                raise AssertionError(f"fewer rows were computed than the {len(keys)} that were asked for")
        finally:
            if writer is not None:
                writer.abandon()

    def _describe(self) -> None:
        """Only while no one else makes room, so that one process writes it."""
        file = self.folder / "description.json"
        if not file.exists():
            atomic_write_text(file, json.dumps(self._description, sort_keys=True), durable=False)  # for people


@dataclass(frozen=True)
class _Request:
    """Some rows of a shelf, and how to compute them."""

    shelf: Shelf
    keys: Sequence[str]
    compute: Compute
    dtype: np.dtype | None

    def fill(self, opened: Iterable[OpenSegment]) -> list[OpenSegment]:
        """Segments that hold every key, open: those of ``opened`` first, then what is stored, then what is computed."""
        found = _Found({key: position for position, key in enumerate(self.keys)}, self.dtype, opened)
        try:
            found.look(self.shelf._files())
            self._compute_missing(found)
        except OSError as error:
            raise NoRoom(
                f"the cache {self.shelf._cache} cannot be used ({error.strerror or error}); free some space there, see "
                "that you may write to it, or set ORCH_CACHE to a folder on another disk."
            ) from error
        return list(found.segments.values())

    def mend(self, damaged: Sequence[OpenSegment], opened: Iterable[OpenSegment]) -> list[OpenSegment]:
        """Replace segments in which a row is wrong, unless another process has done so; then as ``fill``."""
        wanted = {key: position for position, key in enumerate(self.keys)}
        try:
            for segment in damaged:
                with self.shelf._lock(segment.head.bucket):
                    if segment.is_on_disk():
                        self._replace(segment, wanted)
        except OSError as error:
            raise NoRoom(
                f"damaged rows in the cache {self.shelf._cache} cannot be replaced ({error.strerror or error}); free "
                "some space there, see that you may write to it, or set ORCH_CACHE to a folder on another disk."
            ) from error
        return self.fill(segment for segment in opened if segment not in damaged)

    def _replace(self, segment: OpenSegment, wanted: Mapping[str, int]) -> None:
        """Write what is sound of a segment again, with the wrong rows that we know how to compute, and remove it.

        Wrong rows that are not of this request are left to whoever needs them.
        """
        keys, step = segment.head.keys, max(1, RELEASE_BYTES // max(segment.head.row_bytes, 1))
        sound = np.concatenate([segment.sound(b, min(b + step, len(keys))) for b in range(0, len(keys), step)])
        kept = np.flatnonzero(sound)
        lost = [keys[row] for row in np.flatnonzero(~sound) if keys[row] in wanted]

        def batches() -> Iterator[np.ndarray]:
            for begin in range(0, len(kept), step):
                yield segment.rows[kept[begin : begin + step]]
            yield from self.computed([wanted[key] for key in lost])

        if len(kept) or lost:
            self.shelf._write(segment.head.bucket, [keys[row] for row in kept] + lost, batches())
        remove_segment(segment.head.names)

    def _compute_missing(self, found: _Found) -> None:
        order = list(range(BUCKETS))
        random.Random(os.getpid()).shuffle(order)  # workers begin in different places
        while missing := found.missing():
            pending = [bucket for bucket in order if bucket in missing]
            left: list[int] = []
            for bucket in pending:
                # Another's bucket is skipped at first, and only waited for when nothing else is left to do.
                wait = len(left) == len(pending) - 1
                try:
                    with self.shelf._lock(bucket).acquire(timeout=3600 if wait else 0):
                        found.look(self.shelf._files())
                        keys = sorted(found.missing().get(bucket, ()))
                        if keys:
                            self.shelf._write(bucket, keys, self.computed([found.wanted[key] for key in keys]))
                            found.look(self.shelf._files())  # opened under the lock, so that nobody removes it first
                except Timeout:
                    left.append(bucket)
            found.look(self.shelf._files())

    def computed(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Batches from ``compute``, in the dtype that is kept, counted."""
        if not positions:
            return
        for batch in self.compute(positions):
            kept = batch
            if self.dtype is not None and batch.dtype != self.dtype:
                with np.errstate(over="ignore"):
                    kept = batch.astype(self.dtype)
                if np.issubdtype(self.dtype, np.floating) and not np.array_equal(np.isfinite(kept), np.isfinite(batch)):
                    raise TrainerError(
                        f"some rows hold numbers too large for {self.dtype}; keep them as {batch.dtype} "
                        f"(resources.store_dtype: {batch.dtype})."
                    )
            self.shelf.written += len(kept)
            yield kept


class _Found:
    """The segments that hold wanted keys, open, and which keys are missing still."""

    def __init__(self, wanted: dict[str, int], dtype: np.dtype | None, opened: Iterable[OpenSegment]) -> None:
        self.wanted, self._dtype = wanted, dtype
        self.segments: dict[Path, OpenSegment] = {}
        self._left = set(wanted)
        self._useless: set[Path] = set()
        for segment in opened:
            self._add(segment)

    def look(self, files: Iterable[Path]) -> None:
        """Open those of ``files`` that hold a key which no open segment holds."""
        for names in files:
            if not self._left or names in self.segments or names in self._useless:
                continue
            head = read_header(names)
            if head is None:
                continue
            if self._left.isdisjoint(head.keys):
                self._useless.add(names)  # what is missing only ever gets less
                continue
            if self._dtype is not None and head.dtype != self._dtype:
                raise ValueError(
                    f"{names.parent} holds {head.dtype}, not {self._dtype}; say the dtype in the description"
                )
            segment = open_segment(head)
            if segment is not None:
                self._add(segment)

    def _add(self, segment: OpenSegment) -> None:
        self.segments[segment.head.names] = segment
        self._left.difference_update(segment.head.keys)

    def missing(self) -> dict[int, list[str]]:
        """Bucket -> its keys that no segment holds."""
        found: dict[int, list[str]] = {}
        for key in self._left:
            found.setdefault(bucket_of(key), []).append(key)
        return found


def bucket_of(key: str) -> int:
    """Of what stands before the first colon: an image's copies and crops lie together, so it is decoded once."""
    return int(hashlib.sha256(key.partition(":")[0].encode()).hexdigest()[:4], 16) % BUCKETS
