"""The data's own splits: whether they are used, what they lack, and the validation that they lend from train."""

from __future__ import annotations

import dataclasses

import pandas as pd

from trainers.data.data_source import DEFAULT_SPLITS, DataSource
from trainers.data.listing import Listing, SourceNotes, name_some
from trainers.data.splits import divide
from trainers.data.stratify import (
    SPLITS,
)


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
        return listing, _with_validation(anew, rows, source.seed, notes), None
    if known and not {"train", "test"} <= found:
        notes.warnings.append(
            f"the data's own splits are not used, because there is only {' and '.join(sorted(found))}: all images are "
            "divided anew. To keep them, name the part to train on train, and the part to hold out test."
        )
        return anew, rows, DEFAULT_SPLITS
    return listing, rows, None


def _with_validation(listing: Listing, rows: pd.DataFrame, seed: int, notes: SourceNotes) -> pd.DataFrame:
    """``rows`` of train and test, with part of train as validation, in the proportion of the default ratios."""
    train, validation, _ = DEFAULT_SPLITS
    share = validation / (train + validation)
    pool = rows[rows["split"] == "train"]
    found = SourceNotes()
    three = ((1 - share) / 2, share, (1 - share) / 2)  # the first and the last are train
    division = divide(listing, pool.reset_index(drop=True), three, 0, seed, found)
    notes.problems += found.problems
    parts = ["validation" if split == "validation" else "train" for split in division.splits]
    notes.warnings.append(
        f"the data has its own train and test but no validation: {parts.count('validation'):,} of the "
        f"{len(parts):,} images of train are used for validation. To train on each of them, use folds."
    )
    return rows.assign(split=pd.Series(parts, index=pool.index).reindex(rows.index).fillna(rows["split"]))
