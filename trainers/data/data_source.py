"""Where photos are and how they are divided: the value that a manifest is built from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainers.data.sources.read import Source
from trainers.data.stratify import check_folds, check_ratios
from trainers.errors import TrainerError

DEFAULT_SPLITS = (0.7, 0.15, 0.15)
DUPLICATES = ("group", "drop", "keep")


@dataclass(frozen=True)
class DataSource:
    """Where the photos are and how they are divided.

    ``source``: a folder of class folders, which may be nested ("recyclable/paper") and lie in top folders train,
    validation and test; a folder of pairs (``img_1.jpg`` next to ``img_1.txt`` that holds ``img_1.jpg, 0``); a .csv or
    .parquet table with the columns path (relative to the table), label and optionally split (train, validation, test)
    and group; a zip or tar archive of one of these; "builtin:digits"; or several of them in a tuple, which are merged.
    ``splits``: ratios of train, validation, test; None takes the data's own; "auto" takes the data's own where it has
    train and test (``with_own_or_ratios``), else ``DEFAULT_SPLITS``.
    ``folds``: 0, or 2 to 20: train and validation are one pool, divided into that many folds.
    ``duplicates``: "group" keeps exact and near duplicates in one split; "drop" keeps the first by path of each set
    of duplicates (of each label, where near duplicates differ in it) and none of those whose bytes are the same and
    labels are not; "keep" holds only exact duplicates together and lets near ones fall where they may. The table's
    own groups are never torn, and nothing is dropped for being in one. Look-alikes are grouped as near duplicates are,
    and never dropped.
    ``keep_splits``: an earlier manifest, or the folder of a sweep that has one: photos that it holds keep their splits
    (and folds, if their number is the same). Not used where the data's own splits are. ``kept_by_default``: whether it
    was found, not named. ``split_notes``: sentences for the report about manifests that were passed over.
    ``cache``: folder where built-ins are written and archives unpacked. ``encoding``: of names in archives and of
    tables that are not UTF-8; "" guesses.
    """

    source: Source
    splits: tuple[float, float, float] | Literal["auto"] | None
    cache: Path
    seed: int = 0
    duplicates: str = "group"
    folds: int = 0
    encoding: str = ""
    keep_splits: Path | None = None
    kept_by_default: bool = False
    split_notes: tuple[str, ...] = ()


def check_source(source: DataSource) -> None:
    if source.duplicates not in DUPLICATES:
        raise TrainerError(f"duplicates is {source.duplicates!r}; it must be one of {', '.join(DUPLICATES)}.")
    if not isinstance(source.splits, str | None):
        check_ratios(source.splits)
    if source.folds:
        check_folds(source.folds)
