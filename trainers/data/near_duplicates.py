"""Pairs of photos that are the same picture, or look alike: indexes propose, the pixels decide.

What decides is the largest local difference of the pixels, one picture laid onto the other: aligned pictures that
differ in a small spot merely look alike.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from trainers.data.candidates import Candidate, keypoint_candidates, whole_candidates
from trainers.data.verdict_store import Verdict, VerdictStore
from trainers.files.spool import Records, Spool
from trainers.images.alignment import SYMMETRIES, map_of_keypoints, may_be_layout, symmetric_map
from trainers.images.comparison import ALIKE, SAME, Comparison, Preview, ambiguous, compare, verdict
from trainers.images.keypoints import KEYPOINT, KEYPOINTS
from trainers.images.look import THUMBNAIL, Look, preview_of

MOST_DIFFERENT = 4
"""Maximum pairs of a photo that are compared in full though they turn out not to be the same, from each index."""
PROMISING = 24.0
"""Maximum difference of the thumbnails, in grey values, of two look-alikes that are compared as they may be copies."""
LAYOUT = 10
"""Photos of one layout from which on only those with promising thumbnails are compared with one another."""
ALIGNED = 3
"""Minimum photos of one layout, chained by looking alike as they lie, for no mirrored, turned or cropped one of them to
be called the same."""


class Looks:
    """What is kept of each photo, about 12 KB in temporary files: memory does not grow with it.

    A context manager that deletes the files at its end. ``folder``: where they are, if it can be written to; else in
    the temporary folder. ``comparable``: whether each has near duplicates at all.
    """

    def __init__(self, looks: Iterable[Look] = (), folder: Path | None = None) -> None:
        self.thumbnails = Spool((THUMBNAIL, THUMBNAIL), np.uint8, folder=folder)
        self.keypoints = Spool((KEYPOINTS,), KEYPOINT, folder=folder)
        self._previews = Records(folder)
        self.comparable: list[bool] = []
        for look in looks:
            self.add(look)

    def __enter__(self) -> Looks:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for spool in (self.thumbnails, self.keypoints, self._previews):
            spool.__exit__(kind, error, at)

    def __len__(self) -> int:
        return len(self.comparable)

    def add(self, look: Look) -> None:
        """Append a photo's. Raises TrainerError if the folder cannot be written."""
        self.thumbnails.add(look.thumbnail)
        self.keypoints.add(look.keypoints)
        self._previews.add(look.preview)
        self.comparable.append(look.comparable)

    def preview(self, position: int) -> Preview:
        return preview_of(self._previews.take(position))


class Union:
    """Disjoint sets over 0 .. n-1. ``labels``: int64 (n,), equal where two positions are in one set."""

    def __init__(self, n: int) -> None:
        self.labels = np.arange(n)
        self._members = [[i] for i in range(n)]

    def join(self, a: int, b: int, most: int | None = None) -> bool:
        """Unite the sets of a and b; return False if they were one already, or would have more than ``most``."""
        large, small = int(self.labels[a]), int(self.labels[b])
        if large == small:
            return False
        if len(self._members[large]) < len(self._members[small]):
            large, small = small, large
        if most is not None and len(self._members[large]) + len(self._members[small]) > most:
            return False
        self.labels[self._members[small]] = large
        self._members[large] += self._members[small]
        self._members[small] = []
        return True

    def size(self, label: int) -> int:
        """How many positions are in the set of ``label``."""
        return len(self._members[label])

    def join_equal(self, values: Iterable[Hashable]) -> None:
        """Unite the positions that hold the same value; None is equal to nothing."""
        first: dict[Hashable, int] = {}
        for position, value in enumerate(values):
            if value is not None:
                self.join(first.setdefault(value, position), position)


