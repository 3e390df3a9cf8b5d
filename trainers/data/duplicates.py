"""Which images are the same picture: exact by their bytes, near by a perceptual hash and then by their pixels.

A perceptual hash alone finds too much: small objects on a white table have similar hashes, and the pairs chain into one
huge group. The hash only proposes candidates; the correlation of small greyscale thumbnails decides.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType

import numpy as np
import pandas as pd

from trainers.errors import TrainerError

HASH_DISTANCE = 6
"""Maximum bits of 64 in which the hashes of two candidates differ."""
CORRELATION = 0.94
"""Minimum correlation of the thumbnails of near duplicates; it ignores brightness and contrast."""
THUMBNAIL = 32
"""Side of the thumbnails, and of the smallest image that can have near duplicates.

Of an image below it on both sides (scanned digits), only exact duplicates count: so few pixels are often alike.
"""
FLAT = 4.0
"""Standard deviation (of 0 to 255) below which a thumbnail is too flat to be compared."""
CHUNK = 4096
BANDS = HASH_DISTANCE + 1
"""Parts of a hash. Two hashes that differ in fewer bits than there are parts are equal in at least one of them."""
CANDIDATES_AT_ONCE = 2**20
HASHED_AT_ONCE = 256


class Thumbnails:
    """Greyscale thumbnails, uint8 (32, 32), in a temporary file: memory does not grow with their number.

    A context manager that deletes the file at its end. Raises TrainerError if the file cannot be written.
    """

    def __init__(self, thumbnails: Iterable[np.ndarray] = ()) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed by __exit__
        self._count = 0
        for one in thumbnails:
            self.add(one)

    def __enter__(self) -> Thumbnails:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def add(self, thumbnail: np.ndarray) -> None:
        try:
            self._file.write(np.ascontiguousarray(thumbnail, np.uint8).tobytes())
        except OSError as error:
            raise TrainerError(
                f"the temporary folder {tempfile.gettempdir()} cannot be written ({error.strerror or error}); free "
                "some space there, or set TMPDIR to another folder."
            ) from error
        self._count += 1

    def take(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """A copy of those at ``positions``, uint8 (len(positions), 32, 32)."""
        self._file.flush()
        size, number = THUMBNAIL * THUMBNAIL, self._file.fileno()
        rows = b"".join(os.pread(number, size, int(position) * size) for position in positions)
        return np.frombuffer(rows, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)


class Union:
    """Disjoint sets over 0 .. n-1. ``labels``: int64 (n,), equal where two positions are in one set."""

    def __init__(self, n: int) -> None:
        self.labels = np.arange(n)
        self._members = [[i] for i in range(n)]

    def join(self, a: int, b: int) -> bool:
        """Unite the sets of a and b; return False if they were one already."""
        large, small = int(self.labels[a]), int(self.labels[b])
        if large == small:
            return False
        if len(self._members[large]) < len(self._members[small]):
            large, small = small, large
        self.labels[self._members[small]] = large
        self._members[large] += self._members[small]
        self._members[small] = []
        return True

    def join_equal(self, values: Iterable[Hashable]) -> None:
        """Unite the positions that hold the same value; None is equal to nothing."""
        first: dict[Hashable, int] = {}
        for position, value in enumerate(values):
            if value is not None:
                self.join(first.setdefault(value, position), position)


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """The 64-bit pHash of each of uint8 (n, 32, 32): which of its 8 x 8 lowest DCT terms are above their median.

    uint64 (n,); bit for bit those of the library imagehash, which takes the images one by one.
    """
    from scipy.fft import dct  # takes longer to import than a help page may

    lowest = dct(dct(thumbnails, axis=1), axis=2)[:, :8, :8].reshape(len(thumbnails), 64)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def near_pairs(thumbnails: Thumbnails, comparable: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of near duplicates among ``thumbnails``.

    Only the pairs that join two sets so far apart are given: n images of one picture make n - 1 pairs.
    ``comparable``: bool (n,); the others are left out, as are flat ones.
    Memory is O(n), some 200 bytes an image. Time: ``close_hashes``, and a thumbnail read from the disk for each pair
    of close hashes that are not in one set yet.
    """
    chosen, hashes = _hashes(thumbnails, np.flatnonzero(comparable))
    union = Union(len(chosen))
    pairs = []
    for a, close in close_hashes(hashes):
        for start in range(0, len(close), CHUNK):
            part = close[start : start + CHUNK]
            part = part[union.labels[part] != union.labels[a]]
            if len(part):
                one, many = _flat(thumbnails, chosen[[a]])[0], _flat(thumbnails, chosen[part])
                alike = part[_correlations(one, many) >= CORRELATION]
                pairs += [(int(chosen[a]), int(chosen[b])) for b in alike if union.join(a, int(b))]
    return pairs


