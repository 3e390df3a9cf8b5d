"""SIGTERM and SIGHUP end a sweep as Ctrl-C does: finished work is recorded, and a message says how to resume."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from orchestrator.machine.standard_streams import leave_closed_terminal

PLEASE_WAIT = b"stopping; what is done is kept, please wait a moment\n"


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received. Not an ``Exception``, so that no retry after errors catches it."""


def handled_signals() -> list[int]:
    """Return the signals, other than SIGINT, that end a sweep. An ignored one (``nohup``) stays ignored."""
    return [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While entered, SIGTERM and SIGHUP raise Terminated in the main thread; restore the old handlers on exit."""
    before = {number: signal.getsignal(number) for number in handled_signals()} if _in_main_thread() else {}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """Install the handlers, again after a library such as Ray has replaced them."""
    if _in_main_thread():
        for number in handled_signals():
            signal.signal(number, _terminate)


def ignore_further() -> None:
    """Ignore further signals, so that the shutdown is not interrupted: a terminal that closes sends several."""
    if _in_main_thread():
        for number in (signal.SIGINT, *handled_signals()):
            signal.signal(number, signal.SIG_IGN)


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP set ``received`` instead of ending the process. Main thread only."""

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if _in_main_thread():
            for number in (signal.SIGINT, *handled_signals()):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        leave_closed_terminal()
        if not self.received:
            os.write(2, PLEASE_WAIT)
        self.received = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    ignore_further()
    leave_closed_terminal()
    os.write(2, PLEASE_WAIT)
    raise Terminated(f"interrupted by {signal.Signals(number).name}.")


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
