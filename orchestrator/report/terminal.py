"""Print to a terminal that may be narrow or, during a sweep, gone."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.machine.standard_streams import leave_closed_terminal
from orchestrator.terminal_table import wrapped

if TYPE_CHECKING:
    from rich.console import Console


def tell(console: Console, line: str, indent: int) -> None:
    """Print a line without markup, wrapped on a terminal and in one piece to a pipe."""
    if console.is_terminal:
        line = wrapped(line, console.width, indent)
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def outlives_terminal(console: Console) -> Iterator[None]:
    """Go on without output, as under ``nohup``, if printing inside finds that the terminal or a pipe's reader is gone.

    A shell that exits or disowns its jobs need not send SIGHUP.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):
            raise
        leave_closed_terminal()
    except SystemExit:  # what Rich makes of EPIPE, after it has set ``quiet``
        if not console.quiet:
            raise
        leave_closed_terminal()
