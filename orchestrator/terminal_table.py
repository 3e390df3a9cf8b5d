"""Tables for a terminal of any width: no word is cut; less important columns are left out, or rows are paragraphs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

INDENT = 4
"""Columns by which the lines of a paragraph are indented, but for its first."""


@dataclass(frozen=True)
class Column:
    """``leaves``: when the column is left out of a terminal that is too narrow for all, 1 first; 0 never. ``note``: a
    sentence on what it means, below a table that has it."""

    name: str
    justify: Literal["left", "right"] = "right"
    leaves: int = 0
    note: str = ""


class FittedTable:
    """A table to print with ``rich``.

    Every cell is on one line. A column whose cells are all empty is not shown. Where the terminal is too narrow,
    columns with ``leaves`` are left out, and said to be; where that is not enough, each row is a paragraph: the first
    ``names`` columns on its first line, then the others, each after its name. Titles and notes are wrapped between
    words.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[Column],
        names: int = 1,
        notes: Iterable[str] = (),
        elsewhere: str = "--json has them",
    ) -> None:
        """``notes``: lines below the table. ``elsewhere``: where the columns that are left out can be read."""
        self.title, self.columns, self.notes = title, columns, tuple(notes)
        self._names, self._elsewhere = names, elsewhere
        self._rows: list[tuple[tuple[str, ...], str]] = []

    def add_row(self, *cells: str, style: str = "") -> None:
        """Add a row with a cell for each column, in the ``rich`` style ``style``. What a terminal would obey is
        escaped."""
        assert len(cells) == len(self.columns)
        self._rows.append((tuple(map(printable, cells)), style))

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells of each row."""
        return [cells for cells, _ in self._rows]

    @property
    def styles(self) -> list[str]:
        """The style of each row."""
        return [style for _, style in self._rows]

    def print(self, console: Console) -> None:
        """Print the table; a name that is longer than the terminal is wide is wrapped by the terminal."""
        console.print(self, crop=False)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        width = options.max_width
        if self.title:
            yield Text(_paragraphs(self.title, width), style="table.title")
        filled = [c for place, c in enumerate(self.columns) if any(cells[place] for cells, _ in self._rows)]
        fitting = self._fitting(filled, console, options)
        shown = filled if fitting is None else fitting[0]
        if fitting is None:
            for cells, style in self._rows:
                yield Text("\n".join(self._paragraph(cells, width)), style=style, no_wrap=True, overflow="ignore")
        else:
            yield self._table(*fitting)
        yield ""
        notes = [c.note for c in shown if c.note]
        if left_out := dict.fromkeys(c.name for c in filled if c not in shown):
            notes.append(f"no room for {', '.join(left_out)} in {width} columns; {self._elsewhere}")
        for note in (*self.notes, *notes):
            yield Text(_paragraphs(note, width), style="table.caption")

    def _fitting(
        self, columns: Sequence[Column], console: Console, options: ConsoleOptions
    ) -> tuple[list[Column], int] | None:
        """Return those of ``columns`` that fit side by side, and the blanks around each; None if no choice does."""
        from rich.measure import Measurement

        endless = options.update(width=100_000)
        shown = list(columns)
        for column in [None, *sorted((c for c in columns if c.leaves), key=lambda c: c.leaves)]:
            shown = [c for c in shown if c is not column]
            for padding in (1, 0):
                table = self._table(shown, padding)
                if Measurement.get(console, endless, table).maximum <= options.max_width:
                    return shown, padding
        return None

    def _table(self, shown: Sequence[Column], padding: int) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, padding=(0, padding), collapse_padding=True, pad_edge=False, show_edge=False)
        places = [place for place, column in enumerate(self.columns) if any(column is c for c in shown)]
        for column in shown:
            table.add_column(Text(column.name), justify=column.justify, no_wrap=True)
        for cells, style in self._rows:
            table.add_row(*(Text(cells[place]) for place in places), style=style)
        return table

    def _paragraph(self, cells: Sequence[str], width: int) -> list[str]:
        named = list(zip(self.columns, cells, strict=True))
        first = [cell if c.justify == "left" else f"{c.name} {cell}" for c, cell in named[: self._names] if cell]
        lines = ["  ".join(first)]
        for part in [f"{c.name} {cell}".strip() for c, cell in named[self._names :] if cell]:
            longer = f"{lines[-1]}; {part}"
            if len(lines) > 1 and len(longer) < width:
                lines[-1] = longer
            else:
                lines[-1] += ";" if len(lines) > 1 else ""
                lines.append(" " * INDENT + part)
        return [lines[0], *(wrapped(line, width, INDENT) for line in lines[1:])]


def wrapped(line: str, width: int, indent: int = 0) -> str:
    """Wrap ``line`` to ``width`` columns and indent all lines but the first by ``indent`` columns. Pure.

    A word (a path, an option) is never broken, so a longer one exceeds the width.
    """
    if len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def _paragraphs(text: str, width: int) -> str:
    """Wrap each line of ``text`` that is not empty."""
    return "\n".join(wrapped(line, width) for line in text.splitlines() if line)


def printable(text: str) -> str:
    """Escape what a terminal would obey, such as a newline or the start of a colour: names of files may hold it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