def compared_pairs(
    looks: Looks, positions: np.ndarray, sha256: Sequence[str] = (), cache: Path | None = None
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs (a, b), a < b, of near duplicates among ``positions``, and pairs that look alike, the most similar first.

    Only pairs that join two sets so far apart are given: n images of one picture, or of one layout, make n - 1. Memory
    is O(n), at most some 6 KB an image; time is O(n log n) by sorting, since each image takes part in a limited number
    of comparisons.

    Different objects of one symmetric layout are as good as mirrored copies of one another. So photos that look alike
    as they lie, or of which each looks like others as it lies, are the same only as they lie.

    ``cache``: where the verdicts on pairs are kept, by each photo's ``sha256``; pairs that are there are not compared.
    """
    verdicts = VerdictStore(functools.partial(_verdict, looks), cache, sha256, _code())
    search = _Search(looks, verdicts)
    search.compare(whole_candidates(looks.thumbnails, positions))
    search.compare(keypoint_candidates(looks.keypoints, positions))
    verdicts.flush()
    return search.pairs()


class _Search:
    """What was found so far: pairs that are the same as they lie, those that are in another position, look-alikes."""

    def __init__(self, looks: Looks, verdicts: VerdictStore) -> None:
        self._looks, self._verdicts = looks, verdicts
        self._same, self._together, self._layouts = (Union(len(looks)) for _ in range(3))
        self._as_they_lie: list[tuple[int, int]] = []
        self._moved: list[tuple[int, int, float]] = []
        self._alike: dict[tuple[int, int], float] = {}

    def compare(self, candidates: Iterable[Candidate]) -> None:
        different = np.zeros(len(self._looks), np.int32)
        for found in candidates:
            a, b = found.first, found.second
            if self._same.labels[a] == self._same.labels[b] or min(different[a], different[b]) >= MOST_DIFFERENT:
                continue
            if not found.difference <= PROMISING and self._joined_by_many(found):
                continue
            if not self._decide(found):
                different[[a, b]] += 1

    def _joined_by_many(self, found: Candidate) -> bool:
        """Whether two photos look alike already, by their thumbnails or among so many that keypoints are no news."""
        label = self._together.labels[found.first]
        if label != self._together.labels[found.second]:
            return False
        return found.symmetry is not None or self._together.size(int(label)) >= LAYOUT

    def _decide(self, found: Candidate) -> bool:
        """Return whether two photos are the same."""
        a, b = found.first, found.second
        known = self._verdicts.of(found)
        if not known.answer:
            return False
        self._together.join(a, b)
        if known.answer == ALIKE:
            self._alike[a, b] = min(known.difference, self._alike.get((a, b), known.difference))
            if known.lie_alike:
                self._layouts.join(a, b)
        elif self._same.join(a, b):
            if known.lie_alike:
                self._as_they_lie.append((a, b))
            else:
                self._moved.append((a, b, known.difference))
        return known.answer == SAME

    def pairs(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        unmoved = Union(len(self._looks))
        for a, b in self._as_they_lie:
            unmoved.join(a, b)
        sets = np.unique(np.stack([self._layouts.labels, unmoved.labels]), axis=1)[0]  # copies are no further photos
        aligned = np.bincount(sets, minlength=len(self._looks))[self._layouts.labels] >= ALIGNED
        moved = [(a, b) for a, b, _ in self._moved if not (aligned[a] or aligned[b])]
        alike = self._alike | {(a, b): difference for a, b, difference in self._moved if aligned[a] or aligned[b]}
        same = [*self._as_they_lie, *moved]
        union = Union(len(self._looks))
        for a, b in same:
            union.join(a, b)
        by_likeness = sorted(alike, key=lambda pair: (alike[pair], pair))
        return same, [(a, b) for a, b in by_likeness if union.labels[a] != union.labels[b]]


def _verdict(looks: Looks, found: Candidate) -> Verdict:
    """Compare two photos as they were proposed, and if they are the same moved, as they lie."""
    comparison, lie_alike = _compare(looks, found)
    answer, difference = verdict(comparison)
    if answer == SAME and not lie_alike:
        unmoved, _ = _compare(looks, Candidate(found.first, found.second, 0, False, found.difference))
        if ambiguous(unmoved):
            lie_alike = True
            answer = SAME if verdict(unmoved)[0] == SAME else ALIKE
    return Verdict(answer, lie_alike, difference)


def _compare(looks: Looks, found: Candidate) -> tuple[Comparison | None, bool]:
    """What two photos have in common, and whether they lie alike: no symmetry of a layout is between them."""
    if found.symmetry is not None:
        first, second = looks.preview(found.first), looks.preview(found.second)
        whole = symmetric_map(*SYMMETRIES[found.symmetry], first.grey.shape, second.grey.shape)
        return compare(first, second, whole), found.symmetry == 0
    one, other = looks.keypoints.take([found.first, found.second])
    start = map_of_keypoints(one, other, found.mirror)
    if start is None:  # of most; previews take longer to decode than keypoints to match
        return None, False
    first, second = looks.preview(found.first), looks.preview(found.second)
    return compare(first, second, start), not may_be_layout(start, first.grey.shape, second.grey.shape)


@functools.cache
def _code() -> str:
    """8 hex digits over the code of this module that reaches a verdict."""
    return hashlib.sha256("".join(map(inspect.getsource, (_verdict, _compare))).encode()).hexdigest()[:8]
