"""Draws a terminal session as an SVG: ``python docs/make_recording.py SESSION.txt "orch sweep quick"``.

SESSION.txt is what a terminal really showed, colours and all: ``tmux capture-pane -pe -S - > SESSION.txt``, or the
file that ``script`` writes. The picture is docs/sweep.svg unless another is named. It has a background of its own, so
that it reads on light and dark pages, and loads nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import io
import re
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

DEFAULT_OUTPUT = Path(__file__).resolve().parent / "sweep.svg"
NARROWEST = 60
"""Columns that even the shortest session gets."""
_TITLE_SEQUENCE = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
_SCRIPT_LINES = re.compile(r"^Script (?:started|done) on .*\n?", re.MULTILINE)
_FONT_FROM_ELSEWHERE = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)
_WAITING_PROMPT = re.compile(r"[$#%>]?\s*")


def session_lines(raw: str) -> list[Text]:
    """The lines of a session in their colours, without what ``script`` adds and a last prompt that waits."""
    text = _SCRIPT_LINES.sub("", _TITLE_SEQUENCE.sub("", raw.replace("\r\n", "\n")))
    lines = [Text.from_ansi(line) for line in text.split("\n")]
    for line in lines:
        line.rstrip()
    while lines and _WAITING_PROMPT.fullmatch(lines[-1].plain):
        lines.pop()
    return lines


def recording(raw: str, title: str) -> str:
    """The SVG of a session, as wide as its widest line. Raises ValueError where there is nothing to show."""
    lines = session_lines(raw)
    if not lines:
        raise ValueError("the session is empty; capture it with: tmux capture-pane -pe -S - > SESSION.txt")
    width = max(NARROWEST, *(cell_len(line.plain) for line in lines))
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    picture = _FONT_FROM_ELSEWHERE.sub("", console.export_svg(title=title))
    return picture.replace("<svg ", '<svg xml:space="preserve" ', 1)  # some viewers drop the blanks a line begins with


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("session", type=Path, help="what the terminal showed")
    parser.add_argument("title", help="what stands in the window's frame")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="the picture; default: docs/sweep.svg")
    chosen = parser.parse_args()
    chosen.output.write_text(recording(chosen.session.read_text(encoding="utf-8"), chosen.title), encoding="utf-8")


if __name__ == "__main__":
    main()
