"""Rows of an epoch in chunks of as many batches as memory may hold, so that one call trains a whole chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np

from trainers.store.rows import Rows
from trainers.training.features import ReadRows, RowSubset

CHUNK_BYTES = 24 * 2**20
"""Maximum bytes of the rows of a chunk, which holds at least one batch. The next chunk may be read at the same time.

Below 32 MB, from where on the C library maps new pages for each chunk, which takes longer than to fill them."""
SUMMED_BYTES = 64 * 2**20
"""The same of chunks before 2026-12, by which ``weighted_sum`` still adds up."""


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
    """Yield ``batches`` of indices, in order, with their rows.

    Rows on disk, and those with an attribute ``ahead`` that is true, are read one chunk ahead, in a thread. Its errors
    are raised here. Where the iterator is left early, at most the chunk that is being read is read to its end.
    An attribute ``chunk_bytes`` replaces CHUNK_BYTES.
    """
    innermost = _innermost(rows)
    most = getattr(innermost, "chunk_bytes", CHUNK_BYTES)
    groups = _groups(batches, rows, most)
    if not (_on_disk(rows) or getattr(innermost, "ahead", False)) or len(groups) < 2:
        for first, group in groups:
            yield _read(rows, first, group)
        return
    upcoming = _begin(rows, *groups[0])
    try:
        for first, group in groups[1:]:
            chunk = upcoming.result()
            upcoming = _begin(rows, first, group)
            yield chunk
        yield upcoming.result()
    finally:
        wait([upcoming])


def _begin(rows: ReadRows, first: int, batches: Sequence[np.ndarray]) -> Future[Chunk]:
    """Read a chunk in a thread of its own, which ends with it."""
    reader = ThreadPoolExecutor(1, "read-rows")
    try:
        return reader.submit(_read, rows, first, batches)
    finally:
        reader.shutdown(wait=False)


def weighted_sum(values: np.ndarray, batches: Sequence[np.ndarray], rows: ReadRows) -> float:
    """Return the sum over ``batches`` of each one's value times its size, rounded as in sweeps of any age."""
    total = 0.0
    for first, group in _groups(batches, rows, SUMMED_BYTES):
        sizes = np.array([len(batch) for batch in group], np.int32)
        total += float(values[first : first + len(group)].astype(np.float64) @ sizes)
    return total


def _groups(batches: Sequence[np.ndarray], rows: ReadRows, most: int) -> list[tuple[int, Sequence[np.ndarray]]]:
    """(index of the first batch, batches) of each chunk: up to ``most`` bytes, divided evenly."""
    row_bytes = max(1, int(np.prod(rows.shape)) * np.dtype(rows.dtype).itemsize)
    sizes = np.array([len(batch) for batch in batches])
    at_once = max(1, most // max(1, int(sizes.max()) * row_bytes))
    parts = np.array_split(np.arange(len(batches)), -(-len(batches) // at_once))
    return [(int(part[0]), batches[int(part[0]) : int(part[-1]) + 1]) for part in parts]


def _read(rows: ReadRows, first: int, batches: Sequence[np.ndarray]) -> Chunk:
    chosen = np.concatenate(batches)
    offsets = np.cumsum([0, *(len(batch) for batch in batches)]).astype(np.int32)
    return Chunk(first, chosen, offsets, rows.take(chosen))


def _innermost(rows: ReadRows) -> ReadRows:
    while isinstance(rows, RowSubset):
        rows = rows.rows
    return rows


def _on_disk(rows: ReadRows) -> bool:
    """Whether taking rows waits for files. Features that are computed on each read are not read ahead: their prefix
    would only compete with the step for threads."""
    found = _innermost(rows)
    return isinstance(found, Rows) and not found.is_in_memory
