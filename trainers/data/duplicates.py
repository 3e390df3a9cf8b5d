"""Which photos are the same picture, and which merely look alike.

Exact duplicates have the same bytes. Near ones are copies: encoded or resized again, brighter, mirrored, turned or
cropped. Indexes only propose pairs; what decides is the largest local difference of the pixels, one picture laid onto
the other. Aligned pictures that differ in a small spot look alike: they stay together, and are never called the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd

from trainers.data.candidates import Candidate, keypoint_candidates, whole_candidates
from trainers.files.spool import Records, Spool
from trainers.images.alignment import SYMMETRIES, map_of_keypoints, may_be_layout, symmetric_map
from trainers.images.comparison import ALIKE, SAME, Comparison, Preview, ambiguous, compare, verdict
from trainers.images.descriptor import same_descriptors
from trainers.images.keypoints import KEYPOINT, KEYPOINTS
from trainers.images.look import THUMBNAIL, Look, preview_of

LARGEST_ALIKE = 0.01
"""Maximum share of the images that is held together for looking alike; a longer chain is cut where it is weakest."""
FEWEST_ALIKE = 20
"""Maximum images that are held together for looking alike where that share is fewer."""


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


def compared_pairs(looks: Looks, positions: np.ndarray) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Pairs (a, b), a < b, of near duplicates among ``positions``, and pairs that look alike, the most similar first.

    Only pairs that join two sets so far apart are given: n images of one picture, or of one layout, make n - 1. Memory
    is O(n), some 600 bytes an image; time is O(n) beyond the reading of hashes and keypoints, since each image takes
    part in a limited number of comparisons.

    Different objects of one symmetric layout are as good as mirrored copies of one another. So photos that look alike
    as they lie, or of which each looks like others as it lies, are the same only as they lie.
    """
    search = _Search(looks)
    search.compare(whole_candidates(looks.thumbnails, positions))
    search.compare(keypoint_candidates(looks.keypoints, positions))
    return search.pairs()


