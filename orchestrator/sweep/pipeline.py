"""The order of the stages, and nothing else."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orchestrator.cluster import interruptions
from orchestrator.errors import Interrupted
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.machine.places import require_places
from orchestrator.objectives import ACCURACY
from orchestrator.paths import RUNS, command_line
from orchestrator.report.progress import ProgressReporter
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.open import OpenSweep, open_existing, open_new
from orchestrator.tracking.settings import tracking_settings

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.tracking.tracker import Tracker

T = TypeVar("T")
QUICK_DATA_S = 0.5
"""Photos that are read, or refused, so soon are waited for before Ray is started at all."""
TRACKING_GRACE_S = 60.0
"""Maximum seconds that the end of a sweep waits for MLflow to take the rest."""
INTERRUPTED_GRACE_S = 20.0
"""The same after an interruption: what sent the signal may kill the process half a minute later."""


@dataclass(frozen=True)
class SweepRequest:
    """What ``orch sweep`` was asked. ``trials``: "40" in all or "+20" more; ``until``: "data", "search" or "final".

    ``share``: whether trials share what they have in common; the results are the same, the time is not. ``anyway``: go
    on where the plan says that the sweep cannot fit its hours or the disk.
    """

    spec_source: str | None
    console: Console
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    fresh: bool = False
    resume: bool = False
    trials: str | None = None
    hours: float | None = None
    until: str | None = None
    address: str | None = None
    share: bool = True
    anyway: bool = False


def sweep(request: SweepRequest) -> Path:
    """Run every stage that is not done yet; the sweep's folder.

    Raises OrchError and its children; whatever happens, the folder keeps what was done. SIGTERM and SIGHUP end it as
    Ctrl-C does.
    """
    with interruptions.interruptible():
        return _sweep(request)


def _sweep(request: SweepRequest) -> Path:
    began_s = time.monotonic()
    require_places(starts_ray=not request.address)
    opened = _open(request)
    narrator = ProgressReporter(request.console, opened.spec)
    with Ledger(opened.paths.ledger) as ledger:
        narrator.opened(opened, ledger)
        tracker = _tracker(opened, narrator)

        def show(event: Event) -> None:
            narrator.show(event)
            if tracker is not None:
                tracker.show(event)

        running = SweepContext(opened.paths, opened.spec, ledger, show, narrator.tell, request.share)
        with _recorded(running, request, tracker, narrator):
            finished = _stages(running, request)
        if finished:
            narrator.finished(opened.paths, time.monotonic() - began_s)
    return opened.paths.root


def _stages(running: SweepContext, request: SweepRequest) -> bool:
    """Whether it went through to the leaderboard."""
    from orchestrator.sweep.data import prepare_data
    from orchestrator.sweep.refit import refit
    from orchestrator.sweep.search import search
    from orchestrator.sweep.select import select

    # Ray takes seconds to import and to start, most of them spent waiting, so the photos are read meanwhile.
    reading = _Beside(lambda: prepare_data(running))
    if request.until == "data" or reading.ends_within(QUICK_DATA_S):
        reading.result()
    if request.until == "data":
        return False
    from orchestrator.cluster.ray_session import machine_resources, ray_session
    from orchestrator.sweep.foresee import PlanRequest, compare_with_plan, plan_sweep
    from orchestrator.sweep.leaderboard import build_leaderboard
    from orchestrator.sweep.node_weights import check_nodes
    from orchestrator.sweep.pictures import draw_pictures

    asked_s = time.monotonic()
    with ray_session(request.address or ""), _deaf_once_interrupted():
        interruptions.listen()  # Ray has handlers of its own, which end the process
        machine, ray_s = machine_resources(), time.monotonic() - asked_s
        manifest = reading.result()
        gpus = running.gpus_per_trial()
        where = f"{gpus:g} GPU a trial" if gpus else "no GPU, on CPUs"
        running.tell(f"machine  Ray has {machine.cpus:g} CPUs and {machine.gpus:g} GPUs; {where}")
        if request.address:
            check_nodes(running.spec)
        plan_sweep(running, manifest, PlanRequest(machine, request.address or "", ray_s, request.anyway))
        search(running, manifest)
        if request.until == "search":
            running.tell(f"stopped  after the search, as asked; test was not read. Go on: {_resume_line(running)}")
            compare_with_plan(running)
            return False
        winner = select(running, manifest)
        models = refit(running, manifest, winner)
        board = build_leaderboard(running, manifest, winner, models)
        draw_pictures(running, manifest, board)
        compare_with_plan(running)
    return True


class _Beside(Generic[T]):
    """A call in a thread of its own, which ends with the process; ``result`` is what it gave, or raises what it did."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._found: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._found = self._call()
        except BaseException as error:
            self._error = error

    def ends_within(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> T:
        """Waits for it."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found


@contextlib.contextmanager
def _deaf_once_interrupted() -> Iterator[None]:
    """After the first signal further ones are not heard, so that stopping Ray is not torn in the middle."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        interruptions.ignore_further()
        raise


def _open(request: SweepRequest) -> OpenSweep:
    from orchestrator.spec.load import load_spec, open_spec

    overrides = [*request.overrides]
    if request.hours is not None:
        overrides.append(f"budget.hours={request.hours}")
    if not request.resume:
        if request.trials is not None:
            overrides.append(f"budget.trials={request.trials.lstrip('+')}")
        opened = open_spec(str(request.spec_source), overrides)
        return open_new(opened.spec, request.out, request.fresh, opened.notes)
    root = request.out or Path(RUNS) / load_spec(str(request.spec_source), overrides, check_machine=False).name
    return open_existing(root, request.spec_source, overrides, request.trials)


def _resume_line(running: SweepContext) -> str:
    return command_line("sweep", "--resume", "--out", running.paths.root)


def _tracker(opened: OpenSweep, narrator: ProgressReporter) -> Tracker | None:
    if not opened.spec.tracking.enabled:
        return None
    from orchestrator.tracking.tracker import Tracker

    settings = tracking_settings(opened.spec)
    tracker = Tracker(opened.paths, settings, on_trouble=lambda sentence: narrator.tell(f"warning  {sentence}"))
    tracker.start()
    return tracker


@contextlib.contextmanager
def _recorded(
    running: SweepContext, request: SweepRequest, tracker: Tracker | None, narrator: ProgressReporter
) -> Iterator[None]:
    """Record how the sweep began and ended, and give MLflow time for the rest."""
    spec = running.spec
    facts: dict[str, Any] = {"name": spec.name}
    facts["budget"] = {"trials": spec.budget.trials, "epochs": spec.budget.epochs}
    facts["share"] = running.share
    if spec.objective != (ACCURACY,):
        facts["objectives"] = list(spec.objective)
    running.record(EventKind.SWEEP, state="RUNNING", payload=facts)
    grace_s = TRACKING_GRACE_S
    try:
        yield
    except (Interrupted, KeyboardInterrupt, SystemExit) as error:
        interruptions.ignore_further()
        grace_s = INTERRUPTED_GRACE_S
        reason = str(error) or "interrupted by Ctrl-C."
        if isinstance(error, SystemExit):  # of Ray's own handler, while it starts
            reason = "interrupted by SIGTERM."
        running.record(EventKind.SWEEP, state="INTERRUPTED", reason=reason)
        raise Interrupted(f"{reason} Go on with: {_resume_line(running)}") from error
    except BaseException as error:
        running.record(EventKind.SWEEP, state="FAILED", reason=str(error) or type(error).__name__)
        raise
    else:
        until = request.until if request.until in ("data", "search") else None
        state = "STOPPED" if until else "FINISHED"
        running.record(EventKind.SWEEP, state=state, reason=f"until {until}, as asked" if until else "")
    finally:
        running.ledger.flush()
        if tracker is not None:
            warning = tracker.close(grace_s)
            if warning:
                narrator.tell(f"warning  {warning}")
