"""Pairs of photos that may show the same, from indexes of hashes and of keypoints; never all pairs. And from names.

Two indexes propose: 64-bit hashes of whole pictures in their eight symmetries, and the codes of keypoints, which find
crops and turns. Each compares an entry with a limited number of neighbours, so time grows with the number of photos.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import PurePosixPath

import numpy as np

from trainers.files.spool import Spool
from trainers.images.alignment import SYMMETRIES, symmetric
from trainers.images.keypoints import CODE_BITS, SAME_CODE
from trainers.images.look import THUMBNAIL

HASH_DISTANCE = 6
"""Maximum bits of 64 in which the hashes of two candidates differ."""
CORRELATION = 0.94
"""Minimum correlation of the thumbnails of two candidates; it ignores brightness and contrast."""
PARTS = tuple(combinations(range(HASH_DISTANCE + 2), 2))
"""Pairs of a hash's bytes. Two hashes that differ in at most ``HASH_DISTANCE`` bits are equal in at least two bytes."""
MOST_WITH_PART = 1024
"""Maximum entries with the same two bytes with which another is compared; the next in the order of photos."""
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
KEYPOINTS_AT_ONCE = 2**16
"""Entries of a table that are compared at once; so few stay in the processor's cache."""
CELLS, FEWEST_CELLS = 1024, 2**23
"""Minimum cells, of a byte each, in which pairs that have an entry in common are marked: for each photo, and at all."""
PLACE_BITS = 32
"""Bits of the place of a keypoint among all; at most 30 million photos are searched."""
KEY_SHIFT = CODE_BITS - (CODE_BITS // TABLES - 1)
"""Bits behind the key, in the order of the entries of a table."""
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

    Close ones differ in at most HASH_DISTANCE bits. Hashes that close are equal in two of eight bytes (Norouzi, Punjani
    & Fleet 2012, section 2, has one of fewer parts), so only those with two equal bytes are compared, and of each two
    only the next MOST_WITH_PART. Memory is O(n).
    """
    tables = [_Table(asked, hashes, *parts) for parts in PARTS]
    work = np.cumsum(sum(table.lengths for table in tables))
    start = 0
    while start < len(asked):
        done = int(work[start - 1]) if start else 0
        stop = max(int(np.searchsorted(work, done + CANDIDATES_AT_ONCE, side="right")), start + 1)
        close = np.sort(np.concatenate([each.close(start, stop) for each in tables]))
        first, second = np.divmod(close[np.diff(close, prepend=-1) != 0], len(hashes))
        edges = [*np.flatnonzero(np.diff(first, prepend=-1)), len(first)]
        for begin, end in pairwise(edges):
            yield int(first[begin]), second[begin:end]
        start = stop


class _Table:
    """The order of ``hashes`` by two of their bytes, and where each of ``asked`` finds its own bytes there.

    ``lengths``: with how many of the later hashes each is compared.
    """

    def __init__(self, asked: np.ndarray, hashes: np.ndarray, one: int, other: int) -> None:
        self._asked, self._hashes = asked, hashes
        keys, wanted = (_byte(each, one) << np.uint64(8) | _byte(each, other) for each in (hashes, asked))
        self._order = np.argsort(keys.astype(np.uint16), kind="stable").astype(np.int32)
        ends = np.cumsum(np.bincount(keys.astype(np.int64), minlength=2**16))
        # Among equal keys positions ascend, so those behind a position follow its own place.
        whole = keys[self._order].astype(np.int64) * len(hashes) + self._order
        wanted = wanted.astype(np.int64)
        begin = np.searchsorted(whole, wanted * len(hashes) + np.arange(len(asked)), side="right")
        self.lengths = np.minimum(ends[wanted] - begin, MOST_WITH_PART).astype(np.int32)
        self._begin = begin.astype(np.int32)

    def close(self, start: int, stop: int) -> np.ndarray:
        """a * n + b for each a in start .. stop - 1 and each later b with the same two bytes that is close to a."""
        lengths = self.lengths[start:stop]
        behind = np.repeat(self._begin[start:stop] - (np.cumsum(lengths) - lengths), lengths)
        b = self._order[behind + np.arange(len(behind))]
        a = np.repeat(np.arange(start, stop), lengths)
        near = np.bitwise_count(self._asked[a] ^ self._hashes[b]) <= HASH_DISTANCE
        return a[near] * len(self._hashes) + b[near]


def _byte(hashes: np.ndarray, number: int) -> np.ndarray:
    return hashes >> np.uint64(8 * number) & np.uint64(255)


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
    """Pairs among ``positions`` that have keypoints in common, those with the most first. Memory is O(n)."""
    votes = _Votes(len(points))
    codes, owners = _codes(points, positions)
    for table in range(TABLES):
        for found in _common(codes, owners, table, len(points)):
            votes.add(found)
    codes, counts = votes.enough()
    order = np.lexsort([codes, -counts])
    taken: dict[int, int] = {}
    for code in codes[order].tolist():
        pair, mirror = divmod(code, 2)
        first, second = divmod(pair, len(points))
        if min(taken.get(first, 0), taken.get(second, 0)) < MOST_CANDIDATES:
            taken[first], taken[second] = taken.get(first, 0) + 1, taken.get(second, 0) + 1
            yield Candidate(first, second, None, bool(mirror), float("nan"))


def _codes(points: Spool, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes of all keypoints, uint64 (m,), and whose photo each is of, int32 (m,), ascending."""
    codes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for start in range(0, len(positions), HASHED_AT_ONCE):
        read = points.take(positions[start : start + HASHED_AT_ONCE])
        used = read["size"] > 0
        codes.append(read["code"][used])
        counts.append(used.sum(axis=1))
    return np.concatenate(codes), np.repeat(positions.astype(np.int32), np.concatenate(counts))


def _common(codes: np.ndarray, owners: np.ndarray, table: int, n: int) -> Iterator[np.ndarray]:
    """(first * n + second) * 2 + mirror for each two keypoints of different photos with close codes and one key.

    The key is a part of the code. Where its first bit is set, the complement of the code stands for it, which is that
    of the mirrored picture: so two keypoints that are mirrored forms of each other have one key, too.
    """
    mirrors, ordered = _ordered(codes, table)
    for start in range(0, len(ordered), KEYPOINTS_AT_ONCE):
        some = ordered[start : start + KEYPOINTS_AT_ONCE + MOST_NEIGHBOURS]
        keys, places = some >> np.uint64(KEY_SHIFT), (some & np.uint64(2**PLACE_BITS - 1)).astype(np.int64)
        mirror, owner = mirrors[places], owners[places]
        code = np.where(mirror, ~codes[places], codes[places])
        for step in range(1, MOST_NEIGHBOURS + 1):
            end = min(KEYPOINTS_AT_ONCE, len(some) - step)
            near = keys[:end] == keys[step : step + end]
            if not near.any():
                break
            near &= np.bitwise_count(code[:end] ^ code[step : step + end]) <= SAME_CODE
            a = np.flatnonzero(near)
            b = a + step
            low, high = np.minimum(owner[a], owner[b]).astype(np.int64), np.maximum(owner[a], owner[b])
            yield ((low * n + high) * 2 + (mirror[a] != mirror[b]))[low != high]


def _ordered(codes: np.ndarray, table: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether the complement stands for each code, bool (m,); and the order of codes as uint64 (m,), ascending.

    Each is the 20 other bits of the key, the 12 bits of the code behind it, and the place of the code.
    """
    left = table * (CODE_BITS // TABLES)
    right = -left % CODE_BITS
    mirrors, ordered = np.zeros(len(codes), bool), np.zeros(len(codes), np.uint64)
    for start in range(0, len(codes), KEYPOINTS_AT_ONCE):
        some = codes[start : start + KEYPOINTS_AT_ONCE]
        turned = some << np.uint64(left) | some >> np.uint64(right)
        mirror = turned >> np.uint64(CODE_BITS - 1) > 0
        turned = np.where(mirror, ~turned, turned) << np.uint64(1) & np.uint64(2**64 - 2**PLACE_BITS)
        mirrors[start : start + len(some)] = mirror
        ordered[start : start + len(some)] = turned | np.arange(start, start + len(some), dtype=np.uint64)
    ordered.sort()
    return mirrors, ordered


class _Votes:
    """How often each code came; where there are too many codes, those that came least often are forgotten.

    The first time is only marked in a cell, since most codes come once (Melsted & Pritchard 2011). Different codes may
    have one cell, so the votes of a code may be one too many.
    """

    def __init__(self, photos: int) -> None:
        self._most = 32 * photos + 2**20
        self._shift = np.uint64(64 - max(CELLS * photos, FEWEST_CELLS).bit_length())
        self._seen = np.zeros(2 ** (64 - int(self._shift)), bool)
        self._codes, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int32)
        self._new: list[np.ndarray] = []
        self._waiting = 0

    def add(self, codes: np.ndarray) -> None:
        codes = np.sort(codes)
        cells = codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> self._shift  # Fibonacci hashing
        again = codes[self._seen[cells] | (np.diff(codes, prepend=-1) == 0)]
        self._seen[cells] = True
        self._new.append(again)
        self._waiting += len(again)
        if self._waiting > self._most // 4:
            self._merge()

    def _merge(self) -> None:
        new = np.concatenate([np.zeros(0, np.int64), *self._new])
        self._new, self._waiting = [], 0
        new.sort()
        begins = np.flatnonzero(np.diff(new, prepend=-1))
        codes = np.concatenate([self._codes, new[begins]])
        counts = np.concatenate([self._counts, np.diff(begins, append=len(new)).astype(np.int32)])
        order = np.argsort(codes, kind="stable")  # quick, since both parts are in order
        codes, counts = codes[order], counts[order]
        begins = np.flatnonzero(np.diff(codes, prepend=-1))
        if len(begins):
            codes, counts = codes[begins], np.add.reduceat(counts, begins)
        fewest = 1
        while len(codes) > self._most:
            fewest += 1
            codes, counts = codes[counts >= fewest], counts[counts >= fewest]
        self._codes, self._counts = codes, counts

    def enough(self) -> tuple[np.ndarray, np.ndarray]:
        """The codes with enough votes, and their votes."""
        self._merge()
        kept = self._counts >= FEWEST_VOTES - 1
        return self._codes[kept], self._counts[kept] + 1


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
