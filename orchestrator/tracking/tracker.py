"""MLflow as a view of the ledger: one run for the sweep, one below it for each trial.

A ``Tracker`` shows a sweep while it runs; ``synchronise`` sends what MLflow missed. Both send through
``synchroniser``, and neither can make a second run of a trial.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import OrchError, TrackingError
from orchestrator.ledger.ledger import running_process
from orchestrator.ledger.segments import Event
from orchestrator.machine.environment import describe_environment
from orchestrator.paths import SweepPaths, command_line
from orchestrator.tracking.mlflow_store import connect, database_file, first_sentence, without_password
from orchestrator.tracking.settings import TrackingSettings
from orchestrator.tracking.sync import MlflowWriter, SyncResult

if TYPE_CHECKING:
    from mlflow import MlflowClient

LINGER_S = 1.0
"""How long events gather before they are sent together."""
LAST_ATTEMPT_S = 6.0
"""Maximum seconds that closing waits for a store whose last attempt failed."""
SILENCE_S = 20.0
"""Maximum seconds that closing waits for a server's next answer."""
LONGEST_DELAY_S = 60.0
IDLE_S = 3600.0


def delay_s(failures: int) -> float:
    """How long to wait after so many failures in a row: 1, 2, 4, ... seconds, at most a minute."""
    return float(min(LONGEST_DELAY_S, 2 ** max(0, min(failures, 10) - 1)))


def synchronise(folder: Path, settings: TrackingSettings) -> SyncResult:
    """Send MLflow whatever it has not seen of the sweep in ``folder``; close its runs where no process runs the sweep.

    Raises TrackingError, with the cursor kept at what did arrive.
    """
    paths = SweepPaths(Path(folder))
    synchroniser = MlflowWriter(paths, settings)
    again = f"Nothing is lost; send it later: `{command_line('sync', folder)}`."
    try:
        synchroniser.load()
        try:
            while synchroniser.flush():
                pass
            if running_process(paths) is None:  # asked after the ledger was read: a process that began since says so
                synchroniser.close_runs()
        except TrackingError as error:
            raise TrackingError(f"{error} {again}") from error
    except OrchError:
        raise
    except Exception as error:
        raise TrackingError(
            f"MLflow at {without_password(synchroniser.uri)} did not take everything: {first_sentence(error)} {again}"
        ) from error
    finally:
        synchroniser.release()
    return synchroniser.result()


class Tracker:
    """Shows a running sweep in MLflow from a thread of its own: the sweep neither waits for MLflow nor fails with it.

    ``now`` is a monotonic clock in seconds. ``on_trouble`` is called once, from that thread, with a sentence, when
    MLflow cannot be used for the first time.
    """

    def __init__(
        self,
        paths: SweepPaths,
        settings: TrackingSettings,
        open_client: Callable[[str], MlflowClient] = connect,
        now: Callable[[], float] = time.monotonic,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self._synchroniser = MlflowWriter(paths, settings, open_client, describe_environment)
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
        """Begin with what the ledger holds and MLflow has not seen."""
        self._thread.start()

    def show(self, event: Event) -> None:
        """Show ``event`` soon. Never blocks, never raises."""
        with self._wake:
            self._new.append(event)
            self._wake.notify()

    @property
    def parent_run_id(self) -> str:
        """ "" until MLflow answered for the first time."""
        return self._synchroniser.cursor.parent

    def close(self, timeout_s: float = 30.0) -> str | None:
        """Send what is left and close the runs that are open, for at most ``timeout_s``, and for a few seconds alone
        where MLflow does not answer. A sentence where something stayed behind, else None."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._join(timeout_s)
        behind = self._synchroniser.behind + len(self._new)
        if not self._error and not behind and not self._thread.is_alive():
            return " ".join(self._synchroniser.refused) or None
        sync = command_line("sync", self._root)
        named = isinstance(self._error, TrackingError)  # its sentence says which store
        where = "" if named else f" at {without_password(self._synchroniser.uri)}"
        return f"MLflow{where} has not seen all of this sweep: {self._why()} Nothing is lost; `{sync}` sends the rest."

    def _join(self, timeout_s: float) -> None:
        """Wait for the thread as long as MLflow goes on answering."""
        began_s = heard_s = time.monotonic()
        steps = self._synchroniser.steps
        silence_s = timeout_s if database_file(self._synchroniser.uri) else min(SILENCE_S, timeout_s)
        while self._thread.is_alive() and time.monotonic() < began_s + timeout_s:
            if self._synchroniser.steps != steps:
                steps, heard_s = self._synchroniser.steps, time.monotonic()
            if time.monotonic() > heard_s + (LAST_ATTEMPT_S if self._failures else silence_s):
                return
            self._thread.join(0.05)

    def _why(self) -> str:
        if self._error:
            return first_sentence(self._error)
        return "it is slow, and took a part." if self._synchroniser.steps else "it does not answer."

    def pump(self) -> float:
        """Send one batch if it is time to; the seconds until the next call can be of use."""
        wait_s = self._due_s - self._now()
        if wait_s > 0:
            return wait_s
        try:
            if not self._synchroniser.loaded:
                self._synchroniser.load()
            self._take_new()
            more = self._synchroniser.flush()
        except Exception as error:  # whatever it is, the sweep goes on
            self._fail(error)
            self._due_s = self._now() + delay_s(self._failures)
            return delay_s(self._failures)
        self._error, self._failures = None, 0
        return 0.0 if more else IDLE_S

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._failures += 1
        if self._on_trouble is not None and not self._closing:
            sync = command_line("sync", self._root)
            self._on_trouble(
                f"MLflow cannot be used: {first_sentence(error)} The sweep goes on and keeps everything; "
                f"`{sync}` sends what MLflow misses."
            )
            self._on_trouble = None

    def _take_new(self) -> None:
        with self._wake:
            events, self._new = self._new, []
        self._synchroniser.add(events)

    def _run(self) -> None:
        try:
            while not self._wait(self.pump()):
                pass
            self._due_s = 0.0  # the last attempt does not wait
            while self.pump() == 0.0:
                pass
            self._close_runs()
        finally:
            self._synchroniser.release()

    def _close_runs(self) -> None:
        if self._error is None:
            try:
                self._synchroniser.close_runs()
            except Exception as error:
                self._fail(error)

    def _wait(self, wait_s: float) -> bool:
        """Until there is something to do; whether that is closing."""
        with self._wake:
            if wait_s > 0:
                self._wake.wait_for(lambda: self._closing or (self._new and not self._error), wait_s)
                if not self._error:
                    self._wake.wait_for(lambda: self._closing, LINGER_S)
            return self._closing
