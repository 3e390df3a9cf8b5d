"""A CSV or Parquet table of photos: the columns path and label, and optionally split and group."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.listing import COLUMNS, REASON, Listing, SourceNotes, listing, name_some
from trainers.errors import TrainerError
from trainers.files.plain import Unreadable, open_plain
from trainers.files.suffixes import is_table
from trainers.wording import count, first_line, nearest

LONGEST_HEADER = 10_000
"""Maximum bytes of a CSV's header that are read."""
_OUTSIDE = "its path leads out of the table's folder; move the table to a folder that holds all the photos"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_table(path: Path) -> Listing:
    """List the images of the table at ``path`` (absolute), relative to its folder.

    Raises TrainerError if it cannot be read, lacks a needed column or holds no usable row.
    """
    table = _load_table(path)
    notes = SourceNotes()
    _check_columns(path, [str(c) for c in table.columns], notes)
    if table.empty:
        raise TrainerError(f"the table {path} has no rows.")
    rows = pd.DataFrame({c: _text(table[c]) if c in table else None for c in COLUMNS}, dtype=object)
    for column in ("path", "label"):
        blank = [str(i + 1) for i in np.flatnonzero(rows[column].isna())]
        if blank:
            notes.problems.append(
                f"the column {column} is empty in {count(len(blank), 'row')}: row {name_some(blank)}."
            )
    rows = rows[rows["path"].notna() & rows["label"].notna()].copy()
    rows["path"] = [Path(p).as_posix() for p in rows["path"]]
    absolute = [p for p in rows["path"] if Path(p).is_absolute()]
    if absolute:
        notes.problems.append(f"paths must be relative to the table's folder; not so: {name_some(absolute)}.")
    twice = rows["path"][rows["path"].duplicated()].unique().tolist()
    if twice:
        notes.problems.append(f"{count(len(twice), 'file')} listed more than once: {name_some(twice)}.")
    rows[REASON] = [_OUTSIDE if os.path.normpath(p).split("/")[0] == ".." else None for p in rows["path"]]
    inside = rows["path"][rows[REASON].isna()].unique()
    missing = [p for p in inside if not _is_there(path.parent / p)]
    if missing:
        notes.problems.append(
            f"{count(len(missing), 'file')} of {path.name} cannot be found: {name_some(missing)}. Paths are relative "
            f"to {path.parent}."
        )
    rows = rows[~rows["path"].isin({*missing, *absolute})].drop_duplicates("path")
    if rows.empty:
        raise TrainerError(" ".join(notes.problems))
    return listing(path.parent, rows, notes)


def is_photo_table(path: Path) -> bool:
    """Whether the file at ``path`` is a table with the columns path and label; opens no more than its header."""
    if not is_table(path):
        return False
    try:
        with open_plain(path) as file:
            if path.suffix.lower() == ".parquet":
                columns = pq.read_schema(file).names
            else:
                columns = [name.strip().strip('"') for name in _header(file).split(",")]
    except (Unreadable, OSError, pa.ArrowException):
        return False
    return {"path", "label"} <= set(columns)


def split_problems(splits: pd.Series, names: tuple[str, ...], needed: tuple[str, ...]) -> list[str]:
    """List the problems of the data's own splits: ``names`` are allowed, ``needed`` must occur."""
    problems = []
    blank = int(splits.isna().sum())
    if blank:
        problems.append(f"the column split is empty in {count(blank, 'row')}; each needs one of {', '.join(names)}.")
    found = set(splits.dropna())
    unknown = sorted(found - set(names))
    if unknown:
        problems.append(f"the column split holds {name_some(map(repr, unknown))}; allowed are {', '.join(names)}.")
    absent = [s for s in needed if s not in found]
    if absent:
        problems.append(
            f"no image has the split {' or '.join(absent)}; all of {', '.join(needed)} are needed. Add them, or give "
            "ratios, which divide all images again."
        )
    return problems


def _load_table(path: Path) -> pd.DataFrame:
    try:
        with open_plain(path) as file:
            if path.suffix.lower() == ".parquet":
                return pd.read_parquet(file)
            _check_separator(path, file)
            return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except Unreadable as error:
        raise TrainerError(f"the table {error}") from error
    except TrainerError:
        raise
    except Exception as error:  # the readers raise a dozen kinds; each is about this file
        reason = first_line(error)
        raise TrainerError(f"the table {path} cannot be read: {reason}.") from error


def _is_there(path: Path) -> bool:
    """Whether anything is there, also what cannot be read: that is left out later, with its reason."""
    try:
        path.stat()
    except (OSError, ValueError) as error:
        return getattr(error, "errno", errno.ENOENT) not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return True


def _header(file: BinaryIO) -> str:
    """The first line; ``file`` is at its beginning afterwards."""
    header = file.readline(LONGEST_HEADER).decode("utf-8-sig", errors="replace").rstrip("\r\n")
    file.seek(0)
    return header


def _check_separator(path: Path, file: BinaryIO) -> None:
    header = _header(file)
    for sign, name in SEPARATORS.items():
        if sign in header and "," not in header:
            raise TrainerError(
                f"the table {path} is separated by {name}; it must be separated by commas. Save it so (in a "
                f"spreadsheet: export as CSV with comma), or write it with pandas: "
                f"pd.read_csv({path.name!r}, sep={sign!r}).to_csv({path.name!r}, index=False)."
            )


def _text(column: pd.Series) -> list[str | None]:
    """Return stripped strings; None for empty ones."""
    texts = [None if pd.isna(value) else str(value).strip() for value in column]
    return [text or None for text in texts]


def _check_columns(path: Path, columns: list[str], notes: SourceNotes) -> None:
    mistakes = []
    for column in columns:
        near = nearest(column.strip(), [c for c in COLUMNS if c not in columns], cutoff=0.75)
        if column not in COLUMNS and near:
            mistakes.append(f"there is an unknown column {column!r}; did you mean {near}?")
    for column in ("path", "label"):
        if column not in columns:
            mistakes.append(f"there is no column {column}.")
    if mistakes:
        raise TrainerError(
            f"the table {path}: {' '.join(mistakes)} It has {', '.join(columns) or 'no column'}; needed are path and "
            "label, and optionally split and group."
        )
    others = [c for c in columns if c not in COLUMNS]
    if others:
        notes.warnings.append(f"columns of {path.name} that are not used: {name_some(others)}.")
