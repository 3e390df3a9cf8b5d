"""The rows of an epoch in pieces: as many batches at once as memory may hold, so that one call trains them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trainers.store import shelf
from trainers.store.shelf import Rows
from trainers.training.features import ReadRows, RowSubset

CHUNK_BYTES = 64 * 2**20
"""What the rows of one chunk may take; a chunk holds one batch at least. While it is used, the next may be read."""


@dataclass(frozen=True)
class Chunk:
    """Some batches of an epoch. ``rows[offsets[i]:offsets[i + 1]]`` is batch ``first + i`` of the epoch.

    ``chosen``: which examples they are, int (n,). ``offsets``: int32 (batches + 1,).
    """

    first: int
    chosen: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


def chunks(rows: ReadRows, batches: Sequence[np.ndarray]) -> Iterator[Chunk]:
    """``batches`` of indices, in order, with their rows. What lies on disk is read while the chunk before is used."""
    groups = _groups(batches, max(1, int(np.prod(rows.shape)) * np.dtype(rows.dtype).itemsize))
    if not _on_disk(rows) or len(groups) < 2:
        for first, group in groups:
            yield _read(rows, first, group)
        return
    with ThreadPoolExecutor(1, "read-rows") as reader:
        upcoming = reader.submit(_read, rows, *groups[0])
        for first, group in groups[1:]:
            chunk = upcoming.result()
            upcoming = reader.submit(_read, rows, first, group)
            yield chunk
        yield upcoming.result()


def _groups(batches: Sequence[np.ndarray], row_bytes: int) -> list[tuple[int, Sequence[np.ndarray]]]:
    """(number of the first batch, batches) of each chunk: as many as CHUNK_BYTES holds, shared out evenly."""
    sizes = np.array([len(batch) for batch in batches])
    most = max(1, CHUNK_BYTES // max(1, int(sizes.max()) * row_bytes))
    parts = np.array_split(np.arange(len(batches)), -(-len(batches) // most))
    return [(int(part[0]), batches[int(part[0]) : int(part[-1]) + 1]) for part in parts]


def _read(rows: ReadRows, first: int, batches: Sequence[np.ndarray]) -> Chunk:
    chosen = np.concatenate(batches)
    offsets = np.cumsum([0, *(len(batch) for batch in batches)]).astype(np.int32)
    return Chunk(first, chosen, offsets, rows.take(chosen))


def _on_disk(rows: ReadRows) -> bool:
    """Whether taking rows waits for files; what is computed anew would only take the step's own threads."""
    while isinstance(rows, RowSubset):
        rows = rows.rows
    return isinstance(rows, Rows) and rows.nbytes > shelf.IN_MEMORY_BYTES
