"""Convert errors of lost workers to ones that Ray Tune retries.

Tune retries a trial after a ``RayActorError`` or an exception of the trainable. Any other Ray error, such as the memory
monitor's ``OutOfMemoryError``, ends the whole run (Ray 2.60), so it is converted here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.tune.execution import tune_controller

from orchestrator.cluster.memory_kills import Patience, parse_kill

IDLE_S = 0.1
"""Seconds between two checks while no worker runs and none may start."""


class WorkerLostError(RayActorError):
    """Ray ended a worker; ``text`` is Ray's message. ``forgiven``: not counted as a failure of the trial."""

    def __init__(self, text: str, forgiven: bool) -> None:
        super().__init__(error_msg=text, preempted=forgiven)
        self.args = (text, forgiven)  # for unpickling


def as_actor_error(error: Exception) -> Exception:
    """Return ``error`` in a form that Tune retries. A kill for memory that other programs hold is forgiven."""
    kill = parse_kill(str(error)) if isinstance(error, RayError) and not isinstance(error, RayTaskError) else None
    if kill is not None:
        return WorkerLostError(str(error), forgiven=not kill.is_own)
    if isinstance(error, RayError) and not isinstance(error, RayActorError | RayTaskError):
        return WorkerLostError(f"{type(error).__name__}: {error}", forgiven=False)
    return error


@contextlib.contextmanager
def retried(patience: Patience) -> Iterator[None]:
    """While entered, Tune retries trials whose worker was lost, and starts none during a pause of ``patience``."""

    class Actors(RayActorManager):
        def _actor_start_failed(self, tracked_actor: TrackedActor, exception: Exception) -> None:
            super()._actor_start_failed(tracked_actor, as_actor_error(exception))

        def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
            super()._actor_task_failed(tracked_actor_task, as_actor_error(exception))

        def _try_start_actors(self, max_actors: int | None = None) -> int:
            if patience.ready(time.monotonic()):
                return super()._try_start_actors(max_actors)
            if not self.num_live_actors:
                time.sleep(IDLE_S)
            return 0

    before = tune_controller.RayActorManager
    tune_controller.RayActorManager = Actors
    try:
        yield
    finally:
        tune_controller.RayActorManager = before
