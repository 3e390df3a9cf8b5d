"""The records of a CSV as people have them: any of four separators, comments on top, separators at the line's end."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Iterator
from itertools import chain

from trainers.errors import TrainerError
from trainers.wording import first_line

LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
"""A line with its end, which may be that of any system."""
SEPARATORS = ",;\t|"
"""Separators of a CSV; the first of equals is taken."""

Record = tuple[int, list[str]]
"""The line at which a record begins, as an editor counts from 1, and its values."""


def csv_records(text: str, needed: Collection[str]) -> Iterator[Record]:
    """Yield the records of a CSV, the header first; blank lines are passed over.

    The separator is the one by which the header has the ``needed`` columns, or else the most columns. Comment lines
    before the header, and the line ``sep=;`` of a spreadsheet, are passed over. Raises TrainerError for wrong quotes.
    """
    lines = (match[0] for match in LINE.finditer(text.removeprefix("\ufeff")))
    start, header = next(((i, line) for i, line in enumerate(lines) if not _is_before_header(line)), (0, ""))
    if not header:
        return
    reader = csv.reader(chain([header], lines), delimiter=_separator(header, needed), strict=True)
    place = start + 1
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                yield place, record
            place = start + reader.line_num + 1
    except csv.Error as error:
        raise TrainerError(f"{first_line(error)}, in the row that begins at line {place:,}") from error


def take_header(records: Iterator[Record]) -> tuple[str, ...]:
    """Take the header from ``records``: its columns' names, without those of separators at the line's end."""
    _, names = next(records, (0, []))
    columns = [name.strip() for name in names]
    while columns and not columns[-1]:
        columns.pop()
    return tuple(columns)


def _is_before_header(line: str) -> bool:
    text = line.strip()
    return not text.strip(SEPARATORS) or text.startswith("#") or (text.startswith("sep=") and len(text) <= 5)


def _separator(header: str, needed: Collection[str]) -> str:
    found = {sign: [cell.strip() for cell in next(csv.reader([header], delimiter=sign), [])] for sign in SEPARATORS}
    return max(found, key=lambda sign: (set(found[sign]) >= set(needed), len(found[sign])))
