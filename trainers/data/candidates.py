"""Pairs of photos that may show the same, from indexes of hashes and of keypoints; never all pairs. And from names.

Two indexes propose: 64-bit hashes of whole pictures in their eight symmetries, and the codes of keypoints, which find
crops and turns. Each compares an entry with a limited number of neighbours, so time grows with the number of photos.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from trainers.files.spool import Spool
from trainers.images.alignment import SYMMETRIES, symmetric
from trainers.images.keypoints import CODE_BITS, KEYPOINTS, SAME_CODE
from trainers.images.look import THUMBNAIL

HASH_DISTANCE = 6
"""Maximum bits of 64 in which the hashes of two candidates differ."""
CORRELATION = 0.94
"""Minimum correlation of the thumbnails of two candidates; it ignores brightness and contrast."""
BANDS = HASH_DISTANCE + 1
"""Parts of a hash. Two hashes that differ in fewer bits than there are parts are equal in at least one of them."""
MOST_WITH_BAND = 1024
"""Maximum entries of one part of a hash with which another is compared; the nearest in the order of hashes."""
CLOSEST = 32
"""Maximum photos whose thumbnails are compared with that of another, in each symmetry: those with the closest
signatures of all with close hashes. Aligned photos all have close hashes."""
SIGNATURE = 16
"""Numbers of a signature: random projections of a thumbnail, whose distances are those of thumbnails, roughly."""
MOST_CANDIDATES = 8
"""Maximum candidates of a photo from each index: those with the most similar thumbnails, or the most keypoints in
common."""
CANDIDATES_AT_ONCE = 2**20
HASHED_AT_ONCE = 256
TABLES = 3
"""Parts of a keypoint's code; each is the key of one table."""
MOST_NEIGHBOURS = 16
"""Maximum entries of a table with which an entry is compared."""
FEWEST_VOTES = 4
"""Minimum entries that two photos have in common. One keypoint alone makes at most one in each table."""
KEYPOINTS_AT_ONCE = 2**21
_EDITED = (
    r"aug(ment(ed)?)?|copy|crop(ped)?|[hv]?flip(ped)?(lr|ud|[hv])?|mirror(ed)?|rot(ate[d]?|ation)?|bright(er|ness)?|"
    "dark(er)?|blur(red)?|noisy?|noise|scaled?|resized?|zoom(ed)?|shift(ed)?|sheared?"
)
COPY_NAME = re.compile(
    rf"(?P<before>^(copy of|{_EDITED})([\W_]*\d+)?[\W_]+)|(?P<after>([\W_]+({_EDITED})([\W_]*\d+)?| ?\(\d+\))$)",
    re.IGNORECASE,
)
"""What programs put before or after a file's name to name a copy: aug_x, x_flip, x (1), x-copy, x_rot90."""


_PAIR = np.dtype([("first", "i4"), ("second", "i4"), ("difference", "f4"), ("symmetry", "i1")])


@dataclass(frozen=True, slots=True)
class Candidate:
    """Photos ``first`` < ``second``. ``symmetry``: index into SYMMETRIES of what maps the whole first picture to the
    second; None for a pair with common keypoints, ``mirror`` then says whether one of them is mirrored.

    ``difference``: the largest of their thumbnails' pixels, in grey values; NaN where they were not compared."""

    first: int
    second: int
    symmetry: int | None
    mirror: bool
    difference: float


