"""Keep file descriptors 0 to 2 usable: those closed at the start, and those whose terminal or reader has gone."""

from __future__ import annotations

import os
import select
import sys


def open_closed_streams() -> None:
    """Open /dev/null as every standard stream that is closed (``2>&-``, some daemons).

    Otherwise the next file that is opened gets its descriptor, and receives what libraries write to stderr.
    """
    for descriptor in (0, 1, 2):
        if not is_open(descriptor):
            nowhere = os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
            _move(nowhere, descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until the process ends


def leave_closed_terminal() -> None:
    """Redirect stdout and stderr to /dev/null if the terminal is gone, since every write would fail."""
    for descriptor in (1, 2):
        watched = select.poll()
        watched.register(descriptor, select.POLLOUT)
        if any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in watched.poll(0)):
            _move(os.open(os.devnull, os.O_WRONLY), descriptor)


def is_open(descriptor: int) -> bool:
    """Whether ``descriptor`` is an open file."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _move(source: int, target: int) -> None:
    """Make ``target`` the descriptor of the file open as ``source``, and the only one."""
    if source != target:
        os.dup2(source, target)
        os.close(source)
    else:
        os.set_inheritable(target, True)
