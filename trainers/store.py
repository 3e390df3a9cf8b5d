"""Rows computed once and shared by every process that reads the same folder: decoded images, features.

A *shelf* holds rows of one kind, all of one shape; each row has a key. Rows lie in immutable segments, a ``.npy``
file each beside the list of its keys. A segment counts once its ``.keys`` file exists, which is renamed into place
last, so that a killed writer leaves nothing that anybody reads.

Keys are spread over buckets with a lock each: several workers that need the same rows compute different buckets.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout

from trainers.contract import TrainerError

BUCKETS = 16
IN_MEMORY_BYTES = 256 * 2**20
"""Sets of rows up to this size are copied into memory; larger ones are read from the files."""


class Rows:
    """Read-only rows in a given order. ``shape`` and ``dtype`` are one row's.

    Of a set larger than IN_MEMORY_BYTES only the rows just taken are in memory.
    """

    def __init__(self, segments: list[np.memmap], places: np.ndarray) -> None:
        """``places``: int (n, 2), the segment and the row in it of each of the n rows."""
        self._segments, self._places = segments, places
        self.shape = segments[0].shape[1:]
        self.dtype = segments[0].dtype
        self._dense: np.ndarray | None = None
        if self.nbytes <= IN_MEMORY_BYTES:
            self._dense = self._gather(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        return len(self) * int(np.prod(self.shape)) * self.dtype.itemsize

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the rows at ``indices``, shape (len(indices), *shape)."""
        return self._dense[indices] if self._dense is not None else self._gather(indices)

    def _gather(self, indices: np.ndarray) -> np.ndarray:
        """Read, not copied from the mapped files: pages of those would count as this process's memory and stay."""
        out = np.empty((len(indices), *self.shape), self.dtype)
        items = int(np.prod(self.shape))
        as_bytes = out.reshape(len(indices), items).view(np.uint8)
        places = self._places[indices]
        for number in np.unique(places[:, 0]):
            segment, chosen = self._segments[number], np.flatnonzero(places[:, 0] == number)
            try:
                file = os.open(segment.filename, os.O_RDONLY)
            except FileNotFoundError:  # the cache was emptied meanwhile; what is mapped is still there
                out[chosen] = segment[places[chosen, 1]]
                continue
            try:
                for i in chosen:
                    begin = segment.offset + int(places[i, 1]) * as_bytes.shape[1]
                    if os.preadv(file, [as_bytes[i]], begin) != as_bytes.shape[1]:
                        raise TrainerError(f"{segment.filename} was cut short; remove it and run again.")
            finally:
                os.close(file)
        return out


