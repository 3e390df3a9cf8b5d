"""SIGTERM and SIGHUP end a sweep as Ctrl-C does: finished work is recorded, and a message says how to resume."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from orchestrator.machine.standard_streams import leave_closed_terminal

PLEASE_WAIT = b"stopping; what is done is kept, please wait a moment\n"
RETRY_S = 0.05
"""Seconds between two checks of whether an interrupted import has ended."""
LONGEST_IMPORT_S = 30.0
"""Maximum seconds to wait for that."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP was received. Not an ``Exception``, so that no retry after errors catches it."""


def handled_signals() -> list[int]:
    """Return the signals, other than SIGINT, that end a sweep. An ignored one (``nohup``) stays ignored."""
    return [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]


def _raising_signals() -> list[int]:
    """Return those that raise outside a search; SIGINT too, unless the shell that began a job has ignored it."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    return [*(() if ignored else (signal.SIGINT,)), *handled_signals()]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """While entered, SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Terminated, in the main thread.

    Restores the old handlers on exit.
    """
    before = {number: signal.getsignal(number) for number in _raising_signals()} if _in_main_thread() else {}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """Install the handlers, again after a library such as Ray has replaced them."""
    if _in_main_thread():
        for number in _raising_signals():
            signal.signal(number, _interrupt)


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
        if self.received:
            leave_closed_terminal()
        else:
            _please_wait()
        self.received = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise, once the import that was interrupted has ended.

    An exception inside an import can be lost in a callback that holds the import lock (seen with CPython 3.11): the
    sweep then hangs at its next import instead of stopping.
    """
    if not _is_importing(frame):
        _raise(number)
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        return  # deferred already
    _please_wait()
    end_s = time.monotonic() + LONGEST_IMPORT_S

    def again(_: int, frame: FrameType | None) -> None:
        if not _is_importing(frame):
            signal.raise_signal(number)  # to the handler that is installed by now
        elif time.monotonic() < end_s:
            signal.setitimer(signal.ITIMER_REAL, RETRY_S)
        else:
            _raise(number)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, RETRY_S)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    ignore_further()
    _please_wait()
    raise Terminated(f"interrupted by {signal.Signals(number).name}.")


def _please_wait() -> None:
    leave_closed_terminal()
    os.write(2, PLEASE_WAIT)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
