"""Style shared by all figures: colours, fonts, the headline, writing the file.

Colours are from the palette of Okabe and Ito, which is safe for colour-blind readers.
"""

from __future__ import annotations

import logging
import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from PIL.ExifTags import Base

from dashboards.fonts import Writing, width
from trainers.files.atomic import atomic_write

DPI = 150
"""Pixels per inch of every figure."""
INK, GREY, PALE = "#22262b", "#868e96", "#dfe3e7"
BLUE, GREEN, VERMILION = "#0072b2", "#009e73", "#d55e00"
STATE_COLOURS = {"COMPLETED": BLUE, "PRUNED": GREY, "STOPPED": GREEN, "FAILED": VERMILION}
STYLE: dict[str, Any] = {
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "axes.unicode_minus": True,
    "text.parse_math": False,
}
logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no messages about caches and fonts


def style(writing: Writing | None = None) -> dict[str, Any]:
    """Return ``STYLE`` with the fonts that ``writing`` needs."""
    return (writing or Writing()).style(STYLE)


def headline(figure: Figure, title: str, note: str) -> None:
    """Draw title and note at the top left, wrapped to the figure's width; constrained layout places the rest."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(title, int(width * 10.5)) or [""]
    notes = textwrap.wrap(note, int(width * 16))
    needed = 0.14 + 0.2 * len(lines) + 0.16 * len(notes) + 0.1
    figure.text(0.12 / width, 1 - 0.12 / height, "\n".join(lines), size=11.5, weight="bold", va="top", linespacing=1.15)
    y = 1 - (0.17 + 0.2 * len(lines)) / height
    figure.text(0.12 / width, y, "\n".join(notes), size=8.5, color=GREY, va="top", linespacing=1.25)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - needed / height), h_pad=0.08, w_pad=0.08)


def shorten(text: str, most: int) -> str:
    """Shorten ``text`` to ``most`` columns by leaving out the middle."""
    if width(text) <= most:
        return text
    start, end = text[: most // 2], text[len(text) - (most - 1) // 2 :]
    while width(start) > most // 2:
        start = start[:-1]
    while width(end) > (most - 1) // 2:
        end = end[1:]
    return f"{start}…{end}"


def save(figure: Figure, path: Path) -> Path:
    """Write ``figure`` atomically in the format of the path's suffix, PNG by default; create missing folders.

    Every format names Matplotlib, by which the command line tells a picture of orch's from a photo.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix[1:].lower() or "png"
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=kind, facecolor="white", **_signed(kind))
    return path


def _signed(kind: str) -> dict[str, Any]:
    """Arguments of ``savefig`` by which a photo's format names the program; Matplotlib signs the others itself."""
    if kind not in ("jpg", "jpeg", "webp", "tif"):
        return {}
    exif = Image.Exif()
    exif[Base.Software] = "Matplotlib"
    return {"pil_kwargs": {"tiffinfo": exif} if kind == "tif" else {"exif": exif.tobytes()}}
