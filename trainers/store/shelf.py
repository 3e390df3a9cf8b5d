"""Rows computed once and shared by every process that reads the same folder: decoded images, features.

A *shelf* holds rows of one kind, shape and dtype, each with a key, in immutable segments (``trainers.store.segments``)
under the size limit of the cache folder (``trainers.store.eviction``). Keys are spread over buckets with one lock each,
so that several workers that need the same rows compute different buckets.

A row's checksum is verified the first time that a process reads it. A damaged row is never returned: it is computed
again and replaced on disk (``trainers.store.rows``).
"""

from __future__ import annotations

import contextlib
import hashlib
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
from trainers.store.eviction import NoRoom, has_room_for_rows, make_room
from trainers.store.rows import RELEASE_BYTES, Rows
from trainers.store.segments import (
    BUCKETS,
    FORMAT,
    OpenSegment,
    SegmentWriter,
    bucket_lock,
    open_segment,
    read_header,
    remove_leftovers,
    remove_segment,
    suffix,
)

SEGMENT_BYTES = 256 * 2**20
"""Maximum bytes of rows per segment: what a killed writer loses, and the unit of eviction."""
LOCK_TIMEOUT_S = 3600
"""Maximum seconds to wait for a bucket that another process writes, before looking at all missing buckets again."""
KEY_BYTES = 128
"""Bytes that a row's key and checksum take, in a forecast."""

Compute = Callable[[Sequence[int]], Iterator[np.ndarray]]