def perceptual_hashes(thumbnails: np.ndarray) -> np.ndarray:
    """The 64-bit pHash of each of uint8 (n, 32, 32): which of its 8 x 8 lowest DCT terms are above their median.

    uint64 (n,); bit for bit those of the library imagehash, which takes the images one by one.
    """
    from scipy.fft import dct  # takes longer to import than a help page may

    lowest = dct(dct(thumbnails, axis=1), axis=2)[:, :8, :8].reshape(len(thumbnails), 64)
    bits = lowest > np.median(lowest, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def whole_candidates(thumbnails: Spool, positions: np.ndarray) -> Iterator[Candidate]:
    """Pairs among ``positions``, int64 (k,) ascending, whose thumbnails, uint8 (32, 32), are alike in one symmetry.

    Each pair once, in the symmetry in which it is most alike; those that lie alike come before mirrored and turned
    ones, the most similar first. Memory is O(k).
    """
    hashes, signatures = _hashes(thumbnails, positions)
    found = [np.zeros(0, _PAIR)]
    for symmetry, (quarters, mirror) in enumerate(SYMMETRIES):
        for a, close in close_hashes(hashes[:, symmetry], hashes[:, 0]):
            if len(close) > CLOSEST:
                off = ((signatures[close, 0] - signatures[a, symmetry]) ** 2).sum(axis=1)
                close = close[np.argpartition(off, CLOSEST)[:CLOSEST]]
            one = symmetric(thumbnails.take(positions[[a]])[0], quarters, mirror)
            many = thumbnails.take(positions[close])
            correlations, differences = _likeness(one.reshape(-1), many.reshape(len(many), -1))
            alike = np.flatnonzero(correlations >= CORRELATION)
            alike = alike[np.argsort(differences[alike], kind="stable")[:MOST_CANDIDATES]]
            pairs = np.zeros(len(alike), _PAIR)
            pairs["first"], pairs["second"] = positions[a], positions[close[alike]]
            pairs["difference"], pairs["symmetry"] = differences[alike], symmetry
            found.append(pairs)
        found = [_best_of_each(np.concatenate(found))]
    pairs = found[0]
    for pair in pairs[np.lexsort([pairs["second"], pairs["first"], pairs["difference"], pairs["symmetry"] > 0])]:
        first, second, difference, symmetry = pair.tolist()
        yield Candidate(first, second, symmetry, SYMMETRIES[symmetry][1], difference)


def _best_of_each(pairs: np.ndarray) -> np.ndarray:
    """Each pair once, where its difference is least."""
    ordered = pairs[np.lexsort([pairs["symmetry"], pairs["difference"], pairs["second"], pairs["first"]])]
    new = (np.diff(ordered["first"], prepend=-1) != 0) | (np.diff(ordered["second"], prepend=-1) != 0)
    return ordered[new]


def close_hashes(asked: np.ndarray, hashes: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """For each position a of ``asked``, uint64 (n,): (a, positions b > a of close ``hashes``, ascending).

    Close ones differ in at most HASH_DISTANCE bits. Hashes that close are equal in one of seven parts (Norouzi, Punjani
    & Fleet 2012, section 2), so only those with an equal part are compared, and of each part only the next
    MOST_WITH_BAND. Memory is O(n).
    """
    bands = [_Band(asked, hashes, band) for band in range(BANDS)]
    step = max(CANDIDATES_AT_ONCE // (BANDS * max(min(MOST_WITH_BAND, len(hashes)), 1)), 1)
    for start in range(0, len(asked), step):
        stop = min(start + step, len(asked))
        first, second = np.divmod(np.unique(np.concatenate([band.close(start, stop) for band in bands])), len(hashes))
        edges = [*np.flatnonzero(np.diff(first, prepend=-1)), len(first)]
        for begin, end in pairwise(edges):
            yield int(first[begin]), second[begin:end]


class _Band:
    """The order of ``hashes`` by one part of their bits, and where each of ``asked`` finds its own part there."""

    def __init__(self, asked: np.ndarray, hashes: np.ndarray, band: int) -> None:
        self._asked, self._hashes = asked, hashes
        low, high = (np.uint64(64 * edge // BANDS) for edge in (band, band + 1))
        mask = (np.uint64(1) << (high - low)) - np.uint64(1)
        keys, wanted = (hashes >> low) & mask, (asked >> low) & mask
        self._order = np.argsort(keys, kind="stable")
        ordered = keys[self._order]
        end = np.searchsorted(ordered, wanted, side="right")
        # Within a part positions ascend, so those behind a position follow its own place.
        whole = ordered.astype(np.int64) * len(hashes) + self._order
        self._begin = np.searchsorted(
            whole, wanted.astype(np.int64) * len(hashes) + np.arange(len(asked)), side="right"
        )
        self._length = np.minimum(end - self._begin, MOST_WITH_BAND)

    def close(self, start: int, stop: int) -> np.ndarray:
        """a * n + b for each a in start .. stop - 1 and each later b with the same part that is close to a."""
        a = np.arange(start, stop)
        lengths = self._length[a]
        steps = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        b = self._order[np.repeat(self._begin[a], lengths) + steps]
        a = np.repeat(a, lengths)
        near = np.bitwise_count(self._asked[a] ^ self._hashes[b]) <= HASH_DISTANCE
        return a[near] * len(self._hashes) + b[near]


def _hashes(thumbnails: Spool, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the symmetries of the thumbnails at ``positions`` the hashes, uint64 (k, 8), and the signatures, float16
    (k, 8, SIGNATURE)."""
    directions = np.random.default_rng(0).choice([-1, 1], (THUMBNAIL**2, SIGNATURE)).astype(np.float32)
    hashes, signatures = [np.zeros((0, 8), np.uint64)], [np.zeros((0, 8, SIGNATURE), np.float16)]
    for start in range(0, len(positions), HASHED_AT_ONCE):
        small = thumbnails.take(positions[start : start + HASHED_AT_ONCE])
        turned = [
            np.rot90(small[:, :, ::-1] if mirror else small, quarters, axes=(1, 2)) for quarters, mirror in SYMMETRIES
        ]
        hashes.append(np.stack([perceptual_hashes(each) for each in turned], axis=1))
        centred = np.stack(turned, axis=1).reshape(len(small), 8, -1).astype(np.float32)
        centred -= centred.mean(axis=2, keepdims=True)
        centred /= np.linalg.norm(centred, axis=2, keepdims=True)
        signatures.append((centred @ directions).astype(np.float16))
    return np.concatenate(hashes), np.concatenate(signatures)


def _likeness(one: np.ndarray, many: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson's correlation of ``one``, (p,), with each row of ``many``, (k, p); and the largest difference of their
    pixels, in grey values of the one with more contrast, where brightness and contrast are evened out."""
    centred = many.astype(np.float32) - many.mean(axis=1, dtype=np.float32, keepdims=True)
    single = one.astype(np.float32) - one.mean(dtype=np.float32)
    lengths, length = np.linalg.norm(centred, axis=1), np.linalg.norm(single)
    off = np.abs(centred / lengths[:, None] - single / length).max(axis=1)
    return (centred @ single) / (lengths * length), off * np.maximum(lengths, length)


def keypoint_candidates(points: Spool, positions: np.ndarray) -> Iterator[Candidate]:
    """Pairs among ``positions`` that have keypoints in common, those with the most first."""
    votes = _Votes(len(points))
    parts = 1
    while len(positions) * KEYPOINTS * 2 > parts * KEYPOINTS_AT_ONCE:
        parts *= 2
    for table in range(TABLES):
        for part in range(parts):
            votes.add(_common(*_entries(points, positions, table, part, parts), table, len(points)))
    codes, counts = votes.enough()
    order = np.lexsort([codes, -counts])
    taken: dict[int, int] = {}
    for code in codes[order].tolist():
        pair, mirror = divmod(code, 2)
        first, second = divmod(pair, len(points))
        if min(taken.get(first, 0), taken.get(second, 0)) < MOST_CANDIDATES:
            taken[first], taken[second] = taken.get(first, 0) + 1, taken.get(second, 0) + 1
            yield Candidate(first, second, None, bool(mirror), float("nan"))


def _key(codes: np.ndarray, table: int) -> np.ndarray:
    bits = CODE_BITS // TABLES
    return (codes >> np.uint64(table * bits)) & np.uint64((1 << bits) - 1)


def _entries(
    points: Spool, positions: np.ndarray, table: int, part: int, parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The codes of one part of a table, whose photo each is, and whether it is of the mirrored picture."""
    codes, owners, mirrors = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], [np.zeros(0, bool)]
    for start in range(0, len(positions), HASHED_AT_ONCE):
        rows = positions[start : start + HASHED_AT_ONCE]
        read = points.take(rows)
        used = read["size"] > 0
        plain, owner = read["code"][used], np.repeat(rows, used.sum(axis=1)).astype(np.int32)
        for mirror, each in ((False, plain), (True, ~plain)):
            inside = _key(each, table) % np.uint64(parts) == part
            codes.append(each[inside])
            owners.append(owner[inside])
            mirrors.append(np.full(int(inside.sum()), mirror))
    return np.concatenate(codes), np.concatenate(owners), np.concatenate(mirrors)


def _common(codes: np.ndarray, owners: np.ndarray, mirrors: np.ndarray, table: int, n: int) -> np.ndarray:
    """(first * n + second) * 2 + mirror for each two entries of different photos with one key and close codes."""
    keys = _key(codes, table)
    order = np.lexsort([owners, codes, keys])
    keys, codes, owners, mirrors = keys[order], codes[order], owners[order].astype(np.int64), mirrors[order]
    found = [np.zeros(0, np.int64)]
    for step in range(1, min(MOST_NEIGHBOURS, len(keys) - 1) + 1):
        near = np.flatnonzero(keys[:-step] == keys[step:])
        if not len(near):
            break
        other = near + step
        low, high = np.minimum(owners[near], owners[other]), np.maximum(owners[near], owners[other])
        # Each mirrored match comes twice, once from either side: the one whose first photo is not mirrored counts.
        low_mirrored = np.where(owners[near] == low, mirrors[near], mirrors[other])
        near_enough = np.bitwise_count(codes[near] ^ codes[other]) <= SAME_CODE
        kept = near_enough & (low != high) & ~low_mirrored
        found.append(((low * n + high) * 2 + (mirrors[near] != mirrors[other]))[kept])
    return np.concatenate(found)


class _Votes:
    """How often each code came; where there are too many codes, those that came once are forgotten."""

    def __init__(self, photos: int) -> None:
        self._most = 64 * photos + 2**20
        self._codes, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add(self, codes: np.ndarray) -> None:
        new, counts = np.unique(codes, return_counts=True)
        merged, places = np.unique(np.concatenate([self._codes, new]), return_inverse=True)
        sums = np.bincount(places, np.concatenate([self._counts, counts]), len(merged)).astype(np.int64)
        kept = sums > 1 if len(merged) > self._most else np.ones(len(merged), bool)
        self._codes, self._counts = merged[kept], sums[kept]

    def enough(self) -> tuple[np.ndarray, np.ndarray]:
        """The codes with enough votes, and their votes."""
        kept = self._counts >= FEWEST_VOTES
        return self._codes[kept], self._counts[kept]


def copies_by_name(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Positions (copy, original) of files whose names say that they are copies of another in the same folder."""
    stems: dict[tuple[str, str], int] = {}
    for position, path in enumerate(paths):
        pure = PurePosixPath(path)
        stems.setdefault((str(pure.parent), pure.stem.lower()), position)
    pairs = []
    for position, path in enumerate(paths):
        folder, stem = str(PurePosixPath(path).parent), PurePosixPath(path).stem.lower()
        while (shorter := COPY_NAME.sub("", stem, count=1)) and shorter != stem:
            stem = shorter
            if stems.get((folder, stem), position) != position:
                pairs.append((position, stems[folder, stem]))
                break
    return pairs
