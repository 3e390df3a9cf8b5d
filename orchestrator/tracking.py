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

from orchestrator.environment import describe_environment
from orchestrator.errors import OrchError, TrackingError
from orchestrator.ledger import Event
from orchestrator.mlflow_store import connect, first_sentence, without_password
from orchestrator.paths import SweepPaths, command_line
from orchestrator.synchroniser import Synchroniser, SyncResult, TrackingSettings

if TYPE_CHECKING:
    from mlflow import MlflowClient

LINGER_S = 1.0
"""How long events gather before they are sent together."""
LONGEST_DELAY_S = 60.0
IDLE_S = 3600.0


def delay_s(failures: int) -> float:
    """How long to wait after so many failures in a row: 1, 2, 4, ... seconds, at most a minute."""
    return float(min(LONGEST_DELAY_S, 2 ** max(0, min(failures, 10) - 1)))


def synchronise(folder: Path, settings: TrackingSettings) -> SyncResult:
    """Send MLflow whatever it has not seen of the sweep in ``folder``.

    Raises TrackingError, with the cursor kept at what did arrive.
    """
    synchroniser = Synchroniser(SweepPaths(Path(folder)), settings)
    try:
        synchroniser.load()
        while synchroniser.flush():
            pass
    except OrchError:
        raise
    except Exception as error:
        sync = command_line("sync", folder)
        raise TrackingError(
            f"MLflow at {without_password(synchroniser.uri)} did not take everything: {first_sentence(error)} "
            f"Nothing is lost; run `{sync}` again when it is back."
        ) from error
    finally:
        synchroniser.release()
    return synchroniser.result()


class Tracker:
    """Shows a running sweep in MLflow from a thread of its own: the sweep neither waits for MLflow nor fails with it.

    ``now`` is a monotonic clock in seconds.
    """

    def __init__(
        self,
        paths: SweepPaths,
        settings: TrackingSettings,
        open_client: Callable[[str], MlflowClient] = connect,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._synchroniser = Synchroniser(paths, settings, open_client, describe_environment)
        self._root = paths.root
        self._now = now
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
        """Send what is left, for at most ``timeout_s``. A sentence where something stayed behind, else None."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        behind = self._synchroniser.behind + len(self._new)
        if not self._error and not behind and not self._thread.is_alive():
            return " ".join(self._synchroniser.refused) or None
        why = first_sentence(self._error) if self._error else "it takes too long."
        sync = command_line("sync", self._root)
        return (
            f"MLflow at {without_password(self._synchroniser.uri)} has not seen all of this sweep: {why} "
            f"Nothing is lost; `{sync}` sends the rest."
        )

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
        except Exception as error:  # whatever it is, the sweep goes on; close() tells
            self._error = error
            self._failures += 1
            self._due_s = self._now() + delay_s(self._failures)
            return delay_s(self._failures)
        self._error, self._failures = None, 0
        return 0.0 if more else IDLE_S

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
        finally:
            self._synchroniser.release()

    def _wait(self, wait_s: float) -> bool:
        """Until there is something to do; whether that is closing."""
        with self._wake:
            if wait_s > 0:
                self._wake.wait_for(lambda: self._closing or (self._new and not self._error), wait_s)
                if not self._error:
                    self._wake.wait_for(lambda: self._closing, LINGER_S)
            return self._closing
