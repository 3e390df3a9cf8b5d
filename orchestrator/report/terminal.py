"""Long lines on a terminal: broken between words, under their first word."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def wrapped(line: str, width: int, indent: int) -> str:
    """``line`` in lines of at most ``width`` columns, all but the first ``indent`` columns in. Pure.

    A word (a path, an option) is never broken, so one that is longer than the line stands out.
    """
    if len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def tell(console: Console, line: str, indent: int) -> None:
    """Print a line as it is, without markup; on a terminal it is wrapped. A pipe gets it whole."""
    if console.is_terminal:
        line = wrapped(line, console.width, indent)
    console.print(line, markup=False, highlight=False, soft_wrap=True)
