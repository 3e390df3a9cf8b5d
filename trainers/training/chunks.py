"""Rows of an epoch in chunks of as many batches as memory may hold, so that one call trains a whole chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from trainers.store.rows import Rows
from trainers.training.features import FreshRows, ReadRows, RowSubset

CHUNK_BYTES = 64 * 2**20
"""Maximum bytes of the rows of a chunk, which holds at least one batch. The next chunk may be read at the same time."""


@dataclass(frozen=True)
class Chunk:
    """Some batches of an epoch. ``rows[offsets[i]:offsets[i + 1]]`` is batch ``first + i`` of the epoch.

    ``chosen``: indices of the examples, int (n,). ``offsets``: int32 (batches + 1,).
    """

    first: int
    chosen: np.ndarray
    offsets: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


def chunks(rows: ReadRows, batches: Sequence[np.ndarray]) -> Iterator[Chunk]:
    """Yield ``batches`` of indices, in order, with their rows. Rows on disk, and those that are drawn
    in each epoch, are read one chunk ahead, in a thread."""
    groups = _groups(batches, max(1, int(np.prod(rows.shape)) * np.dtype(rows.dtype).itemsize))
    if not _read_ahead(rows) or len(groups) < 2:
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
    """(index of the first batch, batches) of each chunk: up to CHUNK_BYTES, divided evenly."""
    sizes = np.array([len(batch) for batch in batches])
    most = max(1, CHUNK_BYTES // max(1, int(sizes.max()) * row_bytes))
    parts = np.array_split(np.arange(len(batches)), -(-len(batches) // most))
    return [(int(part[0]), batches[int(part[0]) : int(part[-1]) + 1]) for part in parts]


def _read(rows: ReadRows, first: int, batches: Sequence[np.ndarray]) -> Chunk:
    chosen = np.concatenate(batches)
    offsets = np.cumsum([0, *(len(batch) for batch in batches)]).astype(np.int32)
    return Chunk(first, chosen, offsets, rows.take(chosen))


def _read_ahead(rows: ReadRows) -> bool:
    """Whether taking rows waits for files or draws images; features computed on each read would only compete with the
    step for threads."""
    while isinstance(rows, RowSubset):
        rows = rows.rows
    return isinstance(rows, FreshRows) or (isinstance(rows, Rows) and not rows.is_in_memory)