class Shelf:
    """Rows of one kind. ``description``: everything that a row depends on apart from its key, including the dtype if
    it is configurable."""

    def __init__(self, cache: Path, kind: str, description: Mapping[str, Any]) -> None:
        text = json.dumps(description, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder = cache / kind / f"{digest}{suffix()}"
        self.written = 0
        """Number of rows that this object has computed."""
        self._cache, self._kind = cache, kind
        self._description = {"format": FORMAT, "description": description}

    def count(self, keys: Iterable[str]) -> int:
        """Count the ``keys`` that are stored, from the headers of the segments."""
        return len(set(keys).intersection(self.keys()))

    def keys(self) -> set[str]:
        """Return the keys of all rows that are stored, from the headers of the segments."""
        return set(self.each_key())

    def each_key(self) -> Iterator[str]:
        """Yield the keys of all rows that are stored, one segment in memory at a time; one may come twice."""
        for header in map(read_header, self._files()):
            yield from () if header is None else header.keys

    def has_room_for(self, keys: Iterable[str], row_bytes: int) -> bool:
        """Whether all rows of ``keys``, including those already stored, fit under the limit of the cache at once.

        A forecast: rows that can be evicted count as free, and another process may take the room first. Raises
        TrainerError if ORCH_CACHE_GB is not a positive number.
        """
        return has_room_for_rows(self._cache, self.folder, frozenset(keys), row_bytes + KEY_BYTES)

    def rows(self, keys: Sequence[str], compute: Compute, dtype: Any = None) -> Rows:
        """The rows of ``keys``, in that order; missing ones are computed first.

        ``compute`` takes positions in ``keys`` and yields batches of rows in the same order. Only one process at a time
        calls it for a bucket. It is called again if a row is found damaged while the returned rows are in use. Rows are
        converted to ``dtype``, if given.
        Raises NoRoom if the disk is full or unusable, or the cache's limit leaves no room; TrainerError if a value
        overflows ``dtype``.
        """
        if not keys:
            raise TrainerError("there are no images to read; the split is empty.")
        request = _Request(self, keys, compute, None if dtype is None else np.dtype(dtype))
        return Rows(request, request.fill([]))

    def keep(self, keys: Sequence[str], rows: Callable[[Sequence[int]], np.ndarray]) -> None:
        """Store rows that are at hand, those of the positions in ``keys`` that ``rows`` is called with, without reading
        them again. A store that is full or cannot be written keeps none, and nothing fails."""
        with contextlib.suppress(NoRoom, TrainerError, OSError):
            _Request(self, keys, lambda positions: iter([rows(positions)]), None).fill([])

    def _files(self) -> list[Path]:
        try:
            names = os.listdir(self.folder)
        except OSError:  # missing, or another user's and closed
            return []
        return sorted(self.folder / name for name in names if name.endswith(".keys"))

    def _lock(self, bucket: int) -> FileLock:
        return bucket_lock(self._cache, self._kind, self.folder.name, bucket)

    def _write(self, bucket: int, keys: Sequence[str], batches: Iterator[np.ndarray]) -> None:
        """Write the rows of ``keys`` as new segments. Needs the bucket's lock."""
        remove_leftovers(self.folder, bucket)
        begin, writer, start = 0, None, time.perf_counter()
        try:
            for batch in batches:
                while len(batch):
                    if writer is None:
                        if begin == len(keys):
                            raise AssertionError(f"more rows were computed than the {len(keys)} requested")
                        rows = max(1, SEGMENT_BYTES // max(batch[0].nbytes, 1))
                        self.folder.mkdir(parents=True, exist_ok=True)
                        writer = SegmentWriter(self.folder, bucket, keys[begin : begin + rows], batch)
                        with make_room(self._cache, writer.needed, holds=(self.folder, bucket)):
                            writer.reserve()
                            self._describe()
                        begin += writer.missing
                    part, batch = batch[: writer.missing], batch[writer.missing :]
                    writer.add(part)
                    if not writer.missing:
                        writer.finish(time.perf_counter() - start)
                        writer, start = None, time.perf_counter()
            if writer is not None or begin != len(keys):
                raise AssertionError(f"fewer rows were computed than the {len(keys)} requested")
        finally:
            if writer is not None:
                writer.abandon()

    def _describe(self) -> None:
        """Write ``description.json``, for people. Needs ``make_room``'s lock, so that only one process writes it."""
        file = self.folder / "description.json"
        if not file.exists():
            atomic_write_text(file, json.dumps(self._description, sort_keys=True), durable=False)


@dataclass(frozen=True)
class _Request:
    """Some rows of a shelf, and how to compute them. A ``trainers.store.rows.RowSource``."""

    shelf: Shelf
    keys: Sequence[str]
    compute: Compute
    dtype: np.dtype | None

    def fill(self, opened: Iterable[OpenSegment]) -> list[OpenSegment]:
        """Open segments that hold every key: from ``opened`` first, then stored ones, then newly computed ones."""
        found = _OpenSegments({key: position for position, key in enumerate(self.keys)}, self.dtype, opened)
        try:
            found.open_holders(self.shelf._files())
            self._compute_missing(found)
        except OSError as error:
            raise NoRoom(
                f"the cache {self.shelf._cache} cannot be used ({error.strerror or error}); free space on its disk, "
                "check that you have write permission, or set ORCH_CACHE to a folder on another disk."
            ) from error
        return list(found.segments.values())

    def repair(self, damaged: Sequence[OpenSegment], opened: Iterable[OpenSegment]) -> list[OpenSegment]:
        """Replace segments that hold a damaged row, unless another process has done so; then as ``fill``."""
        wanted = {key: position for position, key in enumerate(self.keys)}
        try:
            for segment in damaged:
                with self.shelf._lock(segment.header.bucket):
                    if segment.is_on_disk():
                        self._replace(segment, wanted)
        except OSError as error:
            raise NoRoom(
                f"damaged rows in the cache {self.shelf._cache} cannot be replaced ({error.strerror or error}); "
                "free space on its disk, check that you have write permission, or set ORCH_CACHE to a folder on "
                "another disk."
            ) from error
        return self.fill(segment for segment in opened if segment not in damaged)

    def _replace(self, segment: OpenSegment, wanted: Mapping[str, int]) -> None:
        """Rewrite a segment's intact rows together with the damaged ones of this request, then remove it.

        Damaged rows outside this request are dropped; a request for them computes them again.
        """
        keys, step = segment.header.keys, max(1, RELEASE_BYTES // max(segment.header.row_bytes, 1))
        intact = np.concatenate([segment.intact(b, min(b + step, len(keys))) for b in range(0, len(keys), step)])
        kept = np.flatnonzero(intact)
        lost = [keys[row] for row in np.flatnonzero(~intact) if keys[row] in wanted]

        def batches() -> Iterator[np.ndarray]:
            for begin in range(0, len(kept), step):
                yield segment.rows[kept[begin : begin + step]]
            yield from self.computed([wanted[key] for key in lost])

        if len(kept) or lost:
            self.shelf._write(segment.header.bucket, [keys[row] for row in kept] + lost, batches())
        remove_segment(segment.header.keys_file)

    def _compute_missing(self, found: _OpenSegments) -> None:
        order = list(range(BUCKETS))
        random.Random(os.getpid()).shuffle(order)  # workers start with different buckets
        while missing := found.missing():
            pending = [bucket for bucket in order if bucket in missing]
            busy: list[int] = []
            for bucket in pending:
                # Skip a bucket that another process writes, and wait for it only if all others are skipped too.
                wait = len(busy) == len(pending) - 1
                try:
                    with self.shelf._lock(bucket).acquire(timeout=LOCK_TIMEOUT_S if wait else 0):
                        found.open_holders(self.shelf._files())
                        keys = sorted(found.missing().get(bucket, ()))
                        if keys:
                            self.shelf._write(bucket, keys, self.computed([found.wanted[key] for key in keys]))
                            found.open_holders(self.shelf._files())  # under the lock, before it can be evicted
                except Timeout:
                    busy.append(bucket)
            found.open_holders(self.shelf._files())

    def computed(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield batches from ``compute`` in the dtype to store, and count them in ``Shelf.written``.

        Raises TrainerError if a value overflows the dtype.
        """
        if not positions:
            return
        for batch in self.compute(positions):
            kept = batch
            if self.dtype is not None and batch.dtype != self.dtype:
                with np.errstate(over="ignore"):
                    kept = batch.astype(self.dtype)
                if np.issubdtype(self.dtype, np.floating) and not np.array_equal(np.isfinite(kept), np.isfinite(batch)):
                    raise TrainerError(
                        f"some rows hold numbers too large for {self.dtype}; set resources.store_dtype: {batch.dtype}."
                    )
            self.shelf.written += len(kept)
            yield kept


class _OpenSegments:
    """Open segments that hold requested keys, and the keys still missing."""

    def __init__(self, wanted: dict[str, int], dtype: np.dtype | None, opened: Iterable[OpenSegment]) -> None:
        self.wanted, self._dtype = wanted, dtype
        self.segments: dict[Path, OpenSegment] = {}
        self._missing = set(wanted)
        self._irrelevant: set[Path] = set()
        for segment in opened:
            self._add(segment)

    def open_holders(self, files: Iterable[Path]) -> None:
        """Open the segments of ``files`` that hold a missing key."""
        for keys_file in files:
            if not self._missing or keys_file in self.segments or keys_file in self._irrelevant:
                continue
            header = read_header(keys_file)
            if header is None:
                continue
            if self._missing.isdisjoint(header.keys):
                self._irrelevant.add(keys_file)  # the set of missing keys only shrinks
                continue
            if self._dtype is not None and header.dtype != self._dtype:
                raise ValueError(
                    f"{keys_file.parent} holds {header.dtype}, not {self._dtype}; include the dtype in the description"
                )
            segment = open_segment(header)
            if segment is not None:
                self._add(segment)

    def _add(self, segment: OpenSegment) -> None:
        self.segments[segment.header.keys_file] = segment
        self._missing.difference_update(segment.header.keys)

    def missing(self) -> dict[int, list[str]]:
        """Bucket -> its keys that no open segment holds."""
        by_bucket: dict[int, list[str]] = {}
        for key in self._missing:
            by_bucket.setdefault(bucket_of(key), []).append(key)
        return by_bucket


def bucket_of(key: str) -> int:
    """The bucket of a key: a hash of what precedes the first colon, so that copies and crops of an image share one."""
    return int(hashlib.sha256(key.partition(":")[0].encode()).hexdigest()[:4], 16) % BUCKETS