class Shelf:
    """Rows of one kind. ``description`` says everything that a row depends on besides its own key."""

    def __init__(self, cache: Path, kind: str, description: Mapping[str, Any]) -> None:
        text = json.dumps(description, sort_keys=True)
        self.folder = cache / kind / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._description = text
        self._opened: dict[Path, _Segment] = {}
        self._dtype: np.dtype | None = None
        self.written = 0
        """Rows that this object has computed so far."""

    def count(self, keys: Sequence[str]) -> int:
        """How many of ``keys`` are stored already. Computes nothing."""
        have = self._known_keys()
        return sum(key in have for key in set(keys))

    def has_room_for(self, rows: int, row_bytes: int) -> bool:
        """Whether a set of so many rows, stored ones included, fits on the disk."""
        there = next(folder for folder in self.folder.parents if folder.exists())
        return rows * row_bytes < shutil.disk_usage(there).free

    def rows(
        self, keys: Sequence[str], compute: Callable[[Sequence[int]], Iterator[np.ndarray]], dtype: Any = None
    ) -> Rows:
        """The rows of ``keys``, in that order; missing ones are computed first, and those of a damaged segment again.

        ``compute`` gets positions in ``keys`` and yields batches of rows in the same order. It is called in one
        process at a time for each bucket. Rows are kept in ``dtype``, or as they are computed. Raises TrainerError where the disk is full or not writable.
        """
        if not keys:
            raise TrainerError("no images were asked for; the split is empty.")
        wanted = {key: position for position, key in enumerate(keys)}
        self._dtype = None if dtype is None else np.dtype(dtype)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._fill(wanted, compute)
        except OSError as error:
            raise TrainerError(
                f"the cache {self.folder.parent.parent} cannot be written ({error.strerror or error}); free some space "
                "there, or set ORCH_CACHE to a folder on another disk."
            ) from error
        segments = list(self._opened.values())
        where = {
            key: (number, row) for number, s in enumerate(segments) for row, key in enumerate(s.keys) if key in wanted
        }
        return Rows([s.rows for s in segments], np.array([where[key] for key in keys], np.int64))

    def _fill(self, wanted: Mapping[str, int], compute: Callable[[Sequence[int]], Iterator[np.ndarray]]) -> None:
        pending = list(range(BUCKETS))
        random.Random(os.getpid()).shuffle(pending)  # workers begin in different places
        while pending:
            have = self._known_keys()
            missing = {key for key in wanted if key not in have}
            pending = [bucket for bucket in pending if any(_bucket(key) == bucket for key in missing)]
            left: list[int] = []
            for bucket in pending:
                # Another's bucket is skipped at first, and only waited for when nothing else is left to do.
                wait = len(left) == len(pending) - 1
                try:
                    with FileLock(self.folder / f".{bucket:02d}.lock", timeout=3600 if wait else 0):
                        have = self._known_keys()
                        keys = sorted(k for k in missing if _bucket(k) == bucket and k not in have)
                        if keys:
                            self._write(bucket, keys, compute([wanted[k] for k in keys]))
                except Timeout:
                    left.append(bucket)
            pending = left
        self._known_keys()

    def _write(self, bucket: int, keys: list[str], batches: Iterator[np.ndarray]) -> None:
        """Only under the bucket's lock: what a killed writer of it left half done is written over."""
        stem = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        data, names = (self.folder / f".{bucket:02d}.{kind}.half" for kind in ("npy", "keys"))
        try:
            # Written, not mapped: on a full disk a mapped page kills the process, where a write says why.
            with data.open("wb") as file:
                done = 0
                for batch in batches:
                    batch = batch if self._dtype is None else batch.astype(self._dtype)
                    if not done:
                        _write_header(file, batch.dtype, (len(keys), *batch.shape[1:]))
                    file.write(np.ascontiguousarray(batch).tobytes())
                    done += len(batch)
                file.flush()
                os.fsync(file.fileno())
            if done != len(keys):
                raise AssertionError(f"{done} rows were computed where {len(keys)} were asked for")
            names.write_text("\n".join(keys))
            (self.folder / "description.json").write_text(self._description)
            os.replace(data, self.folder / f"{stem}.npy")
            os.replace(names, self.folder / f"{stem}.keys")
            self.written += len(keys)
        finally:
            data.unlink(missing_ok=True)
            names.unlink(missing_ok=True)

    def _known_keys(self) -> set[str]:
        """The keys of all sound segments, of which new ones are opened."""
        for file in sorted(self.folder.glob("*.keys")):
            if file not in self._opened:
                segment = _open_segment(file)
                if segment is not None:
                    self._opened[file] = segment
        return {key for segment in self._opened.values() for key in segment.keys}


@dataclass(frozen=True)
class _Segment:
    keys: list[str]
    rows: np.memmap


def _open_segment(file: Path) -> _Segment | None:
    """The segment whose list of keys is ``file``; None where rows are missing, cut short or not as many as keys.

    Whoever needs such rows computes them again, into a segment that takes its place.
    """
    try:
        keys = file.read_text().split("\n")
        rows = np.load(file.with_suffix(".npy"), mmap_mode="r")
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return _Segment(keys, rows) if len(rows) == len(keys) else None


def _write_header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _bucket(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:4], 16) % BUCKETS