class _Search:
    """What was found so far: pairs that are the same as they lie, those that are in another position, look-alikes."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks
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
        """Compare two photos; return whether they are the same."""
        a, b = found.first, found.second
        comparison, lie_alike = _compare(self._looks, found)
        answer, difference = verdict(comparison)
        if answer == SAME and not lie_alike:
            unmoved, _ = _compare(self._looks, Candidate(a, b, 0, False, found.difference))
            if ambiguous(unmoved):
                lie_alike = True
                answer = SAME if verdict(unmoved)[0] == SAME else ALIKE
        if not answer:
            return False
        self._together.join(a, b)
        if answer == ALIKE:
            self._alike[a, b] = min(difference, self._alike.get((a, b), difference))
            if lie_alike:
                self._layouts.join(a, b)
        elif self._same.join(a, b):
            if lie_alike:
                self._as_they_lie.append((a, b))
            else:
                self._moved.append((a, b, difference))
        return answer == SAME

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


def _compare(looks: Looks, found: Candidate) -> tuple[Comparison | None, bool]:
    """What two photos have in common, and whether they lie alike: no symmetry of a layout is between them."""
    first, second = looks.preview(found.first), looks.preview(found.second)
    shapes = first.grey.shape, second.grey.shape
    if found.symmetry is not None:
        return compare(first, second, symmetric_map(*SYMMETRIES[found.symmetry], *shapes)), found.symmetry == 0
    one, other = looks.keypoints.take([found.first, found.second])
    start = map_of_keypoints(one, other, found.mirror)
    if start is None:
        return None, False
    return compare(first, second, start), not may_be_layout(start, *shapes)


def members_of(values: Iterable[Hashable]) -> list[list[int]]:
    """The positions of every value that occurs more than once, each list ascending, ordered by their first."""
    members: dict[Hashable, list[int]] = {}
    for position, value in enumerate(values):
        members.setdefault(value, []).append(position)
    return [positions for positions in members.values() if len(positions) > 1]


@dataclass(frozen=True)
class Duplicates:
    """Positions of images that show the same, and of those that look alike.

    ``exact``: sets with the same bytes. ``near``: pairs that, chained, join the rest. ``sets``: both, joined.
    ``conflicts``: those of ``sets`` that have more than one label. ``alike``: pairs that look alike and are not in one
    of ``sets``, the most similar first.
    """

    exact: list[list[int]]
    near: list[tuple[int, int]]
    sets: list[list[int]]
    conflicts: list[list[int]]
    alike: list[tuple[int, int]]


def find_duplicates(rows: pd.DataFrame, looks: Looks) -> Duplicates:
    """``rows``: label, sha256, index 0 .. n-1; ``looks``: one of each."""
    exact = members_of(rows["sha256"])
    first = np.array(looks.comparable, bool) & ~rows["sha256"].duplicated().to_numpy()
    near, alike = compared_pairs(looks, np.flatnonzero(first))
    union = Union(len(rows))
    union.join_equal(rows["sha256"])
    for a, b in near:
        union.join(a, b)
    sets = members_of(union.labels.tolist())
    conflicts = [members for members in sets if rows["label"][members].nunique() > 1]
    return Duplicates(exact, near, sets, conflicts, alike)


@dataclass(frozen=True)
class Groups:
    """``names``: the group of each row. ``cut``: how many images are in chains of look-alikes that were cut because a
    group would have held more than ``most`` images."""

    names: list[str]
    cut: int
    most: int


def make_groups(rows: pd.DataFrame, same: Duplicates, near_too: bool) -> Groups:
    """Name the group of each row by 16 hex digits.

    Those of the smallest sha256 of all that must stay together; or, where ``rows`` brings a group itself, of a hash of
    that name, so that another photo of the same object does not rename it. Joins duplicates (near ones and look-alikes
    only where ``near_too``) and the groups of ``rows``; the names are the same wherever the photos lie. Look-alikes
    join from the most similar on,
    as long as a group holds no more than 1 % of the images.
    """
    union = Union(len(rows))
    union.join_equal(rows["group"])
    for members in same.sets if near_too else same.exact:
        for other in members[1:]:
            union.join(members[0], other)
    most = max(FEWEST_ALIKE, int(LARGEST_ALIKE * len(rows)))
    refused = [pair for pair in same.alike if near_too and not union.join(*pair, most)]
    apart = {int(union.labels[i]) for a, b in refused if union.labels[a] != union.labels[b] for i in (a, b)}
    cut = int(np.isin(union.labels, list(apart)).sum()) if apart else 0
    by_content = rows["sha256"].groupby(union.labels).transform("min").tolist()
    given: dict[int, str] = {}
    for place, text in zip(union.labels.tolist(), rows["group"], strict=True):
        if text is not None:
            given[place] = min(str(text), given.get(place, str(text)))
    digests = {place: hashlib.sha256(f"group:{text}".encode()).hexdigest() for place, text in given.items()}
    names = [str(digests.get(p, sha))[:16] for p, sha in zip(union.labels.tolist(), by_content, strict=True)]
    return Groups(names, cut, most)


def same_photos(asked: pd.DataFrame, known: pd.DataFrame) -> np.ndarray:
    """For each row of ``asked`` the position of the row of ``known`` that shows the same photo; -1 where none does.

    Both are tables of manifests: sha256, and descriptor where there is one. The same bytes are found first; then the
    content, which finds photos that were encoded or resized again (not mirrored, turned or cropped ones).
    int64 (asked,).
    """
    first: dict[str, int] = {}
    for position, sha256 in enumerate(known["sha256"]):
        first.setdefault(sha256, position)
    found = np.array([first.get(sha256, -1) for sha256 in asked["sha256"]], np.int64)
    if "descriptor" in asked and "descriptor" in known:
        new = np.flatnonzero(found < 0)
        found[new] = same_descriptors(asked["descriptor"].iloc[new].tolist(), known["descriptor"].tolist())
    return found


def to_drop(rows: pd.DataFrame, same: Duplicates, known: np.ndarray | None = None) -> list[int]:
    """All but the first of each label of each set of duplicates, and all of the same bytes with different labels.

    ``known``: bool (rows,), rows of an earlier division: they come before all others and are dropped only for other
    labels of the same bytes. Look-alikes are never dropped.
    """
    contradictory = {i for members in same.exact if rows["label"][members].nunique() > 1 for i in members}
    dropped = set(contradictory)
    for members in same.sets:
        order = members if known is None else sorted(members, key=lambda i: not known[i])
        left = rows["label"][[i for i in order if i not in contradictory]]
        dropped |= {i for i in left.index[left.duplicated()] if known is None or not known[i]}
    return sorted(dropped)
