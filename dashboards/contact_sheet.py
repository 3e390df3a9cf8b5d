"""Contact sheets: rows of thumbnails in strips of columns under headings, drawn from arrays into one PNG file."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from dashboards.fonts import Writing, width
from dashboards.style import DPI, GREY, INK, PALE, headline, save, shorten, style

GAP, STRIP_GAP, MARGIN = 0.04, 0.22, 0.12
"""Inches between two cells, between two strips, and around the sheet."""
EDGE = tuple(round(255 * part) for part in to_rgb(PALE))
"""Colour of a cell's edge, RGB 0 to 255."""
CAPTION_LINE, TITLE_LINE = 0.095, 0.13
"""Inches of one line below a picture, and above a column."""
MAX_CELL, MIN_CELL, TARGET_WIDTH = 1.15, 0.74, 13.0
"""Inches: maximum and minimum side of a cell, width of a sheet with many columns."""
MIN_WIDTH, MIN_BLOCK_ROWS = 5.6, 5
"""Minimum inches of a sheet's width, and minimum rows of a block before a second one starts to its right."""
LETTERS_PER_INCH = 13
"""Characters per inch of a column's title, approximately."""


@dataclass(frozen=True)
class Strip:
    """Adjacent columns under one heading, each with a title."""

    heading: str
    titles: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A square image, uint8 (side, side, 3), and a caption of one or two lines."""

    pixels: np.ndarray
    caption: str = ""


@dataclass(frozen=True)
class Row:
    """A row: name, detail (a second line in grey), one cell per column; None leaves a cell empty."""

    name: str
    detail: str
    cells: tuple[Cell | None, ...]


def contact_sheet(
    title: str, note: str, strips: Sequence[Strip], rows: Sequence[Row], path: Path, classes: Sequence[str] = ()
) -> Path:
    """Draw the sheet atomically into ``path`` and return it; create missing folders.

    Small images are enlarged without smoothing, large ones reduced with it. ``classes``: class names that rows may
    carry, in order. Raises ValueError unless every row has one cell per column.
    """
    columns = sum(len(strip.titles) for strip in strips)
    wrong = [row.name for row in rows if len(row.cells) != columns]
    if wrong:
        raise ValueError(f"every row needs {columns} cells, one per column; got another number in {', '.join(wrong)}")
    write = Writing([text for row in rows for text in _texts(row)], classes)
    rows, note = [_written(row, write) for row in rows], note + write.note
    sheet = _Sheet.of(strips, rows)
    with matplotlib.rc_context(style(write)):
        headroom = 0.56 + 0.16 * len(textwrap.wrap(note, int(sheet.width * 16)))
        across, height = sheet.width + 2 * MARGIN, sheet.height + headroom + MARGIN
        figure = Figure(figsize=(across, height), dpi=DPI)
        headline(figure, title, note)
        figure.set_layout_engine("none")  # one canvas pixel per file pixel
        axes = figure.add_axes((MARGIN / across, MARGIN / height, sheet.width / across, sheet.height / height))
        axes.set_axis_off()
        axes.imshow(_canvas(sheet, rows), extent=(0, sheet.width, sheet.height, 0), aspect="auto")
        for block in range(sheet.blocks):
            _draw_headings(axes, sheet, strips, block * sheet.block_width)
        for number, row in enumerate(rows):
            _draw_texts(axes, sheet, number, row)
        return save(figure, path)


def _texts(row: Row) -> list[str]:
    return [row.name, row.detail, *(cell.caption for cell in row.cells if cell)]


def _written(row: Row, write: Writing) -> Row:
    """Return ``row`` with unavailable characters substituted; captions keep their lines."""
    captions = ["\n".join(map(write, cell.caption.split("\n"))) if cell else "" for cell in row.cells]
    cells = tuple(replace(cell, caption=text) if cell else None for cell, text in zip(row.cells, captions, strict=True))
    return Row(write(row.name), write(row.detail), cells)


@dataclass(frozen=True)
class _Sheet:
    """Layout in inches from the top left. ``lefts``: left edge of each column.

    If there are few columns, rows are divided into ``blocks`` side by side, each of ``block_rows`` rows.
    """

    cell: float
    lefts: tuple[float, ...]
    top: float
    row_height: float
    block_width: float
    blocks: int
    block_rows: int

    @property
    def width(self) -> float:
        return max(self.block_width * self.blocks - STRIP_GAP, MIN_WIDTH)

    @property
    def height(self) -> float:
        return self.top + self.row_height * self.block_rows

    def corner(self, number: int) -> tuple[float, float]:
        """Return left and top of row ``number``."""
        block, place = divmod(number, self.block_rows)
        return block * self.block_width, self.top + place * self.row_height

    @classmethod
    def of(cls, strips: Sequence[Strip], rows: Sequence[Row]) -> _Sheet:
        columns = sum(len(strip.titles) for strip in strips)
        names = [width(line) for row in rows for line in (_name(row.name), _detail(row.detail))]
        x = 0.2 + 0.075 * max(names, default=0)
        cell = min(MAX_CELL, max(MIN_CELL, (TARGET_WIDTH - x) / max(columns, 1)))
        lefts: list[float] = []
        for strip in strips:
            room = 0.085 * len(strip.heading)  # a heading longer than its strip moves the next strip right
            start = x
            for _ in strip.titles:
                lefts.append(x)
                x += cell + GAP
            x = max(x, start + room) + STRIP_GAP
        captions = max(
            (each.caption.count("\n") + 1 for row in rows for each in row.cells if each and each.caption), default=0
        )
        titles = max((len(_title(title, cell)) for strip in strips for title in strip.titles), default=0)
        row_height = cell + GAP + CAPTION_LINE * captions
        top = 0.36 + TITLE_LINE * titles
        blocks = max(1, min(int(TARGET_WIDTH / x), math.ceil(len(rows) / MIN_BLOCK_ROWS)))
        block_rows = math.ceil(len(rows) / blocks)
        return cls(cell, tuple(lefts), top, row_height, x, math.ceil(len(rows) / max(block_rows, 1)), block_rows)


def _draw_headings(axes: Axes, sheet: _Sheet, strips: Sequence[Strip], start: float) -> None:
    """Draw the headings and titles of the block whose left edge is ``start``."""
    place = 0
    for strip in strips:
        left = start + sheet.lefts[place]
        right = start + sheet.lefts[place + len(strip.titles) - 1] + sheet.cell
        axes.text(left, 0.17, strip.heading, size=9.5, weight="bold", va="baseline", color=INK)
        axes.plot([left, right], [0.25, 0.25], color=PALE, lw=1.2, solid_capstyle="butt")
        for title in strip.titles:
            middle = start + sheet.lefts[place] + sheet.cell / 2
            lines = "\n".join(_title(title, sheet.cell))
            axes.text(middle, sheet.top - 0.05, lines, size=7.5, ha="center", va="bottom", color=GREY, linespacing=1.1)
            place += 1


def _draw_texts(axes: Axes, sheet: _Sheet, number: int, row: Row) -> None:
    x, y = sheet.corner(number)
    axes.text(x, y + sheet.cell / 2 - 0.02, _name(row.name), size=8.5, va="bottom", color=INK)
    axes.text(x, y + sheet.cell / 2 + 0.02, _detail(row.detail), size=6.5, va="top", color=GREY)
    for left, cell in zip(sheet.lefts, row.cells, strict=True):
        if cell and cell.caption:
            below = y + sheet.cell + 0.025
            axes.text(x + left, below, cell.caption, size=5.5, va="top", color=GREY, linespacing=1.1)


def _canvas(sheet: _Sheet, rows: Sequence[Row]) -> np.ndarray:
    """Return all images in place on white, each with a thin edge; uint8 at the file's resolution."""
    side = round(sheet.cell * DPI)
    canvas = np.full((round(sheet.height * DPI), round(sheet.width * DPI), 3), 255, np.uint8)
    for number, row in enumerate(rows):
        x, y = sheet.corner(number)
        top = round(y * DPI)
        for offset, cell in zip(sheet.lefts, row.cells, strict=True):
            if cell:
                left = round((x + offset) * DPI)
                canvas[top : top + side, left : left + side] = EDGE
                canvas[top + 1 : top + side - 1, left + 1 : left + side - 1] = _fitted(cell.pixels, side - 2)
    return canvas


def _fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    method = Image.Resampling.NEAREST if pixels.shape[0] < side / 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), method))


def _title(title: str, cell: float) -> list[str]:
    """Wrap a title into lines that fit above a cell, at spaces and underscores."""
    return textwrap.wrap(title.replace("_", " "), max(4, int(cell * LETTERS_PER_INCH)), break_long_words=False)


def _name(name: str) -> str:
    return shorten(name, 26)


def _detail(detail: str) -> str:
    return shorten(detail, 30)
