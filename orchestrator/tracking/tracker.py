"""MLflow as a view of the ledger: one run for the sweep, one below it for each trial.

A ``Tracker`` sends a sweep's events while it runs; ``synchronise`` sends what MLflow missed. Both use ``MlflowWriter``,
which never creates a second run for a trial.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import OrchError, TrackingError
from orchestrator.ledger.lock import running_process
from orchestrator.ledger.segments import Event
from orchestrator.machine.environment import describe_environment
from orchestrator.paths import SweepPaths, command_line
from orchestrator.tracking.mlflow_store import connect, database_file, first_sentence, without_password
from orchestrator.tracking.mlflow_writer import MlflowWriter, SyncResult
from orchestrator.tracking.settings import TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

LINGER_S = 1.0
"""Seconds to collect events before a batch is sent."""
LAST_ATTEMPT_S = 6.0
"""Maximum seconds that closing waits for a store whose last attempt failed."""
SILENCE_S = 20.0
"""Maximum seconds that closing waits for a server's next answer."""
MAX_DELAY_S = 60.0
"""Maximum seconds between two attempts after failures."""
IDLE_S = 3600.0
"""Maximum seconds to sleep if there is nothing to send; a new event ends the sleep."""


def retry_delay_s(failures: int) -> float:
    """Return the seconds to wait after ``failures`` consecutive failures: 1, 2, 4, ..., at most ``MAX_DELAY_S``."""
    return float(min(MAX_DELAY_S, 2 ** max(0, min(failures, 10) - 1)))


def synchronise(folder: Path, settings: TrackingSettings) -> SyncResult:
    """Send MLflow the missing events and files of the sweep in ``folder``; close its runs if no process runs the sweep.

    Raises TrackingError; the cursor then marks what arrived.
    """
    paths = SweepPaths(Path(folder))
    writer = MlflowWriter(paths, settings)
    again = f"Nothing is lost; send it later with `{command_line('sync', folder)}`."
    try:
        writer.load()
        try:
            while writer.flush():
                pass
            if running_process(paths) is None:  # checked after the ledger was read, so a process started since counts
                writer.close_runs()
        except TrackingError as error:
            raise TrackingError(f"{error} {again}") from error
    except OrchError:
        raise
    except Exception as error:
        raise TrackingError(
            f"MLflow at {without_password(writer.uri)} did not accept everything: {first_sentence(error)} {again}"
        ) from error
    finally:
        writer.release()
    return writer.result()


class Tracker:
    """Send a running sweep's events to MLflow from a thread, so that the sweep neither waits for it nor fails with it.

    ``now`` is a monotonic clock in seconds. ``on_trouble`` is called from that thread with a sentence, on the first
    failure only.
    """

    def __init__(
        self,
        paths: SweepPaths,
        settings: TrackingSettings,
        open_client: Callable[[str], MlflowClient] = connect,
        now: Callable[[], float] = time.monotonic,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self._writer = MlflowWriter(paths, settings, open_client, describe_environment)
        self._root = paths.root
        self._now = now
        self._on_trouble = on_trouble
        self._wake = threading.Condition()
        self._new: list[Event] = []
        self._closing = False
        self._failures = 0
        self._due_s = 0.0
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self) -> None:
        """Start the thread, which first sends the events of the ledger that MLflow does not have."""
        self._thread.start()

    def show(self, event: Event) -> None:
        """Queue ``event`` for sending. Never blocks, never raises."""
        with self._wake:
            self._new.append(event)
            self._wake.notify()

    @property
    def parent_run_id(self) -> str:
        """The run id of the sweep; "" until MLflow's first answer."""
        return self._writer.cursor.parent

    def close(self, timeout_s: float = 30.0) -> str | None:
        """Send the remaining events and close open runs within ``timeout_s``, or a few seconds if MLflow is silent.

        Return a sentence if something was not sent, else None.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._join(timeout_s)
        behind = self._writer.behind + len(self._new)
        if not self._error and not behind and not self._thread.is_alive():
            return " ".join(self._writer.refused) or None
        sync = command_line("sync", self._root)
        named = isinstance(self._error, TrackingError)  # its message names the store
        where = "" if named else f" at {without_password(self._writer.uri)}"
        return f"MLflow{where} does not have all of this sweep: {self._why()} Nothing is lost; `{sync}` sends the rest."

    def _join(self, timeout_s: float) -> None:
        """Wait for the thread while MLflow keeps answering, at most ``timeout_s``."""
        began_s = heard_s = time.monotonic()
        steps = self._writer.steps
        silence_s = timeout_s if database_file(self._writer.uri) else min(SILENCE_S, timeout_s)
        while self._thread.is_alive() and time.monotonic() < began_s + timeout_s:
            if self._writer.steps != steps:
                steps, heard_s = self._writer.steps, time.monotonic()
            if time.monotonic() > heard_s + (LAST_ATTEMPT_S if self._failures else silence_s):
                return
            self._thread.join(0.05)

    def _why(self) -> str:
        if self._error:
            return first_sentence(self._error)
        return "it is slow and accepted only a part." if self._writer.steps else "it does not answer."

    def pump(self) -> float:
        """Send one batch if it is due; return the seconds until the next call is useful."""
        wait_s = self._due_s - self._now()
        if wait_s > 0:
            return wait_s
        try:
            if not self._writer.loaded:
                self._writer.load()
            self._take_new()
            more = self._writer.flush()
        except Exception as error:  # no failure of MLflow may stop the sweep
            self._fail(error)
            self._due_s = self._now() + retry_delay_s(self._failures)
            return retry_delay_s(self._failures)
        self._error, self._failures = None, 0
        return 0.0 if more else IDLE_S

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._failures += 1
        if self._on_trouble is not None and not self._closing:
            sync = command_line("sync", self._root)
            self._on_trouble(
                f"MLflow cannot be used: {first_sentence(error)} The sweep continues and records everything; "
                f"`{sync}` sends what MLflow misses."
            )
            self._on_trouble = None

    def _take_new(self) -> None:
        with self._wake:
            events, self._new = self._new, []
        self._writer.add(events)

    def _run(self) -> None:
        try:
            while not self._wait(self.pump()):
                pass
            self._due_s = 0.0  # the last attempt does not wait
            while self.pump() == 0.0:
                pass
            self._close_runs()
        finally:
            self._writer.release()

    def _close_runs(self) -> None:
        if self._error is None:
            try:
                self._writer.close_runs()
            except Exception as error:
                self._fail(error)

    def _wait(self, wait_s: float) -> bool:
        """Wait for new events or closing, at most ``wait_s``; return whether the tracker is closing."""
        with self._wake:
            if wait_s > 0:
                self._wake.wait_for(lambda: self._closing or (self._new and not self._error), wait_s)
                if not self._error:
                    self._wake.wait_for(lambda: self._closing, LINGER_S)
            return self._closing
