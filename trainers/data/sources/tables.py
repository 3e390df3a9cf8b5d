"""A CSV or Parquet table of photos: the columns path and label, and optionally split and group.

A CSV may be separated by commas, semicolons, tabs or bars, begin with comment lines, end its lines with a separator,
and be UTF-8, UTF-16 or in a legacy encoding, which is guessed and said. Every value is text: 007 stays 007.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.listing import COLUMNS, REASON, Listing, SourceNotes, listing, name_some
from trainers.data.sources.table_paths import absolute_sentence, is_there, reasons_outside, spelled_as_on_disk
from trainers.errors import TrainerError
from trainers.files.csv_records import csv_records, take_header
from trainers.files.encodings import decode_text, is_utf8
from trainers.files.plain import Unreadable, open_plain, read_plain
from trainers.files.suffixes import is_table
from trainers.wording import count, first_line, nearest

LONGEST_HEADER = 10_000
"""Maximum bytes of a CSV that are read to find its header."""
NEEDED = frozenset({"path", "label"})
ANSWERS = frozenset(("probability", "probabilities", "model"))
"""Columns of a table of predictions: its labels are answers."""


@dataclass(frozen=True, eq=False)
class _Table:
    """``columns``: all names in order. ``rows``: the known ones, as text or None. ``places``: where each row is, as an
    editor counts lines from 1, or for Parquet its number; ``place``: what to call that."""

    columns: tuple[str, ...]
    rows: pd.DataFrame
    places: np.ndarray
    place: str = "line"


def read_table(path: Path, encoding: str = "") -> Listing:
    """List the images of the table at ``path`` (absolute), relative to its folder.

    ``encoding``: of a CSV that is not UTF-8; "" guesses. Raises TrainerError if it cannot be read, lacks a needed
    column or holds no usable row.
    """
    notes = SourceNotes()
    table = _load_table(path, encoding, notes)
    _check_columns(path, table, notes)
    if table.rows.empty:
        raise TrainerError(f"the table {path} has no rows.")
    rows = table.rows
    for column in ("path", "label"):
        blank = [str(place) for place in table.places[rows[column].isna()]]
        if blank:
            notes.problems.append(
                f"the column {column} is empty in {count(len(blank), 'row')}: {table.place} {name_some(blank)}."
            )
    rows = rows[rows["path"].notna() & rows["label"].notna()].copy()
    rows["path"] = spelled_as_on_disk(path, rows["path"].tolist(), notes)
    absolute = [p for p in rows["path"] if Path(p).is_absolute()]
    if absolute:
        notes.problems.append(absolute_sentence(path.parent, rows["path"].tolist(), absolute))
    twice = rows["path"][rows["path"].duplicated()].unique().tolist()
    if twice:
        notes.problems.append(f"{count(len(twice), 'file')} listed more than once: {name_some(twice)}.")
    rows[REASON] = reasons_outside(path.parent, rows["path"].tolist())
    inside = rows["path"][rows[REASON].isna()].unique()
    missing = [p for p in inside if not is_there(path.parent / p)]
    if missing:
        notes.problems.append(
            f"{count(len(missing), 'file')} of {path.name} cannot be found: {name_some(missing)}. Paths are relative "
            f"to {path.parent}."
        )
    rows = rows[~rows["path"].isin({*missing, *absolute})].drop_duplicates("path")
    if rows.empty:
        raise TrainerError(" ".join(notes.problems))
    return listing(path.parent, rows, notes)


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of the table at ``path``; () if it cannot be read. Reads only its header."""
    if not is_table(path):
        return ()
    try:
        with open_plain(path) as file:
            if path.suffix.lower() == ".parquet":
                return tuple(pq.read_schema(file).names)
            head = file.read(LONGEST_HEADER)
            whole = next((head[:end] for end in range(len(head), len(head) - 4, -1) if is_utf8(head[:end])), head)
            columns = take_header(csv_records(decode_text(whole)[0], NEEDED))
            return columns if all(column.isprintable() for column in columns) else ()
    except (TrainerError, OSError, pa.ArrowException):
        return ()


def is_photo_table(path: Path) -> bool:
    """Whether the file at ``path`` is a table with the columns path and label, and not one of ``orch predict``."""
    columns = set(columns_of(path))
    return columns >= NEEDED and not columns >= ANSWERS


