"""The order of a sweep's stages."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from orchestrator.cluster import interruptions
from orchestrator.errors import Interrupted, OrchError, TransientError
from orchestrator.ledger.folder import FINISHED, leaderboards
from orchestrator.ledger.kept import FILES, KeptFiles, checksums
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import CALIBRATED
from orchestrator.machine.places import require_places
from orchestrator.objectives import ACCURACY
from orchestrator.paths import RUNS, SweepPaths, command_line
from orchestrator.report.progress import ProgressReporter
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.open import OpenSweep, open_existing, open_new, settle_spec
from orchestrator.tracking.settings import tracking_settings

if TYPE_CHECKING:
    from orchestrator.tracking.tracker import Tracker

T = TypeVar("T")
QUICK_DATA_S = 0.5
"""Maximum seconds to wait for the photos before Ray is started meanwhile."""
TRACKING_GRACE_S = 60.0
"""Maximum seconds that the end of a sweep waits for MLflow to take the remaining events."""
INTERRUPTED_GRACE_S = 20.0
"""Maximum seconds of that after an interruption: the sender may kill the process half a minute later."""


@dataclass(frozen=True)
class SweepRequest:
    """The options of ``orch sweep``. ``trials``: "40" in all or "+20" more; ``until``: "data", "search" or "final".

    ``share``: whether trials share their frozen parts, with the same results in less time. ``anyway``: start even if
    the plan fits neither the hours nor the disk.
    """

    spec_source: str | None
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


def sweep(request: SweepRequest, reporter: ProgressReporter) -> Path:
    """Run every stage that is not done yet; return the sweep's folder.

    Raises OrchError and its children; the folder always keeps what was done. SIGTERM and SIGHUP interrupt as Ctrl-C
    does.
    """
    with interruptions.interruptible():
        return _sweep(request, reporter)


def _sweep(request: SweepRequest, reporter: ProgressReporter) -> Path:
    began_s = time.monotonic()
    require_places(starts_ray=not request.address)
    opened = _open(request)
    with Ledger(opened.paths.ledger) as ledger:
        settle_spec(opened, ledger)
        reporter.opened(opened.spec.name, opened.paths.root, ledger.events(), opened.notes, opened.resumed)
        tracker = _tracker(opened, reporter)

        def on_event(event: Event) -> None:
            reporter.on_event(event)
            if tracker is not None:
                tracker.show(event)

        running = SweepContext(opened.paths, opened.spec, ledger, on_event, request.share)
        whole = opened.resumed and not opened.changed and _is_whole(opened.paths, ledger.events())
        if whole:
            request = replace(request, until=None)
        with _recorded(running, request, tracker, reporter):
            finished = not whole and _stages(running, request)
        if whole:
            reporter.nothing_to_do()
        elif finished:
            reporter.finished(opened.paths, time.monotonic() - began_s)
    return opened.paths.root


def _is_whole(paths: SweepPaths, events: Sequence[Event]) -> bool:
    """Whether the sweep is finished, as this version finishes one, and all its recorded files are as they were."""
    states = [event.state for event in events if event.kind == EventKind.SWEEP and event.state]
    boards = leaderboards(events)
    if states[-1:] != [FINISHED] or not boards or CALIBRATED not in boards[-1].data:
        return False
    kept = KeptFiles.of(paths, events)
    return not any(kept.state(paths.named(name)).is_damage for name in kept.hashes)


def _stages(running: SweepContext, request: SweepRequest) -> bool:
    """Run the stages; return whether the leaderboard was reached."""
    from orchestrator.sweep.data import prepare_data
    from orchestrator.sweep.forms.choice import add_forms
    from orchestrator.sweep.refit import refit
    from orchestrator.sweep.search import search
    from orchestrator.sweep.select import select

    # Ray takes seconds to import and to start, most of them spent waiting, so the photos are read meanwhile.
    reading = _BackgroundCall(lambda: prepare_data(running))
    if request.until == "data" or reading.ends_within(QUICK_DATA_S):
        reading.result()
    if request.until == "data":
        return False
    from orchestrator.cluster.ray_session import machine_resources, ray_session
    from orchestrator.sweep.leaderboard import build_leaderboard
    from orchestrator.sweep.node_weights import check_nodes
    from orchestrator.sweep.pictures import draw_pictures
    from orchestrator.sweep.plan import PlanRequest, compare_with_plan, plan_sweep

    asked_s = time.monotonic()
    with ray_session(request.address or ""), _ignoring_further_signals():
        interruptions.listen()  # Ray has handlers of its own, which end the process
        machine, ray_s = machine_resources(), time.monotonic() - asked_s
        manifest = reading.result()
        has = {"cpus": machine.cpus, "gpus": machine.gpus, "gpus_per_trial": running.gpus_per_trial()}
        running.record(EventKind.NOTE, payload={"machine": has})
        if request.address:
            check_nodes(running.spec)
        plan_sweep(running, manifest, PlanRequest(machine, request.address or "", ray_s, request.anyway))
        search(running, manifest)
        if request.until == "search":
            compare_with_plan(running)
            return False
        winner = select(running, manifest)
        winner, models = add_forms(running, manifest, winner, refit(running, manifest, winner))
        board = build_leaderboard(running, manifest, winner, models)
        draw_pictures(running, manifest, board)
        compare_with_plan(running)
    return True


class _BackgroundCall(Generic[T]):
    """A call in a daemon thread; ``result`` returns what it returned, or raises what it raised."""

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
        """Wait for the call."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found


@contextlib.contextmanager
def _ignoring_further_signals() -> Iterator[None]:
    """Ignore signals after the first, so that stopping Ray is not interrupted."""
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


def _tracker(opened: OpenSweep, reporter: ProgressReporter) -> Tracker | None:
    if not opened.spec.tracking.enabled:
        return None
    from orchestrator.tracking.tracker import Tracker

    settings = tracking_settings(opened.spec)
    tracker = Tracker(opened.paths, settings, on_trouble=reporter.warn)
    tracker.start()
    return tracker


@contextlib.contextmanager
def _recorded(
    running: SweepContext, request: SweepRequest, tracker: Tracker | None, reporter: ProgressReporter
) -> Iterator[None]:
    """Record how the sweep began and ended, and give MLflow time for the rest."""
    spec = running.spec
    facts: dict[str, Any] = {"name": spec.name}
    facts["budget"] = {"trials": spec.budget.trials, "epochs": spec.budget.epochs}
    facts |= {"share": running.share, "precision": spec.resources.precision}
    facts[FILES] = checksums(running.paths, [running.paths.spec])
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
        raise Interrupted(f"{reason} Resume with: `{_resume_line(running)}`") from error
    except TransientError as error:
        reason = error.of_sweep(_resume_line(running))
        running.record(EventKind.SWEEP, state="FAILED", reason=reason)
        raise OrchError(reason) from error
    except BaseException as error:
        running.record(EventKind.SWEEP, state="FAILED", reason=str(error) or type(error).__name__)
        raise
    else:
        until = request.until if request.until in ("data", "search") else None
        state = "STOPPED" if until else FINISHED
        reason = f"until {until}, as asked" if until else ""
        running.record(EventKind.SWEEP, state=state, reason=reason, payload={"until": until} if until else {})
    finally:
        running.ledger.flush()
        if tracker is not None:
            warning = tracker.close(grace_s)
            if warning:
                reporter.warn(warning)
