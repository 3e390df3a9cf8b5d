"""Which photos are the same picture, which merely look alike, and the groups that both make.

Exact duplicates have the same bytes. Near ones are copies: encoded or resized again, brighter, mirrored, turned or
cropped. Aligned pictures that differ in a small spot look alike: they stay together, and are never called the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from trainers.data.near_duplicates import Looks, Union, compared_pairs
from trainers.images.descriptor import same_descriptors

LARGEST_ALIKE = 0.01
"""Maximum share of the images that is held together for looking alike; a longer chain is cut where it is weakest."""
FEWEST_ALIKE = 20
"""Maximum images that are held together for looking alike where that share is fewer."""


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


def find_duplicates(rows: pd.DataFrame, looks: Looks, cache: Path | None = None) -> Duplicates:
    """``rows``: label, sha256, index 0 .. n-1; ``looks``: one of each. ``cache``: where verdicts on pairs are kept."""
    exact = members_of(rows["sha256"])
    first = np.array(looks.comparable, bool) & ~rows["sha256"].duplicated().to_numpy()
    near, alike = compared_pairs(looks, np.flatnonzero(first), rows["sha256"].tolist(), cache)
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