def _load_table(path: Path, encoding: str, notes: SourceNotes) -> _Table:
    try:
        if path.suffix.lower() == ".parquet":
            return _load_parquet(path, notes)
        text, used = decode_text(read_plain(path), encoding)
        if not encoding and not used.startswith("utf"):
            notes.warnings.append(
                f"{path.name} is not UTF-8 and is read as {used}; if that is wrong, name its encoding in data.encoding "
                "or with --encoding."
            )
        return _load_csv(path, text, notes)
    except Unreadable as error:
        raise TrainerError(f"the table {error}") from error
    except (TrainerError, OSError, ValueError, pa.ArrowException) as error:
        raise TrainerError(f"the table {path} cannot be read: {first_line(error)}.") from error


def _load_parquet(path: Path, notes: SourceNotes) -> _Table:
    with open_plain(path) as file:
        stored = pq.ParquetFile(file)
        names = tuple(map(str, stored.schema_arrow.names))
        table = stored.read(columns=[name for name in names if name in COLUMNS])
    for column in ("label", "group"):
        if column in table.column_names and not _is_text(table.schema.field(column).type):
            written = sorted({_plain_text(value) for value in table.column(column).unique().to_pylist()} - {""})
            notes.warnings.append(
                f"the column {column} of {path.name} holds no text but {table.schema.field(column).type}; it is "
                f"written {name_some(written)}."
            )
    values = {c: [_plain_text(v) for v in table.column(c).to_pylist()] for c in table.column_names}
    return _Table(names, _frame(values), np.arange(1, table.num_rows + 1), "row")


def _is_text(kind: pa.DataType) -> bool:
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_null(value)


def _plain_text(value: Any) -> str:
    """Write a value of Parquet as text: 0.0 as 0, so that whole numbers are written alike; "" for none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _load_csv(path: Path, text: str, notes: SourceNotes) -> _Table:
    records = csv_records(text, NEEDED)
    columns = take_header(records)
    if not any(columns):
        raise TrainerError("No columns to parse from file")
    known = {c: columns.index(c) for c in COLUMNS if c in columns}
    values: dict[str, list[str]] = {c: [] for c in known}
    places, longer = [], []
    for place, record in records:
        if len(record) > len(columns) and any(cell.strip() for cell in record[len(columns) :]):
            longer.append(f"{place} ({len(record)} values)")
        for column, i in known.items():
            values[column].append(record[i] if i < len(record) else "")
        places.append(place)
    if longer:
        notes.problems.append(
            f"{path.name} has {count(len(columns), 'column')} and more values in {count(len(longer), 'row')}: line "
            f"{name_some(longer)}. Put values that hold a separator in quotes."
        )
    return _Table(columns, _frame(values), np.array(places, np.int64))


def _frame(values: dict[str, list[str]]) -> pd.DataFrame:
    """The known columns as stripped text; None for empty values and absent columns."""
    rows = max(map(len, values.values()), default=0)
    columns = {c: [text.strip() or None for text in values[c]] if c in values else [None] * rows for c in COLUMNS}
    return pd.DataFrame(columns, dtype=object)


def _check_columns(path: Path, table: _Table, notes: SourceNotes) -> None:
    columns, mistakes = table.columns, []
    if set(columns) >= ANSWERS:
        raise TrainerError(
            f"the table {path} holds answers of `orch predict`, not labels. To train on answers that you have checked, "
            f"take out the columns {', '.join(sorted(ANSWERS))}."
        )
    for column in columns:
        near = nearest(column, [c for c in COLUMNS if c not in columns], cutoff=0.75)
        if column not in COLUMNS and near:
            mistakes.append(f"there is an unknown column {column!r}; did you mean {near}?")
    mistakes += [f"there is no column {column}." for column in ("path", "label") if column not in columns]
    mistakes += [f"there are {n} columns {c}." for c, n in Counter(columns).items() if n > 1 and c in COLUMNS]
    if mistakes:
        raise TrainerError(
            f"the table {path}: {' '.join(mistakes)} It has {', '.join(filter(None, columns)) or 'no column'}; needed "
            "are path and label, and optionally split and group."
        )
    others = [c for c in columns if c and c not in COLUMNS]
    if others:
        notes.warnings.append(f"columns of {path.name} that are not used: {name_some(others)}.")
