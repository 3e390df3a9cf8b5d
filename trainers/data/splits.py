"""Assign a split and a fold to each image, by ratios or by the data's own splits; collect the problems."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd

from trainers.data.duplicates import members_of, same_photos
from trainers.data.listing import Listing, SourceNotes
from trainers.data.own_splits import note_absent, own_division
from trainers.data.stratify import (
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    assign,
    assign_folds,
    few_for_folds_sentence,
    too_small,
    too_small_sentence,
    train_or_validation,
)
from trainers.errors import TrainerError
from trainers.metrics import Z_95
from trainers.wording import count

FEW_TEST_IMAGES = 100
"""Images below which a test split is a warning."""

NO_IMAGE = "no image is in"
"""Beginning of the problem that kept splits leave a split or a fold empty."""

Side = TypeVar("Side", str, int)


@dataclass(frozen=True)
class Division:
    """``splits`` and ``folds`` of each row; None and 0 where none could be made. ``torn``: the groups, as positions of
    rows, that the data's own splits or those that are kept tear apart. ``empty``: what needs an image and has none, by
    the splits that are kept ("test", "fold 3")."""

    splits: list[str | None]
    folds: list[int]
    torn: list[list[int]] = field(default_factory=list)
    empty: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What an earlier division says of each row: its split and fold there, those of its copies for a new one, else
    None and 0.

    ``folds``: how many folds the earlier division has. ``bridging``: positions of the new rows that are in one group
    with photos of two splits; they must be left out. ``known``: bool (rows,), whether the earlier division has the row.
    """

    splits: list[str | None]
    fold_of: list[int]
    folds: int
    bridging: list[int]
    known: np.ndarray

    def without(self, positions: Collection[int]) -> Kept:
        """The same for the rows that remain when those at ``positions`` are left out."""
        left = [i for i in range(len(self.splits)) if i not in positions]
        splits, fold_of = [self.splits[i] for i in left], [self.fold_of[i] for i in left]
        return Kept(splits, fold_of, self.folds, [], self.known[left])


def keep_splits(rows: pd.DataFrame, earlier: pd.DataFrame, folds: int, copies: Sequence[str] | None = None) -> Kept:
    """Find the photos of ``rows`` (sha256, descriptor, group) in the table of an earlier manifest.

    ``folds``: those that are to be made. ``copies``: the group of each row without look-alikes; None for ``group``. A
    photo is found by its bytes, or by its content where it was exported again and the earlier file is gone. A new one
    takes the split and fold of a known one of its ``copies``, whatever else it looks like.
    """
    found = same_photos(rows.drop(columns="descriptor", errors="ignore"), earlier)
    new, gone = np.flatnonzero(found < 0), np.flatnonzero(~earlier["sha256"].isin(set(rows["sha256"])).to_numpy())
    if len(new) and len(gone):
        again = same_photos(rows.iloc[new], earlier.iloc[gone])
        found[new] = np.where(again >= 0, gone[again], -1)
    known = found >= 0
    there = earlier.iloc[found[known]]
    splits: list[str | None] = [None] * len(rows)
    fold_of = [0] * len(rows)
    numbers = there["fold"].tolist() if "fold" in there else [0] * len(there)
    for i, split, number in zip(known.nonzero()[0].tolist(), there["split"].tolist(), numbers, strict=True):
        splits[i], fold_of[i] = split, int(number)
    earlier_folds = int(earlier["fold"].max()) if "fold" in earlier and len(earlier) else 0
    sides = [split and (split if split == TEST or not (folds or earlier_folds) else TRAIN) for split in splits]
    if folds and folds == earlier_folds:
        sides = [side and f"{side}{number}" for side, number in zip(sides, fold_of, strict=True)]
    bridging = []
    for members in members_of(rows["group"] if copies is None else copies):
        new_ones, first = [i for i in members if not known[i]], next((i for i in members if known[i]), None)
        if len({sides[i] for i in members if sides[i]}) > 1:
            bridging += new_ones
        elif first is not None:
            for i in new_ones:
                splits[i], fold_of[i] = splits[first], fold_of[first]
    return Kept(splits, fold_of, earlier_folds, sorted(bridging), known)


