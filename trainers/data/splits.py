"""Assign a split and a fold to each image, by ratios or by the data's own splits; collect the problems."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from trainers.data.duplicates import members_of
from trainers.data.listing import Listing, SourceNotes, name_some
from trainers.data.stratify import SPLITS, assign, assign_folds, few_for_folds_sentence, too_small, too_small_sentence
from trainers.data.tables import split_problems
from trainers.errors import TrainerError
from trainers.metrics import Z_95
from trainers.wording import count

TRAIN, VALIDATION, TEST = SPLITS
FEW_TEST_IMAGES = 100
"""Images below which a test split is a warning."""


@dataclass(frozen=True)
class Division:
    """``splits`` and ``folds`` of each row; None and 0 where none could be made. ``torn``: the groups, as positions of
    rows, that the data's own splits tear apart."""

    splits: list[str | None]
    folds: list[int]
    torn: list[list[int]] = field(default_factory=list)


def divide(
    listing: Listing,
    rows: pd.DataFrame,
    ratios: tuple[float, float, float] | None,
    folds: int,
    seed: int,
    notes: SourceNotes,
) -> Division:
    """Divide ``rows`` (label, split, group); problems go to ``notes``.

    With folds, train and validation are one pool, every row of which has the split "train" and a fold from 1 on; test
    is the same as without folds.
    """
    nothing = Division([None] * len(rows), [0] * len(rows))
    problems = len(notes.problems)
    division = (
        _by_own_splits(listing, rows, folds, notes)
        if ratios is None
        else _by_ratios(listing, rows, ratios, seed, notes)
    )
    if division is None or len(notes.problems) > problems:
        return nothing
    if folds:
        division = _with_folds(rows, division, folds, seed, notes)
    _note_few_test_images(division.splits, notes)
    return division if len(notes.problems) == problems else nothing


def interval_half_width(accuracy: float, images: int) -> float:
    """Half of the width of the 95 % score interval of ``accuracy`` measured on ``images`` (Wilson 1927).

    z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n). Written out since scipy's binomtest takes a count of images, and an
    accuracy that is merely expected is none.
    """
    z2 = Z_95**2
    spread = accuracy * (1 - accuracy) / images + z2 / (4 * images**2)
    return Z_95 * math.sqrt(spread) / (1 + z2 / images)


def _by_ratios(
    listing: Listing, rows: pd.DataFrame, ratios: tuple[float, float, float], seed: int, notes: SourceNotes
) -> Division | None:
    if listing.has_splits or listing.without_splits:
        notes.warnings.append("the data has splits of its own; they are not used, because ratios are given.")
    labels, groups = rows["label"].tolist(), rows["group"].tolist()
    small = too_small(labels, groups)
    if not small and labels:
        try:
            return Division([*assign(labels, groups, ratios, seed)], [0] * len(rows))
        except TrainerError as error:
            notes.problems.append(str(error))
    counts = Counter(labels)
    notes.problems += [too_small_sentence(label, counts[label], n) for label, n in small.items()]
    return None


def _by_own_splits(listing: Listing, rows: pd.DataFrame, folds: int, notes: SourceNotes) -> Division | None:
    if listing.without_splits:
        notes.problems.append(
            f"some sources have splits of their own and these have not: {name_some(listing.without_splits)}. Give all "
            "of them splits, or give ratios of train, validation and test."
        )
        return None
    if not listing.has_splits:
        notes.problems.append(
            "the data has no splits of its own; give ratios of train, validation and test (such as 0.7, 0.15, 0.15), "
            "a table with a column split, or the top folders train, validation and test."
        )
        return None
    problems = split_problems(rows["split"], SPLITS, (TRAIN, TEST) if folds else SPLITS)
    notes.problems += problems
    if problems:
        return None
    splits = [TRAIN if folds and split == VALIDATION else split for split in rows["split"]]
    return Division(splits, [0] * len(rows), _note_by_own_splits(rows.assign(split=splits), folds, notes))


def _note_by_own_splits(rows: pd.DataFrame, folds: int, notes: SourceNotes) -> list[list[int]]:
    """Return the groups that the data's own splits tear; note the classes that a split lacks."""
    wanted = [s for s in SPLITS if not (folds and s == VALIDATION)]
    for label, own in rows.groupby("label")["split"]:
        absent = [s for s in wanted if s not in set(own)]
        if TRAIN in absent:
            notes.problems.append(f"class {label!r} has no image in train, so it cannot be learnt.")
        elif absent:
            notes.warnings.append(f"class {label!r} has no image in {' and '.join(absent)}.")
    torn = [members for members in members_of(rows["group"]) if rows["split"][members].nunique() > 1]
    if torn:
        notes.warnings.append(
            f"the data's own splits tear {count(len(torn), 'group')} of images that belong together: "
            f"{name_some(' ~ '.join(rows['path'][members]) for members in torn)}."
        )
    return torn


def _with_folds(rows: pd.DataFrame, division: Division, folds: int, seed: int, notes: SourceNotes) -> Division:
    pool = [i for i, split in enumerate(division.splits) if split != TEST]
    labels, groups = rows["label"].iloc[pool].tolist(), rows["group"].iloc[pool].tolist()
    small, counts = too_small(labels, groups, folds), Counter(labels)
    notes.problems += [few_for_folds_sentence(label, counts[label], n, folds) for label, n in small.items()]
    if small:
        return division
    try:
        numbers = assign_folds(labels, groups, folds, seed)
    except TrainerError as error:
        notes.problems.append(str(error))
        return division
    of_row = [0] * len(rows)
    for i, number in zip(pool, numbers, strict=True):
        of_row[i] = number
    return Division([TRAIN if number else TEST for number in of_row], of_row, division.torn)


def _note_few_test_images(splits: Sequence[str | None], notes: SourceNotes) -> None:
    images = sum(split == TEST for split in splits)
    if 0 < images < FEW_TEST_IMAGES:
        notes.warnings.append(
            f"the test split holds {count(images, 'image')}: an accuracy of 90 % measured on so few is known to "
            f"within {100 * interval_half_width(0.9, images):.0f} percentage points either way (95 % interval). Add "
            "images, or give test a larger share."
        )
