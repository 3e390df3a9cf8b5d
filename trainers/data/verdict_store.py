"""Verdicts on pairs of photos kept in the row store: later sweeps compare new pairs alone. Free of TensorFlow.

A row's key is the SHA-256 of both photos and how the first is laid onto the second. Verdicts of other code lie on
another shelf.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.data.candidates import Candidate
from trainers.images import alignment, look_store
from trainers.images.alignment import SYMMETRIES
from trainers.images.comparison import ALIKE, SAME
from trainers.store.eviction import NoRoom
from trainers.store.shelf import Shelf

VERDICTS = "verdicts"
"""Name of the shelf's folder in the cache."""
ANSWERS = ("", ALIKE, SAME)
ROW = np.dtype([("answer", "u1"), ("lie_alike", "?"), ("difference", "<f8")])
WAYS = 2 * (len(SYMMETRIES) + 1)
"""Ways to lay one photo onto another: each symmetry, or by keypoints, of which one may be mirrored."""
WRITTEN_AT_ONCE = 2**14
"""Verdicts in memory before they are written."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``answer``: ``SAME``, ``ALIKE`` or "". ``lie_alike``: no symmetry of a layout is between the two photos.
    ``difference``: the largest local one, in grey values."""

    answer: str
    lie_alike: bool
    difference: float


Make = Callable[[Candidate], Verdict]


class VerdictStore:
    """The verdicts in the store of ``cache`` on pairs of the photos ``sha256``; None stores nothing.

    ``make`` reaches a verdict; ``code`` is of what it does besides ``trainers.images``. A store that is full or cannot
    be written keeps no verdicts, and nothing fails. Memory is 20 bytes a verdict on these photos, and some 250 more
    while they are read.
    """

    def __init__(self, make: Make, cache: Path | None = None, sha256: Sequence[str] = (), code: str = "") -> None:
        self._make, self._sha256 = make, sha256
        self._shelf = None
        if cache is not None:
            self._shelf = Shelf(cache, VERDICTS, {"code": f"{compare_code()}-{code}", "row": ROW.itemsize})
        self._new: dict[int, Verdict] = {}
        self._codes, self._rows = np.zeros(0, np.int64), np.zeros(0, ROW)
        with contextlib.suppress(NoRoom, OSError):
            self._read()

    def of(self, pair: Candidate) -> Verdict:
        """The verdict that is stored; else make it and keep it. It is written with others, or by ``flush``."""
        code = self._code(pair)
        place = int(np.searchsorted(self._codes, code))
        if place < len(self._codes) and self._codes[place] == code:
            answer, lie_alike, difference = self._rows[place].item()
            return Verdict(ANSWERS[answer], lie_alike, difference)
        made = self._make(pair)
        if self._shelf is not None:
            self._new[code] = made
            if len(self._new) >= WRITTEN_AT_ONCE:
                self.flush()
        return made

    def flush(self) -> None:
        keys, new = [self._key(code) for code in self._new], [*self._new.values()]
        self._new = {}
        if self._shelf is not None and keys:
            self._shelf.keep(keys, lambda positions: _to_rows([new[i] for i in positions]))

    def _read(self) -> None:
        if self._shelf is None:
            return
        places: dict[str, int] = {}
        for place, sha256 in enumerate(self._sha256):
            places.setdefault(sha256, place)
        found: dict[int, str] = {}
        for key in self._shelf.each_key():
            first, second, way = key.split(":")
            if first in places and second in places and places[first] < places[second]:
                found[self._number(places[first], places[second], int(way))] = key
        codes = sorted(found)

        def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
            """Verdicts that are damaged or were evicted meanwhile."""
            for position in positions:
                yield _to_rows([self._make(self._pair(codes[position]))])

        if codes:
            rows = self._shelf.rows([found[code] for code in codes], compute).take(np.arange(len(codes)))
            self._codes, self._rows = np.array(codes, np.int64), rows.view(ROW)[:, 0]

    def _code(self, pair: Candidate) -> int:
        symmetry = len(SYMMETRIES) if pair.symmetry is None else pair.symmetry
        return self._number(pair.first, pair.second, 2 * symmetry + pair.mirror)

    def _number(self, first: int, second: int, way: int) -> int:
        return (first * len(self._sha256) + second) * WAYS + way

    def _pair(self, code: int) -> Candidate:
        pair, way = divmod(code, WAYS)
        symmetry, mirror = divmod(way, 2)
        return Candidate(
            *divmod(pair, len(self._sha256)), None if symmetry == len(SYMMETRIES) else symmetry, bool(mirror), math.nan
        )

    def _key(self, code: int) -> str:
        pair, way = divmod(code, WAYS)
        first, second = divmod(pair, len(self._sha256))
        return f"{self._sha256[first]}:{self._sha256[second]}:{way}"


def _to_rows(verdicts: Sequence[Verdict]) -> np.ndarray:
    """uint8 (verdicts, ROW.itemsize)."""
    rows = np.array([(ANSWERS.index(each.answer), each.lie_alike, each.difference) for each in verdicts], ROW)
    return rows.view(np.uint8).reshape(len(verdicts), ROW.itemsize)


@functools.cache
def compare_code() -> str:
    """16 hex digits over the code that makes looks and lays one onto the other."""
    return hashlib.sha256(f"{look_store.code()}\n{inspect.getsource(alignment)}".encode()).hexdigest()[:16]