def divide(
    listing: Listing,
    rows: pd.DataFrame,
    ratios: tuple[float, float, float] | None,
    folds: int,
    seed: int,
    notes: SourceNotes,
    kept: Kept | None = None,
) -> Division:
    """Divide ``rows`` (label, split, group); problems go to ``notes``. ``kept``: what an earlier division says of them.

    With folds, train and validation are one pool, every row of which has the split "train" and a fold from 1 on; test
    is the same as without folds. A problem of a class that has none when all is divided anew says how to do that.
    """
    before = len(notes.problems)
    division = _divide(listing, rows, ratios, folds, seed, notes, kept)
    if ratios is not None and kept is not None and kept.known.any() and len(notes.problems) > before:
        anew = SourceNotes()
        _divide(listing, rows, ratios, folds, seed, anew, None)
        names = [f"class {label!r} " for label in set(rows["label"])]
        too_few = tuple(name for name in names if any(text.startswith(name) for text in anew.problems))
        too_few += (NO_IMAGE,) if anew.problems else ()
        notes.problems[before:] = [
            text if text.startswith(too_few) else f"{text.removesuffix('.')}, or set data.keep_splits: none."
            for text in notes.problems[before:]
        ]
    return division


def _divide(
    listing: Listing,
    rows: pd.DataFrame,
    ratios: tuple[float, float, float] | None,
    folds: int,
    seed: int,
    notes: SourceNotes,
    kept: Kept | None,
) -> Division:
    nothing = Division([None] * len(rows), [0] * len(rows))
    problems = len(notes.problems)
    if ratios is None:
        own = own_division(listing, rows, folds, notes)
        division = own and Division([*own[0]], [0] * len(rows), own[1])
    else:
        division = _by_ratios(listing, rows, ratios, seed, notes, folds, kept)
    if division is None or len(notes.problems) > problems:
        return dataclasses.replace(nothing, empty=division.empty if division else ())
    if folds:
        division = _with_folds(rows, division, folds, seed, notes, kept if ratios else None)
    _note_few_test_images(division.splits, notes)
    if len(notes.problems) > problems:
        return dataclasses.replace(nothing, empty=division.empty)
    if ratios is None:
        return division
    sides = list(zip(division.splits, division.folds, strict=True))
    torn = [members for members in members_of(rows["group"]) if len({sides[i] for i in members}) > 1]
    return dataclasses.replace(division, torn=torn)


def interval_half_width(accuracy: float, images: int) -> float:
    """Half of the width of the 95 % interval of ``accuracy`` measured on ``images`` (Agresti & Coull 1998).

    z sqrt(q(1-q) / (n + z^2)), q = (n p + z^2 / 2) / (n + z^2), of an accuracy that is merely expected.
    """
    size = images + Z_95**2
    middle = (images * accuracy + Z_95**2 / 2) / size
    return Z_95 * math.sqrt(middle * (1 - middle) / size)


def _by_ratios(
    listing: Listing,
    rows: pd.DataFrame,
    ratios: tuple[float, float, float],
    seed: int,
    notes: SourceNotes,
    folds: int,
    kept: Kept | None,
) -> Division | None:
    if listing.has_splits or listing.without_splits:
        notes.warnings.append("the data has splits of its own; they are not used, because ratios are given.")
    labels = rows["label"].tolist()
    sides = _kept_sides(rows, ratios, seed, folds, kept)
    groups, fixed = _fix(rows, sides)
    small = _too_small(labels, groups, fixed, len(SPLITS))
    if not small and labels:
        try:
            splits: list[str | None] = [*assign(labels, groups, ratios, seed, fixed)]
        except TrainerError as error:
            notes.problems.append(str(error))
            return None
        if not fixed:
            return Division(splits, [0] * len(rows))
        pooled = [TRAIN if folds and split == VALIDATION else split for split in splits]
        wanted = (TRAIN, TEST) if folds else SPLITS
        empty = tuple(split for split in wanted if split not in pooled)
        _note_empty(empty, notes)
        note_absent(rows.assign(split=pooled), [split for split in wanted if split not in empty], notes)
        return Division(splits, [0] * len(rows), empty=empty)
    counts = Counter(labels)
    notes.problems += [too_small_sentence(label, counts[label], n) for label, n in small.items()]
    return None


