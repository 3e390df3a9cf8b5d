"""Train, validation and test, or folds: stratified by class, whole groups only, the same wherever the photos lie.

Pure: labels, groups, ratios and a seed in, split names or the numbers of folds out.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from trainers.errors import TrainerError
from trainers.wording import count

SPLITS = ("train", "validation", "test")
FEWEST_FOLDS, MOST_FOLDS = 2, 20
ATTEMPTS = 64
"""Maximum orders of groups that are tried before the groups are considered impossible to split."""


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    counts: dict[str, int]  # images per class

    @property
    def size(self) -> int:
        return sum(self.counts.values())


def assign(labels: Sequence[str], groups: Sequence[str], ratios: tuple[float, float, float], seed: int) -> list[str]:
    """The split of each image; a group is never torn, and every class has an image in every split.

    Independent of the order of the images: groups go by the hash of (seed, name), so names that come from the
    images' content give the same splits on every machine. Without groups, each class's share of each split is its
    ratio rounded down or up (but at least 1), and so is, within a few images, the whole; groups make it as near as
    moving one group at a time can.
    Raises TrainerError for ratios that are not positive and for classes that cannot be in every split.
    """
    shares = check_ratios(ratios)
    small = too_small(labels, groups)
    if small:
        raise TrainerError(" ".join(too_small_sentence(name, Counter(labels)[name], n) for name, n in small.items()))
    parts = _share_out(labels, groups, shares, seed)
    if isinstance(parts, str):
        raise TrainerError(
            f"class {parts!r} cannot have an image in each split: its groups also hold other classes and cannot be "
            "shared out. Make the groups smaller, or give a split column of your own."
        )
    return [SPLITS[part] for part in parts]


def assign_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> list[int]:
    """The fold of each image, 1 .. ``folds``; as ``assign`` does it, with equal shares.

    A group is never torn, every class has an image in every fold, and without groups a class's images in any two
    folds differ by at most one. Raises TrainerError for a number of folds out of range and for classes that cannot be
    in every fold.
    """
    check_folds(folds)
    small = too_small(labels, groups, folds)
    if small:
        counts = Counter(labels)
        raise TrainerError(" ".join(few_for_folds_sentence(c, counts[c], n, folds) for c, n in small.items()))
    parts = _share_out(labels, groups, (1 / folds,) * folds, seed)
    if isinstance(parts, str):
        raise TrainerError(
            f"class {parts!r} cannot have an image in each of {folds} folds: its groups also hold other classes and "
            "cannot be shared out. Make the groups smaller, or use fewer folds."
        )
    return [part + 1 for part in parts]


def check_folds(folds: int) -> None:
    """Raise TrainerError unless ``folds`` is in 2 .. 20."""
    if not FEWEST_FOLDS <= folds <= MOST_FOLDS:
        raise TrainerError(
            f"folds is {folds}; it must be 0 for one split, or {FEWEST_FOLDS} to {MOST_FOLDS} for cross-validation."
        )


def _share_out(labels: Sequence[str], groups: Sequence[str], shares: Sequence[float], seed: int) -> list[int] | str:
    """The part, 0 .. len(shares) - 1, of each image; or the name of a class that cannot be in every part."""
    members: dict[str, dict[str, int]] = {}
    for label, group in zip(labels, groups, strict=True):
        inside = members.setdefault(group, {})
        inside[label] = inside.get(label, 0) + 1
    targets = _targets(Counter(labels), shares)
    groups_found = [_Group(name, inside) for name, inside in members.items()]
    for attempt in range(ATTEMPTS):
        units = sorted(groups_found, key=partial(_place, seed=seed, attempt=attempt))
        table = _Table(units, targets, len(shares))
        table.fill()
        if table.cover():
            table.improve()
            chosen = {g.name: part for g, part in zip(units, table.split, strict=True)}
            return [chosen[group] for group in groups]
    return table.uncovered()[0]


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


def _place(group: _Group, seed: int, attempt: int) -> tuple[int, int, bytes]:
    """Even attempts begin with the most entangled groups, then the largest; ties and odd attempts are random."""
    order = hashlib.sha256(f"{seed}:{attempt}:{group.name}".encode()).digest()
    return (0, 0, order) if attempt % 2 else (-len(group.counts), -group.size, order)


def _targets(counts: Counter[str], shares: Sequence[float]) -> dict[str, list[int]]:
    """Images of each class in each part. Leftover units go where all classes together lack most so far."""
    parts = range(len(shares))
    owed = [0.0] * len(shares)
    targets = {}
    for label in sorted(counts):
        exact = [counts[label] * share for share in shares]
        target = [math.floor(x + 1e-9) for x in exact]
        lacking = sorted(parts, key=lambda s: (-(owed[s] + exact[s] - target[s]), s))
        spare = [s for s in lacking if exact[s] - target[s] > 1e-9] or lacking
        for s in spare[: counts[label] - sum(target)]:
            target[s] += 1
        owed = [o + x - t for o, x, t in zip(owed, exact, target, strict=True)]
        for s in parts:
            if target[s] == 0:
                target[s] = 1
                target[target.index(max(target))] -= 1
        targets[label] = target
    return targets


class _Table:
    """Groups, the part (split or fold) that each has, and how far every class is from its targets."""

    def __init__(self, groups: list[_Group], targets: dict[str, list[int]], parts: int) -> None:
        self.groups = groups
        self.parts = range(parts)
        self.split: list[int] = []
        self._lacking = {label: list(target) for label, target in targets.items()}
        self._weight = {label: 1 / sum(target) for label, target in targets.items()}
        self._groups_in = {label: [0] * parts for label in targets}

    def fill(self) -> None:
        """Put each group where it helps most; the last groups of a class go to the splits it is missing in."""
        left = Counter(label for g in self.groups for label in g.counts)
        for group in self.groups:
            missing = {c: [s for s in self.parts if not self._groups_in[c][s]] for c in group.counts}
            urgent = [c for c, empty in missing.items() if empty and left[c] <= len(empty)]
            best = max(self.parts, key=lambda s: (sum(s in missing[c] for c in urgent), self._gain(group, s), -s))
            self._add(group, best, +1)
            self.split.append(best)
            left.subtract(group.counts.keys())

    def uncovered(self) -> list[str]:
        return [label for label, found in self._groups_in.items() if 0 in found]

    def cover(self) -> bool:
        """Move groups until every class is in every split; False where no single move helps."""
        for label in self.uncovered():
            for s in self.parts:
                if self._groups_in[label][s]:
                    continue
                able = [i for i, g in enumerate(self.groups) if label in g.counts and self._may_leave(i)]
                if not able:
                    return False
                self._move(max(able, key=lambda i: (self._change(i, s), -i)), s)
        return not self.uncovered()

    def improve(self) -> None:
        """Move one group at a time while that brings the splits nearer to their targets."""
        for _ in range(10):
            moved = False
            for i, group in enumerate(self.groups):
                if group.size == 1:
                    continue
                best = max(self.parts, key=lambda s: (self._change(i, s) if s != self.split[i] else 0.0, -s))
                if best != self.split[i] and self._change(i, best) > 1e-9 and self._may_leave(i):
                    self._move(i, best)
                    moved = True
            if not moved:
                return

    def _gain(self, group: _Group, s: int) -> float:
        """How much the squared distance from the targets falls when ``group`` joins split ``s``."""
        return sum(n * (2 * self._lacking[c][s] - n) * self._weight[c] for c, n in group.counts.items())

    def _change(self, i: int, s: int) -> float:
        group, here = self.groups[i], self.split[i]
        leaving = sum(n * (2 * self._lacking[c][here] + n) * self._weight[c] for c, n in group.counts.items())
        return self._gain(group, s) - leaving

    def _may_leave(self, i: int) -> bool:
        return all(self._groups_in[c][self.split[i]] > 1 for c in self.groups[i].counts)

    def _move(self, i: int, s: int) -> None:
        self._add(self.groups[i], self.split[i], -1)
        self._add(self.groups[i], s, +1)
        self.split[i] = s

    def _add(self, group: _Group, s: int, sign: int) -> None:
        for label, n in group.counts.items():
            self._lacking[label][s] -= sign * n
            self._groups_in[label][s] += sign
