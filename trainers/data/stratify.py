"""Train, validation and test, or folds: each group goes by its own hash, so that photos added later move nothing.

Pure: labels, groups, ratios and a seed in, split names or the numbers of folds out.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from trainers.errors import TrainerError
from trainers.wording import count

SPLITS = TRAIN, VALIDATION, TEST = ("train", "validation", "test")
FEWEST_FOLDS, MOST_FOLDS = 2, 20
ATTEMPTS = 64
"""Maximum hashes of the groups that are tried where groups of several classes leave a class out of a split."""


def assign(
    labels: Sequence[str],
    groups: Sequence[str],
    ratios: tuple[float, float, float],
    seed: int,
    fixed: Mapping[str, str] | None = None,
) -> list[str]:
    """The split of each image; a group is never torn, and every class has an image in every split.

    The hash of (seed, group) is a number in [0, 1); the split is the one in whose part of the cumulated ratios it
    lies. So a group's split depends on no other group, and each class has its ratio of its groups within the noise of
    a hash. Only where a class is missing in a split, the group of it whose hash is nearest to that split moves there.
    ``fixed``: group -> the split that it has from an earlier division, and keeps, even if a class is then missing.
    Raises TrainerError for ratios that are not positive and, if nothing is fixed, for classes that cannot be in every
    split.
    """
    shares = check_ratios(ratios)
    small = too_small(labels, groups)
    if small and not fixed:
        raise TrainerError(" ".join(too_small_sentence(name, Counter(labels)[name], n) for name, n in small.items()))
    places = {group: SPLITS.index(split) for group, split in (fixed or {}).items()}
    parts = _share_out(labels, groups, shares, f"{seed}", places)
    if isinstance(parts, str):
        raise TrainerError(
            f"class {parts!r} cannot have an image in each split: its groups also hold other classes and cannot be "
            "shared out. Make the groups smaller, or give a split column of your own."
        )
    return [SPLITS[part] for part in parts]


def assign_folds(
    labels: Sequence[str], groups: Sequence[str], folds: int, seed: int, fixed: Mapping[str, int] | None = None
) -> list[int]:
    """The fold of each image, 1 .. ``folds``; as ``assign`` does it, with equal shares and another hash.

    Raises TrainerError for a number of folds out of range and, if nothing is fixed, for classes that cannot be in
    every fold.
    """
    check_folds(folds)
    small = too_small(labels, groups, folds)
    if small and not fixed:
        counts = Counter(labels)
        raise TrainerError(" ".join(few_for_folds_sentence(c, counts[c], n, folds) for c, n in small.items()))
    places = {group: fold - 1 for group, fold in (fixed or {}).items()}
    parts = _share_out(labels, groups, (1 / folds,) * folds, f"fold:{seed}", places)
    if isinstance(parts, str):
        raise TrainerError(
            f"class {parts!r} cannot have an image in each of {folds} folds: its groups also hold other classes and "
            "cannot be shared out. Make the groups smaller, or use fewer folds."
        )
    return [part + 1 for part in parts]


def train_or_validation(group: str, ratios: tuple[float, float, float], seed: int) -> str:
    """The split of a group that is not to be in test, by the same hash."""
    train, validation, _ = check_ratios(ratios)
    return SPLITS[0] if _unit_hash(f"{seed}:{group}") * (train + validation) < train else SPLITS[1]


def lend_validation(labels: Sequence[str], groups: Sequence[str], share: float, seed: int) -> list[str]:
    """Train or validation for each image of a split train: about ``share`` of the groups are lent to validation.

    Every class keeps an image in train. One of two or more groups has an image in validation too, unless its groups
    also hold other classes and cannot be shared out.
    """
    classes = _classes_of(labels, groups)
    alone = too_small(labels, groups, 2)
    fixed = {group: 0 for group, inside in classes.items() if not inside.isdisjoint(alone)}
    rest = (1 - share) / 2
    table = _Table(classes, [(0, rest), (1, share), (0, rest)], f"{seed}", fixed)
    table.cover()
    table.fill(0)
    return [SPLITS[table.part[group]] for group in groups]


def check_folds(folds: int) -> None:
    """Raise TrainerError unless ``folds`` is in 2 .. 20."""
    if not FEWEST_FOLDS <= folds <= MOST_FOLDS:
        raise TrainerError(
            f"folds is {folds}; it must be 0 for one split, or {FEWEST_FOLDS} to {MOST_FOLDS} for cross-validation."
        )


def check_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    """``ratios`` of train, validation, test, scaled to a sum of 1. Raises TrainerError."""
    if len(ratios) != 3 or not all(math.isfinite(r) and r > 0 for r in ratios):
        raise TrainerError(
            f"the splits are {', '.join(map(str, ratios))}; give three positive ratios of train, validation and test, "
            "such as 0.7, 0.15, 0.15."
        )
    total = sum(ratios)
    return ratios[0] / total, ratios[1] / total, ratios[2] / total


def too_small(labels: Sequence[str], groups: Sequence[str], needed: int = len(SPLITS)) -> dict[str, int]:
    """The classes with fewer than ``needed`` groups -> how many groups they have."""
    found: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        found.setdefault(label, set()).add(group)
    return {label: len(names) for label, names in sorted(found.items()) if len(names) < needed}


def too_small_sentence(label: str, images: int, groups: int) -> str:
    """Return the message for a class that is too small for three splits."""
    return (
        f"class {label!r} has {_images(images, groups)}; at least {len(SPLITS)} are needed, one each for "
        f"{', '.join(SPLITS)}. Add images to it, or take the class out."
    )


def few_for_folds_sentence(label: str, images: int, groups: int, folds: int) -> str:
    """Return the message for a class that has too few images outside test for ``folds`` folds."""
    return (
        f"class {label!r} has, outside test, {_images(images, groups)}; at least {folds} are needed, one for each "
        "fold. Add images to it, use fewer folds, or take the class out."
    )


def _images(images: int, groups: int) -> str:
    has = count(images, "image")
    return has if groups >= images else f"{has}, which by their duplicates and groups count as {groups}"


def _share_out(
    labels: Sequence[str], groups: Sequence[str], shares: Sequence[float], salt: str, fixed: Mapping[str, int]
) -> list[int] | str:
    """The part, 0 .. len(shares) - 1, of each image; or the name of a class that cannot be in every part."""
    classes = _classes_of(labels, groups)
    missing = ""
    for attempt in range(ATTEMPTS):
        table = _Table(classes, [*enumerate(shares)], salt if not attempt else f"{salt}:{attempt}", fixed)
        missing = table.cover()
        if fixed or not missing:
            return [table.part[group] for group in groups]
    return missing


def _classes_of(labels: Sequence[str], groups: Sequence[str]) -> dict[str, set[str]]:
    """Group -> the classes of its images."""
    classes: dict[str, set[str]] = {}
    for label, group in zip(labels, groups, strict=True):
        classes.setdefault(group, set()).add(label)
    return classes


class _Table:
    """The part of each group, and the groups of each class in each part.

    ``classes``: group -> its classes. ``pieces``: (part, share) of each piece of [0, 1), in order; the shares sum to 1.
    ``fixed``: group -> the part that it does not leave.
    """

    def __init__(
        self, classes: Mapping[str, set[str]], pieces: Sequence[tuple[int, float]], salt: str, fixed: Mapping[str, int]
    ) -> None:
        self._classes, self._fixed = classes, fixed
        shares = [share for _, share in pieces]
        edges = [sum(shares[:i]) for i in range(len(shares))] + [1.0]
        self._ranges: list[list[tuple[float, float]]] = [[] for _ in {part for part, _ in pieces}]
        for i, (part, _) in enumerate(pieces):
            self._ranges[part].append((edges[i], edges[i + 1]))
        self._hash = {group: _unit_hash(f"{salt}:{group}") for group in classes}
        self.part = {
            group: fixed.get(group, pieces[max(i for i, edge in enumerate(edges[:-1]) if edge <= place)][0])
            for group, place in self._hash.items()
        }
        self._inside: dict[str, list[set[str]]] = {}
        for group, inside in classes.items():
            for label in inside:
                self._inside.setdefault(label, [set() for _ in self._ranges])[self.part[group]].add(group)

    def cover(self) -> str:
        """Move groups until every class is in every part; the name of a class for which no move is left, or "".

        The next move is the one of least distance. A move empties no part, so a queue of moves holds: one that is not
        possible yet is put in when a move adds a second group to the part that it leaves.
        """
        moves = [move for group in self._classes for move in self._moves(group)]
        heapq.heapify(moves)
        while moves:
            _, group, part = heapq.heappop(moves)
            if self._may_leave(group) and self._lacks(group, part):
                for other in self._move(group, part):
                    for move in self._moves(other):
                        heapq.heappush(moves, move)
        return min((label for label, parts in self._inside.items() if not all(parts)), default="")

    def fill(self, part: int) -> None:
        """Move the nearest group of each class that ``part`` still lacks there, wherever the class is missing then."""
        for label in sorted(self._inside):
            if not self._inside[label][part]:
                able = {group for groups in self._inside[label] for group in groups} - set(self._fixed)
                if able:
                    self._move(min(able, key=lambda group: (self._distance(group, part), group)), part)

    def _moves(self, group: str) -> Iterator[tuple[float, str, int]]:
        """Yield (distance, group, part) of each move of ``group`` to a part that lacks one of its classes."""
        if self._may_leave(group):
            for part in range(len(self._ranges)):
                if self._lacks(group, part):
                    yield self._distance(group, part), group, part

    def _may_leave(self, group: str) -> bool:
        """Whether ``group`` is not fixed, and no class of it would be missing in the part that it leaves."""
        part = self.part[group]
        return group not in self._fixed and all(len(self._inside[c][part]) > 1 for c in self._classes[group])

    def _lacks(self, group: str, part: int) -> bool:
        return any(not self._inside[label][part] for label in self._classes[group])

    def _move(self, group: str, part: int) -> set[str]:
        """Move ``group`` to ``part``; the groups there that may be able to leave it since."""
        freed: set[str] = set()
        for label in self._classes[group]:
            self._inside[label][self.part[group]].remove(group)
            self._inside[label][part].add(group)
            if len(self._inside[label][part]) == 2:
                freed |= self._inside[label][part]
        self.part[group] = part
        return freed

    def _distance(self, group: str, part: int) -> float:
        place = self._hash[group]
        return min(max(low - place, place - high, 0.0) for low, high in self._ranges[part])


def _unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on ``text`` alone: 53 bits of its SHA-256."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53