def close_hashes(hashes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """For each of ``hashes``, uint64 (n,), that has any: (a, those b > a that differ in at most HASH_DISTANCE bits).

    Hashes that close are equal in one of seven parts (Norouzi, Punjani & Fleet 2012, section 2), so only those with an
    equal part are compared: of n hashes n^2/300 pairs where bits are even, and never more than all.
    Memory is O(n).
    """
    bands = [_Band(hashes, band) for band in range(BANDS)]
    candidates = np.sum([band.followers for band in bands], axis=0) if len(hashes) else np.zeros(0, np.int64)
    if candidates.sum() >= len(hashes) * (len(hashes) - 1) // 2:  # too much alike for parts to help
        bands = [_Band(hashes, None)]
        candidates = bands[0].followers
    before = np.concatenate([[0], np.cumsum(candidates)])
    start = 0
    while start < len(hashes):
        stop = int(np.searchsorted(before, before[start] + CANDIDATES_AT_ONCE, side="right")) - 1
        stop = min(max(stop, start + 1), len(hashes))
        codes = np.unique(np.concatenate([band.close(start, stop) for band in bands]))
        first, second = np.divmod(codes, len(hashes))
        edges = [*np.flatnonzero(np.diff(first, prepend=-1)), len(first)]
        for begin, end in pairwise(edges):
            yield int(first[begin]), second[begin:end]
        start = stop


class _Band:
    """Hashes in the order of one part of their bits; None: of no bits, so that all are equal.

    ``followers``: int (n,), how many later hashes have the same part.
    """

    def __init__(self, hashes: np.ndarray, band: int | None) -> None:
        self._hashes = hashes
        edges = np.linspace(0, 64, BANDS + 1).astype(np.uint64)
        if band is None:
            keys = np.zeros(len(hashes), np.uint64)
        else:
            keys = (hashes >> edges[band]) & ((np.uint64(1) << (edges[band + 1] - edges[band])) - np.uint64(1))
        self._order = np.argsort(keys, kind="stable")
        self._place = np.empty(len(hashes), np.int64)
        self._place[self._order] = np.arange(len(hashes))
        end = np.searchsorted(keys[self._order], keys, side="right")
        self.followers = end - self._place - 1

    def close(self, start: int, stop: int) -> np.ndarray:
        """a * n + b for each a in start .. stop - 1 and each later b with the same part that is close to a."""
        a = np.arange(start, stop)
        lengths = self.followers[a]
        steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        b = self._order[np.repeat(self._place[a] + 1, lengths) + steps]
        a = np.repeat(a, lengths)
        near = np.bitwise_count(self._hashes[a] ^ self._hashes[b]) <= HASH_DISTANCE
        return a[near] * len(self._hashes) + b[near]


def _flat(thumbnails: Thumbnails, positions: np.ndarray) -> np.ndarray:
    return thumbnails.take(positions).reshape(len(positions), THUMBNAIL * THUMBNAIL)


def _hashes(thumbnails: Thumbnails, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of ``positions`` that are not flat, int64 (k,), and their hashes, uint64 (k,)."""
    chosen, hashes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for start in range(0, len(positions), HASHED_AT_ONCE):
        part = positions[start : start + HASHED_AT_ONCE]
        small = thumbnails.take(part)
        varied = small.reshape(len(part), THUMBNAIL * THUMBNAIL).std(axis=1) >= FLAT
        if varied.any():
            chosen.append(part[varied])
            hashes.append(perceptual_hashes(small[varied]))
    return np.concatenate(chosen), np.concatenate(hashes)


def _correlations(one: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Pearson's correlation of ``one``, (p,), with each row of ``many``, (k, p)."""
    centred = many.astype(np.float32) - many.mean(axis=1, dtype=np.float32, keepdims=True)
    single = one.astype(np.float32) - one.mean(dtype=np.float32)
    return (centred @ single) / (np.linalg.norm(centred, axis=1) * np.linalg.norm(single))


def members_of(values: Iterable[Hashable]) -> list[list[int]]:
    """The positions of every value that occurs more than once, each list ascending, ordered by their first."""
    members: dict[Hashable, list[int]] = {}
    for position, value in enumerate(values):
        members.setdefault(value, []).append(position)
    return [positions for positions in members.values() if len(positions) > 1]


@dataclass(frozen=True)
class Duplicates:
    """Positions of images that show the same.

    ``exact``: sets with the same bytes. ``near``: pairs that, chained, join the rest. ``sets``: both, joined.
    ``conflicts``: those of ``sets`` that have more than one label.
    """

    exact: list[list[int]]
    near: list[tuple[int, int]]
    sets: list[list[int]]
    conflicts: list[list[int]]


def find_duplicates(rows: pd.DataFrame, thumbnails: Thumbnails) -> Duplicates:
    """``rows``: label, sha256, width, height, index 0 .. n-1; ``thumbnails``: one of each."""
    exact = members_of(rows["sha256"])
    large = rows[["width", "height"]].max(axis=1).to_numpy() >= THUMBNAIL
    near = near_pairs(thumbnails, large & ~rows["sha256"].duplicated().to_numpy())
    union = Union(len(rows))
    union.join_equal(rows["sha256"])
    for a, b in near:
        union.join(a, b)
    sets = members_of(union.labels.tolist())
    return Duplicates(exact, near, sets, [members for members in sets if rows["label"][members].nunique() > 1])


def group_names(rows: pd.DataFrame, same: Duplicates, near_too: bool) -> list[str]:
    """The group of each row: the first 16 digits of the smallest sha256 of all that must stay together.

    Joins duplicates (near ones only where ``near_too``) and the groups that ``rows`` brings itself; content alone
    names a group, so it is the same wherever the photos lie.
    """
    union = Union(len(rows))
    union.join_equal(rows["group"])
    for members in same.sets if near_too else same.exact:
        for other in members[1:]:
            union.join(members[0], other)
    return [str(sha)[:16] for sha in rows["sha256"].groupby(union.labels).transform("min")]


def to_drop(rows: pd.DataFrame, same: Duplicates) -> list[int]:
    """All but the first of each label of each set of duplicates, and all of the same bytes with different labels."""
    contradictory = {i for members in same.exact if rows["label"][members].nunique() > 1 for i in members}
    dropped = set(contradictory)
    for members in same.sets:
        left = rows["label"][[i for i in members if i not in contradictory]]
        dropped |= set(left.index[left.duplicated()])
    return sorted(dropped)
