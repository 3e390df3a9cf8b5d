"""Rows of numbers to store: their keys, and how to compute and check them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trainers.store.segments import read_header
from trainers.store.shelf import bucket_of


class Numbers:
    """Row p is (p, p, p); remembers what it was asked for."""

    def __init__(self, start: int = 0) -> None:
        self.asked: list[int] = []
        self.start = start

    def __call__(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        self.asked += positions
        for begin in range(0, len(positions), 4):
            yield np.stack([np.full(3, self.start + p, np.float32) for p in positions[begin : begin + 4]])


def keys_of(count: int) -> list[str]:
    return [f"key {i}" for i in range(count)]


def everything(rows) -> list[float]:
    taken = rows.take(np.arange(len(rows)))
    assert (taken == taken[:, :1]).all()
    return taken[:, 0].tolist()


def pair_of_one_bucket() -> list[str]:
    keys = keys_of(200)
    first = keys[0]
    return [first, next(key for key in keys[1:] if bucket_of(key) == bucket_of(first))]


def keys_in(names: Path) -> list[str]:
    head = read_header(names)
    assert head is not None
    return head.keys
