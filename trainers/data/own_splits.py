"""The data's own splits: whether they are used, what they lack, and the validation that they lend from train."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from trainers.data.data_source import DEFAULT_SPLITS, DataSource
from trainers.data.duplicates import members_of
from trainers.data.listing import Listing, SourceNotes, name_some
from trainers.data.stratify import SPLITS, TEST, TRAIN, VALIDATION, lend_validation, too_small
from trainers.wording import count


def with_own_or_ratios(
    listing: Listing, rows: pd.DataFrame, source: DataSource, notes: SourceNotes
) -> tuple[Listing, pd.DataFrame, tuple[float, float, float] | None]:
    """Return ``listing`` and ``rows`` with the splits to use, and the ratios, or None where the data's own are used.

    For ``source.splits`` "auto": own splits of which train and test are there. If validation is missing and there are
    no folds, train is divided into both. Anything less is divided anew, with a warning.
    """
    if source.splits != "auto":
        return listing, rows, source.splits
    anew = dataclasses.replace(listing, rows=listing.rows.assign(split=None), without_splits=())
    if listing.without_splits:
        notes.warnings.append(
            "these sources have no splits of their own, so those of the others are not used and all images are "
            f"divided anew: {name_some(listing.without_splits)}. Give all of them splits to keep test images out of "
            "training."
        )
    found = set(rows["split"].dropna())
    if listing.without_splits or not found:
        return anew, rows, DEFAULT_SPLITS
    if not found & {*SPLITS}:
        notes.warnings.append(
            f"the column split holds {name_some(sorted(map(repr, found)))} and none of {', '.join(SPLITS)}, so it is "
            "not used, and all images are divided anew."
        )
        return anew, rows, DEFAULT_SPLITS
    known = found <= {*SPLITS} and not rows["split"].isna().any()
    if known and found == {"train", "test"} and not source.folds:
        return listing, _with_validation(rows, source.seed, notes), None
    if known and not {"train", "test"} <= found:
        notes.warnings.append(
            f"the data's own splits are not used, because there is only {' and '.join(sorted(found))}: all images are "
            "divided anew. To keep them, name the part to train on train, and the part to hold out test."
        )
        return anew, rows, DEFAULT_SPLITS
    return listing, rows, None


def _with_validation(rows: pd.DataFrame, seed: int, notes: SourceNotes) -> pd.DataFrame:
    """``rows`` of train and test, with part of train as validation, in the proportion of the default ratios."""
    train, validation, _ = DEFAULT_SPLITS
    pool = rows[rows["split"] == TRAIN]
    share = validation / (train + validation)
    parts = lend_validation(pool["label"].tolist(), pool["group"].tolist(), share, seed)
    lent = parts.count(VALIDATION)
    if lent:
        notes.warnings.append(
            f"the data has its own train and test but no validation: {lent:,} of the {len(parts):,} images of train "
            f"{'is' if lent == 1 else 'are'} used for validation. To train on each of them, use folds."
        )
    return rows.assign(split=pd.Series(parts, index=pool.index).reindex(rows.index).fillna(rows["split"]))


def own_division(
    listing: Listing, rows: pd.DataFrame, folds: int, notes: SourceNotes
) -> tuple[list[str], list[list[int]]] | None:
    """Return the split of each row by the data's own, and the groups, as positions of rows, that they tear apart.

    With folds, validation is a part of train. None, and a problem in ``notes``, where the splits cannot be used.
    """
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
    problems = _split_problems(rows, folds)
    notes.problems += problems
    if problems:
        return None
    splits = [TRAIN if folds and split == VALIDATION else split for split in rows["split"]]
    return splits, _note_by_own_splits(rows.assign(split=splits), folds, notes)


def _split_problems(rows: pd.DataFrame, folds: int) -> list[str]:
    """List the problems of the data's own splits: unknown and empty words, and splits without any image."""
    problems, splits, needed = [], rows["split"], (TRAIN, TEST) if folds else SPLITS
    blank = int(splits.isna().sum())
    if blank:
        problems.append(f"the column split is empty in {count(blank, 'row')}; each needs one of {', '.join(SPLITS)}.")
    found = set(splits.dropna())
    unknown = sorted(found - set(SPLITS))
    if unknown:
        problems.append(f"the column split holds {name_some(map(repr, unknown))}; allowed are {', '.join(SPLITS)}.")
    absent = [s for s in needed if s not in found]
    if absent == [VALIDATION]:
        train = rows[splits == TRAIN]
        spare = set(train["label"]) - {*too_small(train["label"].tolist(), train["group"].tolist(), 2)}
        problems.append(
            "no image has the split validation; write splits: auto, which takes some of train for it, or use folds."
            if spare
            else "no image has the split validation, and train has none to spare: it holds a single image, or group of "
            "duplicates, of each class. Add images to train."
        )
    elif absent:
        problems.append(
            f"no image has the split {' or '.join(absent)}; all of {', '.join(needed)} are needed. Add them, or give "
            "ratios, which divide all images again."
        )
    return problems


def _note_by_own_splits(rows: pd.DataFrame, folds: int, notes: SourceNotes) -> list[list[int]]:
    """Return the groups that the data's own splits tear; note the classes that a split lacks."""
    note_absent(rows, [s for s in SPLITS if not (folds and s == VALIDATION)], notes)
    torn = [members for members in members_of(rows["group"]) if rows["split"][members].nunique() > 1]
    if torn:
        notes.warnings.append(
            f"the data's own splits tear {count(len(torn), 'group')} of images that belong together: "
            f"{name_some(' ~ '.join(rows['path'][members]) for members in torn)}."
        )
    return torn


def note_absent(rows: pd.DataFrame, wanted: Sequence[str], notes: SourceNotes) -> None:
    """Note the classes of which a split has no image: a problem in train, a warning elsewhere."""
    for label, own in rows.groupby("label")["split"]:
        absent = [s for s in wanted if s not in set(own)]
        if TRAIN in absent:
            notes.problems.append(
                f"class {label!r} has no image in train, so it cannot be learnt. Add images to it, or take the class "
                "out."
            )
        elif absent:
            notes.warnings.append(f"class {label!r} has no image in {' and '.join(absent)}.")
