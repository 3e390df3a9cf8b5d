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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from trainers.contract import TrainerError

BUCKETS = 16
IN_MEMORY_BYTES = 256 * 2**20
"""Sets of rows up to this size are copied into memory; larger ones are read from the mapped files."""


class Rows:
    """Read-only rows in a given order. ``shape`` and ``dtype`` are one row's."""

    def __init__(self, segments: list[np.ndarray], places: np.ndarray) -> None:
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
        out = np.empty((len(indices), *self.shape), self.dtype)
        for i, (segment, row) in enumerate(self._places[indices]):
            out[i] = self._segments[segment][row]
        return out


class Shelf:
    """Rows of one kind. ``description`` says everything that a row depends on besides its own key."""

    def __init__(self, cache: Path, kind: str, description: Mapping[str, Any]) -> None:
        text = json.dumps(description, sort_keys=True)
        self.folder = cache / kind / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._description = text

    def rows(self, keys: Sequence[str], compute: Callable[[Sequence[int]], Iterator[np.ndarray]]) -> Rows:
        """The rows of ``keys``, in that order; missing ones are computed first.

        ``compute`` gets positions in ``keys`` and yields batches of rows in the same order. It is called in one
        process at a time for each bucket. Raises TrainerError where the disk is full or not writable.
        """
        if not keys:
            raise TrainerError("no images were asked for; the split is empty.")
        wanted = {key: position for position, key in enumerate(keys)}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._fill(wanted, compute)
        except OSError as error:
            raise TrainerError(
                f"the cache {self.folder.parent.parent} cannot be written ({error.strerror or error}); free some space "
                "there, or set ORCH_CACHE to a folder on another disk."
            ) from error
        segments, where = self._open()
        return Rows(segments, np.array([where[key] for key in keys], np.int64))

    def _fill(self, wanted: Mapping[str, int], compute: Callable[[Sequence[int]], Iterator[np.ndarray]]) -> None:
        pending = list(range(BUCKETS))
        random.Random(os.getpid()).shuffle(pending)  # workers begin in different places
        while pending:
            have = self._known_keys()
            missing = {key for key in wanted if key not in have}
            pending = [bucket for bucket in pending if any(_bucket(key) == bucket for key in missing)]
            left = []
            for bucket in pending:
                # Another's bucket is skipped at first, and only waited for when nothing else is left to do.
                wait = len(pending) == 1 or not (set(pending) - {bucket} - set(left))
                try:
                    with FileLock(self.folder / f".{bucket:02d}.lock", timeout=3600 if wait else 0):
                        have = self._known_keys()
                        keys = sorted(k for k in missing if _bucket(k) == bucket and k not in have)
                        if keys:
                            self._write(keys, compute([wanted[k] for k in keys]))
                except Timeout:
                    left.append(bucket)
            pending = left

    def _write(self, keys: list[str], batches: Iterator[np.ndarray]) -> None:
        stem = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        data, temporary = self.folder / f"{stem}.npy", self.folder / f".{stem}.{os.getpid()}.npy"
        out: np.memmap | None = None
        done = 0
        try:
            for batch in batches:
                if out is None:
                    out = np.lib.format.open_memmap(temporary, "w+", batch.dtype, (len(keys), *batch.shape[1:]))
                out[done : done + len(batch)] = batch
                done += len(batch)
            if out is None or done != len(keys):
                raise AssertionError(f"{done} rows were computed where {len(keys)} were asked for")
            out.flush()
            os.replace(temporary, data)
        finally:
            temporary.unlink(missing_ok=True)
        (self.folder / "description.json").write_text(self._description)
        beside = self.folder / f".{stem}.{os.getpid()}.keys"
        beside.write_text("\n".join(keys))
        os.replace(beside, self.folder / f"{stem}.keys")

    def _known_keys(self) -> set[str]:
        return {key for file in self.folder.glob("*.keys") for key in file.read_text().split("\n")}

    def _open(self) -> tuple[list[np.ndarray], dict[str, tuple[int, int]]]:
        segments, where = [], {}
        for number, file in enumerate(sorted(self.folder.glob("*.keys"))):
            segments.append(np.load(file.with_suffix(".npy"), mmap_mode="r"))
            for row, key in enumerate(file.read_text().split("\n")):
                where[key] = (number, row)
        return segments, where


def _bucket(key: str) -> int:
    return int(hashlib.sha256(key.encode()).hexdigest()[:4], 16) % BUCKETS
