"""Which images are the same picture: exact by their bytes, near by a perceptual hash and then by their pixels.

A perceptual hash alone is far too willing: small things on a white table all look alike to it, and the pairs chain into
one huge group. So the hash only proposes, and the correlation of small greyscale thumbnails decides.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

HASH_DISTANCE = 6
"""Candidates differ in at most this many of the hash's 64 bits."""
CORRELATION = 0.94
"""Candidates are near duplicates from this correlation of their thumbnails on; brightness and contrast do not count."""
THUMBNAIL = 32
"""Side of the thumbnails, and of the smallest image that can have near duplicates.

Of an image below it on both sides (scanned digits), only exact duplicates count: so few pixels are often alike.
"""
FLAT = 4.0
"""An image whose thumbnail's standard deviation is below this (0 to 255) shows nothing that could be compared."""
CHUNK = 4096


class Union:
    """Disjoint sets over 0 .. n-1. ``labels``: int64 (n,), equal where two positions are in one set."""

    def __init__(self, n: int) -> None:
        self.labels = np.arange(n)
        self._members = [[i] for i in range(n)]

    def join(self, a: int, b: int) -> bool:
        """Unite the sets of a and b; False where they were one already."""
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


def perceptual_hash(thumbnail: np.ndarray) -> np.uint64:
    """The 64-bit pHash of a uint8 (32, 32) thumbnail: which of its 8 x 8 lowest DCT terms are above their median."""
    import imagehash  # brings scipy, which takes longer to import than a help page may

    bits = imagehash.phash(Image.fromarray(thumbnail)).hash.ravel()
    return np.packbits(bits).view(np.uint64)[0]


def near_pairs(thumbnails: np.ndarray, comparable: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of near duplicates among ``thumbnails``, uint8 (n, 32, 32).

    Only the pairs that join two sets so far apart are given: n images of one picture make n - 1 pairs.
    ``comparable``: bool (n,); the others are left out, as are flat ones.
    Memory is O(n); time O(n^2) in vectorised steps of one row (about 5 s for 70,000 images).
    """
    flat = thumbnails.reshape(len(thumbnails), THUMBNAIL * THUMBNAIL)
    chosen = np.array([i for i in np.flatnonzero(comparable) if flat[i].std() >= FLAT], np.int64)
    hashes = np.array([perceptual_hash(thumbnails[i]) for i in chosen], np.uint64)
    union = Union(len(chosen))
    pairs = []
    for a in range(len(chosen) - 1):
        close = a + 1 + np.flatnonzero(np.bitwise_count(hashes[a + 1 :] ^ hashes[a]) <= HASH_DISTANCE)
        for start in range(0, len(close), CHUNK):
            part = close[start : start + CHUNK]
            part = part[union.labels[part] != union.labels[a]]
            if len(part):
                alike = part[_correlations(flat[chosen[a]], flat[chosen[part]]) >= CORRELATION]
                pairs += [(int(chosen[a]), int(chosen[b])) for b in alike if union.join(a, int(b))]
    return pairs


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


def find_duplicates(rows: pd.DataFrame, thumbnails: Sequence[np.ndarray]) -> Duplicates:
    """``rows``: label, sha256, width, height, index 0 .. n-1; ``thumbnails``: uint8 (32, 32) of each."""
    exact = members_of(rows["sha256"])
    first = rows.index[~rows["sha256"].duplicated()].to_numpy()
    unique = np.array([thumbnails[i] for i in first], np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL)
    large = rows[["width", "height"]].max(axis=1).to_numpy()[first] >= THUMBNAIL
    near = [(int(first[a]), int(first[b])) for a, b in near_pairs(unique, large)]
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