def _kept_sides(
    rows: pd.DataFrame, ratios: tuple[float, float, float], seed: int, folds: int, kept: Kept | None
) -> list[str | None]:
    """The split that each row keeps. Folds know train and test alone, so leaving them is decided by the hash."""
    if kept is None:
        return [None] * len(rows)
    sides = []
    for split, number, group in zip(kept.splits, kept.fold_of, rows["group"], strict=True):
        if split == TRAIN and number and not folds:
            split = train_or_validation(group, ratios, seed)
        sides.append(split)
    return sides


def _fix(rows: pd.DataFrame, sides: Sequence[Side | None]) -> tuple[list[str], dict[str, Side]]:
    """Groups by which rows are to be divided, and what those with an earlier row are fixed to.

    A group with rows on several sides, as an older finder of duplicates left them, is taken apart: each row stays.
    """
    of_group: dict[str, Counter[Side]] = {}
    for group, side in zip(rows["group"], sides, strict=True):
        if side:
            of_group.setdefault(group, Counter())[side] += 1
    groups, fixed = [], {}
    for group, side in zip(rows["group"], sides, strict=True):
        several = len(of_group.get(group, ())) > 1
        # A new row that is no copy and looks like rows on several sides goes to that of most of them.
        chosen = side or _most_common(of_group[group]) if group in of_group else None
        name = f"{group}:{chosen}" if several else group
        if chosen is not None:
            fixed[name] = chosen
        groups.append(name)
    return groups, fixed


def _too_small(labels: Sequence[str], groups: Sequence[str], fixed: Mapping[str, Side], needed: int) -> dict[str, int]:
    """``too_small`` without the classes that have a fixed group, which may lack a split."""
    known = {label for label, group in zip(labels, groups, strict=True) if group in fixed}
    return {label: n for label, n in too_small(labels, groups, needed).items() if label not in known}


def _most_common(sides: Counter[Side]) -> Side:
    return min(sides, key=lambda side: (-sides[side], str(side)))


def _with_folds(
    rows: pd.DataFrame, division: Division, folds: int, seed: int, notes: SourceNotes, kept: Kept | None
) -> Division:
    pool = [i for i, split in enumerate(division.splits) if split != TEST]
    numbers_kept = [kept.fold_of[i] if kept and kept.folds == folds else 0 for i in pool]
    groups, fixed = _fix(rows.iloc[pool], [number or None for number in numbers_kept])
    labels = rows["label"].iloc[pool].tolist()
    small, counts = _too_small(labels, groups, fixed, folds), Counter(labels)
    notes.problems += [few_for_folds_sentence(label, counts[label], n, folds) for label, n in small.items()]
    if small:
        return division
    try:
        numbers = assign_folds(labels, groups, folds, seed, fixed)
    except TrainerError as error:
        notes.problems.append(str(error))
        return division
    for label in sorted(set(labels)) if fixed else ():
        absent = sorted({*range(1, folds + 1)} - {n for n, own in zip(numbers, labels, strict=True) if own == label})
        absent = [number for number in absent if number in numbers]
        if absent:
            notes.warnings.append(f"class {label!r} has no image in fold {', '.join(map(str, absent))}.")
    empty = tuple(f"fold {number}" for number in range(1, folds + 1) if number not in numbers) if fixed else ()
    _note_empty(empty, notes)
    of_row = [0] * len(rows)
    for i, number in zip(pool, numbers, strict=True):
        of_row[i] = number
    return Division([TRAIN if number else TEST for number in of_row], of_row, division.torn, empty)


def _note_empty(empty: Sequence[str], notes: SourceNotes) -> None:
    if empty:
        what = " and ".join(empty)
        notes.problems.append(f"{NO_IMAGE} {what}: the splits that are kept put all of them elsewhere. Add images.")


def _note_few_test_images(splits: Sequence[str | None], notes: SourceNotes) -> None:
    images = sum(split == TEST for split in splits)
    if 0 < images < FEW_TEST_IMAGES:
        notes.warnings.append(
            f"the test split holds {count(images, 'image')}: an accuracy of 90 % measured on so few is known to "
            f"within {100 * interval_half_width(0.9, images):.0f} percentage points either way (95 % interval). Add "
            "images, or give test a larger share."
        )
