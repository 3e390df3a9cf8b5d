"""SIGTERM and SIGHUP end a sweep as Ctrl-C does: what is done is recorded, and the person reads how to go on."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Iterator
from types import FrameType

PLEASE_WAIT = b"stopping; what is done is kept, please wait a moment\n"


class Terminated(KeyboardInterrupt):
    """A signal to end. No ``Exception``, so that nothing which tries again after errors takes it for one."""


def heeded() -> list[int]:
    """The signals besides SIGINT that end a sweep. One that the person ignores (``nohup``) stays ignored."""
    return [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While inside, SIGTERM and SIGHUP raise Terminated in the main thread; afterwards they do what they did before."""
    before = {number: signal.getsignal(number) for number in heeded()} if _in_main_thread() else {}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """Take the signals, again where a library took them meanwhile, as Ray does when it starts."""
    if _in_main_thread():
        for number in heeded():
            signal.signal(number, _terminate)


def ignore_further() -> None:
    """Hear no further signal, so that what the first one asked for is not torn in the middle: a terminal that closes
    sends several."""
    if _in_main_thread():
        for number in (signal.SIGINT, *heeded()):
            signal.signal(number, signal.SIG_IGN)


def leave_closed_terminal() -> None:
    """Write to nowhere from now on where the terminal is gone: every line would be an error."""
    for descriptor in (1, 2):
        watched = select.poll()
        watched.register(descriptor, select.POLLOUT)
        if any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in watched.poll(0)):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            if nowhere != descriptor:
                os.close(nowhere)


def _terminate(number: int, frame: FrameType | None) -> None:
    ignore_further()
    leave_closed_terminal()
    os.write(2, PLEASE_WAIT)
    raise Terminated(f"interrupted by {signal.Signals(number).name}.")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
