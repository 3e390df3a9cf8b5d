"""Wrap long lines on a terminal between words, with a hanging indent."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def wrapped(line: str, width: int, indent: int) -> str:
    """Wrap ``line`` to ``width`` columns and indent all lines but the first by ``indent`` columns. Pure.

    A word (a path, an option) is never broken, so a longer one exceeds the width.
    """
    if len(line) <= width:
        return line
    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def tell(console: Console, line: str, indent: int) -> None:
    """Print a line without markup, wrapped on a terminal and in one piece to a pipe."""
    if console.is_terminal:
        line = wrapped(line, console.width, indent)
    console.print(line, markup=False, highlight=False, soft_wrap=True)
