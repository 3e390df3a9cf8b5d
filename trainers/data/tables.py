"""A CSV or Parquet table of photos: the columns path and label, and optionally split and group."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
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
        notes.problems.append(_absolute_sentence(path.parent, rows["path"].tolist(), absolute))
    twice = rows["path"][rows["path"].duplicated()].unique().tolist()
    if twice:
        notes.problems.append(f"{count(len(twice), 'file')} listed more than once: {name_some(twice)}.")
    rows[REASON] = _reasons_outside(path.parent, rows["path"].tolist())
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


def _reasons_outside(folder: Path, paths: Sequence[str]) -> list[str | None]:
    """For each path, explain what to do if it leads out of the table's ``folder``; None if it does not."""
    outside = [os.path.normpath(path).split("/")[0] == ".." for path in paths]
    holder = _holder(folder, paths) if any(outside) else folder
    reasons: list[str | None] = [None] * len(paths)
    for index, path in enumerate(paths):
        if not outside[index]:
            continue
        advice = "copy the photo into that folder and write the path of the copy"
        if holder != Path(holder.anchor):
            shorter = _below(holder, folder, path)
            advice = f"move the table to {holder} and write its paths relative to {holder}, this one as {shorter}"
        reasons[index] = f"its path leads out of the table's folder; {advice}"
    return reasons


def _absolute_sentence(folder: Path, paths: Sequence[str], absolute: Sequence[str]) -> str:
    """Explain what to do about the ``absolute`` ones of ``paths``."""
    holder = _holder(folder, paths)
    advice = f"Write its paths relative to {holder}, the first as {_below(holder, folder, absolute[0])}."
    if holder == Path(holder.anchor):
        advice = f"Copy those photos into {folder} and write the paths of the copies."
    elif holder != folder:
        advice = f"Move the table to {holder} and write{advice.removeprefix('Write')}"
    return f"paths must be relative to the table's folder; not so: {name_some(absolute)}. {advice}"


def _holder(folder: Path, paths: Sequence[str]) -> Path:
    """Return the table's folder if it holds all files, else the innermost folder that does."""
    holder = Path(os.path.commonpath([os.path.dirname(os.path.normpath(folder / path)) for path in paths]))
    return folder if holder.is_relative_to(folder) else holder


def _below(holder: Path, folder: Path, path: str) -> str:
    """Return ``path``, of a table in ``folder``, relative to ``holder``."""
    return os.path.relpath(os.path.normpath(folder / path), holder)


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
