"""Translate between Ray Tune, which knows its own ids and results, and the ledger, which holds events."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from orchestrator.cluster.checkpoint import read_checkpoint, remove_checkpoint
from orchestrator.cluster.interruptions import StopSignals
from orchestrator.cluster.lost_workers import WorkerLostError
from orchestrator.cluster.memory_kills import MemoryKill, Patience, gave_up, parse_kill
from orchestrator.cluster.ray_session import alive_machines, machine_resources
from orchestrator.cluster.worker_errors import explain
from orchestrator.errors import Interrupted, OrchError
from orchestrator.ledger.kept import FILES, checksums, files_below
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import METRICS, REPLACED_WORKER, Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import SweepState, TrialRecord, TrialState, derive
from orchestrator.objectives import ACCURACY
from orchestrator.paths import SweepPaths
from orchestrator.search.queue import LiveTrial, PrefillJob, TrialQueue
from orchestrator.search.schedulers import WatchedScheduler, build_scheduler, is_prefill, replay
from orchestrator.search.settings import SearchOutcome, SearchSettings
from orchestrator.search.source import TrialSource
from orchestrator.spec.slots import Resources, at_once
from trainers.errors import TrainerError

OnEvent = Callable[[Event], None]


class TrialRecorder:
    """The state of one ``run_trials`` call: live trials, and what the ledger and the source get from Tune.

    ``stopping``: why the search must end, "" while it runs. ``live``: Tune's id -> trial. ``broken``: an error of the
    driver itself, raised once Tune has returned.
    """

    def __init__(self, source: TrialSource, settings: SearchSettings, ledger: Ledger, on_event: OnEvent | None) -> None:
        self.source = source
        self.settings = settings
        self.ledger = ledger
        self.signals = StopSignals()
        metric = settings.scheduler.metric
        self.slots = at_once(machine_resources(), Resources(settings.cpus, settings.gpus), settings.concurrent)
        scheduler = build_scheduler(settings.scheduler, settings.epochs)
        self.scheduler = WatchedScheduler(scheduler, metric, math.ceil(self.slots / alive_machines()))
        self.queue = TrialQueue(bool(settings.fill))
        self.patience = Patience(settings.patience)
        self.started = 0
        self.stopping = ""
        self.broken: Exception | None = None
        self.live: dict[str, LiveTrial] = {}
        self._on_event = on_event
        self._deadline_s = time.monotonic() + settings.hours_left_s
        events = ledger.events()
        self._past = derive(events)
        ended = {r.id: r.state for r in self._past.trials.values() if r.state.is_final and r.stage == settings.stage}
        replay(self.scheduler.inner, events, ended, metric)
        self._best = _best_completed(self._past, settings.stage)

    def outcome(self, seconds: float) -> SearchOutcome:
        """Return how the search ended, counted over every process that worked on it."""
        state = derive(self.ledger.events())
        records = {key: record for key, record in state.trials.items() if record.stage == self.settings.stage}
        return SearchOutcome(
            self.stopping or self.source.exhausted, self.started, SweepState(records).counts(), seconds
        )

    def record(self, kind: EventKind, **values: Any) -> None:
        event = self.ledger.append(kind, **{"stage": self.settings.stage, **values})
        if self._on_event is not None:
            self._on_event(event)

    # --- what Tune asks

    def next_job(self, tune_id: str) -> LiveTrial | PrefillJob | None:
        """Return the trial or prefill for a free slot; None if there is none now."""
        waiting = 1 if self.settings.scheduler.name == "hyperband" else 0  # brackets fill with waiting trials
        active = sum(live.active for live in self.live.values())
        free = self.slots - active - len(self.queue.prefills)
        if free + waiting <= 0:
            return None
        while self.queue.may_ask(self.source, active, self.slots + waiting) and self._ask():
            pass
        job = self.queue.next(tune_id, may_prefill=free > 0)
        if isinstance(job, LiveTrial):
            self.live[tune_id] = job
            self.scheduler.survived[tune_id] = job.kept
        return job

    @property
    def is_drained(self) -> bool:
        """Whether no further trial will ever start."""
        return bool(self.source.exhausted) and not self.queue.waiting

    def _ask(self) -> bool:
        """Request one trial, record it as PENDING and hold it; return whether the source had one."""
        request = self.source.ask()
        if request is None:
            return False
        past = self._past.trials.get(request.id)
        live = LiveTrial(request, attempt=(past.attempts if past else 0) + 1)
        reason, created = "", {}
        if past is None:
            created = {"config": request.job.config.to_dict(), "name": request.name, "number": request.number}
            created |= {"seed": request.job.seed, "proposal": dict(request.proposal)}
        else:
            reason = self._keep(live, [epoch["epoch"] for epoch in past.epochs])
            reason = reason or ("restarted after an interruption" if past.attempts else "")
            live.values = {epoch: value for epoch, value in self._values(past).items() if epoch <= live.kept}
        self.started += 1
        self._record_state(live, TrialState.PENDING, reason, created)
        self.queue.add(live)
        return True

    def _values(self, past: TrialRecord) -> dict[int, tuple[float, ...]]:
        """Return epoch -> value of each objective, from the ledger."""
        figures = {epoch["epoch"]: [epoch.get(name) for name in self.settings.objectives] for epoch in past.epochs}
        return {e: tuple(math.nan if value is None else value for value in row) for e, row in figures.items()}

    def _keep(self, live: LiveTrial, known: Sequence[int], at_least: int = 0) -> str:
        """Set ``live.kept`` to the ``known`` epochs that the trial will report again; return the reason for the ledger.

        ``at_least``: epochs of Tune's own checkpoint. The reason is "" if the trial never had a checkpoint.
        """
        folder, words = live.request.job.checkpoint, ""
        saved_epochs = at_least
        try:
            saved = read_checkpoint(Path(folder), live.request.job) if folder else None
            saved_epochs = max(saved_epochs, len(saved.epochs) if saved else 0)
        except TrainerError as error:
            words = f"starts over: {error}" if not saved_epochs else ""
        live.kept = min(max(known, default=0), saved_epochs)
        return f"resumes after epoch {saved_epochs}" if saved_epochs else words

    def look_for_end(self) -> bool:
        """Return whether the search must stop now, and set ``stopping``."""
        if self.stopping or self.broken is not None:
            return True
        if self.signals.received:
            self.stopping = f"interrupted by {self.signals.received}"
        elif time.monotonic() >= self._deadline_s:
            self.stopping = "the hours of the budget were used up."
        elif self._best >= self.settings.target_accuracy:
            self.stopping = f"the target accuracy of {self.settings.target_accuracy:g} was reached ({self._best:.4f})."
        return bool(self.stopping)

    def kill_workers(self) -> None:
        """Kill all workers at once; Tune would wait up to ten seconds for their epochs to end."""
        jobs: list[LiveTrial | PrefillJob] = [*self.live.values(), *self.queue.prefills.values()]
        for job in jobs:
            actor = job.trial.temporary_state.ray_actor if job.trial else None
            if actor is not None:
                ray.kill(actor)

    # --- what Tune reports

    def on_start(self, trial: Trial) -> None:
        self._record_replaced()
        if is_prefill(trial):
            self.queue.prefills[trial.trial_id].trial = trial
            return
        live = self.live[trial.trial_id]
        live.active, live.trial = True, trial
        self._record_running(live)

    def on_epoch(self, trial: Trial, result: Mapping[str, Any]) -> None:
        if is_prefill(trial) or result["outcome"] == "failed":
            return
        live = self.live[trial.trial_id]
        epoch = result["epoch"]
        if not result["repeated"]:
            self.patience.progress()
        if not result["repeated"] and epoch <= live.kept:
            self._restart(live, result["restarted"])
        values = live.values[epoch] = tuple(result[name] for name in self.settings.objectives)
        if epoch > live.kept:
            self._record_epoch(live, result, values)
        if self.scheduler.decisions.pop(trial.trial_id, "") == TrialScheduler.PAUSE and not result["done"]:
            live.active = False
            self._record_state(live, TrialState.PAUSED, f"waits at epoch {epoch} for its rung")

    def _record_epoch(self, live: LiveTrial, result: Mapping[str, Any], values: tuple[float, ...]) -> None:
        epoch = result["epoch"]
        about: dict[str, Any] = {"trial": live.request.id, "attempt": live.attempt, "epoch": epoch}
        about["rung"] = self.settings.scheduler.rungs_passed(epoch)
        for fold, accuracy in enumerate(result["fold_val_accuracy"], start=1):
            self.record(EventKind.EPOCH, fold=fold, val_accuracy=accuracy, **about)
        known = all(math.isfinite(value) for value in values)
        metrics = {name: result[name] for name in METRICS}
        self.record(EventKind.EPOCH, objectives=values if known else (), **metrics, **about)

    def _record_replaced(self) -> None:
        """Record each worker that was replaced since the last call because it had outgrown its memory."""
        while self.scheduler.replaced:
            self.record(EventKind.NOTE, payload={REPLACED_WORKER: self.scheduler.replaced.pop(0)})

    def _restart(self, live: LiveTrial, reason: str) -> None:
        """Discard the kept epochs: the worker could not use the checkpoint and trains them again."""
        live.kept, live.values = 0, {}
        live.attempt += 1
        self._record_state(live, TrialState.PENDING, reason or "starts over: its checkpoint is missing")
        self._record_running(live)

    def on_retry(self, trial: Trial) -> None:
        why = self._retry_reason(trial)
        if is_prefill(trial):
            self.record(EventKind.NOTE, stage=Stage.PREFILL, reason=f"prefill retried: {why}")
            return
        live = self.live[trial.trial_id]
        live.active = True
        saved = trial.latest_checkpoint_result
        paused_at = int(saved.metrics.get("epoch", 0)) if saved else 0
        words = self._keep(live, list(live.values), paused_at)
        live.attempt += 1
        live.values = {epoch: value for epoch, value in live.values.items() if epoch <= live.kept}
        self._record_state(live, TrialState.PENDING, f"{why}; {words}" if words else why)

    def _retry_reason(self, trial: Trial) -> str:
        """Return why ``trial`` is retried. Raises TransientError once Ray has killed too many workers."""
        kill = _memory_kill(trial)
        if kill is None or kill.is_own:
            return f"retry {trial.run_metadata.num_failures} of {self.settings.retries} after: {_reason(trial)}"
        self.patience.killed(kill, time.monotonic())
        if self.patience.is_exhausted:
            less = "" if self.settings.concurrent == 1 else "--set budget.concurrent=1"
            raise gave_up(kill, self.patience.rounds, less)
        return f"back in the queue, not counted as a retry: {kill.sentence()}"

    def on_failure(self, trial: Trial) -> None:
        if is_prefill(trial):
            self._end_prefill(trial, "FAILED", _reason(trial), {})
            return
        failures = trial.run_metadata.num_failures
        tries = f"gave up after {failures} attempts: " if failures > 1 else ""
        self._end(trial.trial_id, TrialState.FAILED, tries + _reason(trial))

    def on_end(self, trial: Trial) -> None:
        """Record that the worker finished, or that the scheduler stopped the trial."""
        last, epochs = trial.last_result or {}, self.settings.epochs
        self._record_replaced()
        if is_prefill(trial):
            state = "ENDED" if last.get("outcome") == "built" else "FAILED"
            self._end_prefill(trial, state, last.get("reason", ""), last.get("built", {}))
        elif last.get("outcome") == "completed":
            self._best = max(self._best, last[ACCURACY])
            self._end(trial.trial_id, TrialState.COMPLETED, "")
        elif last.get("outcome") == "failed":
            self._end(trial.trial_id, TrialState.FAILED, last["reason"])
        elif trial.trial_id in self.scheduler.pruned:
            name, epoch = self.settings.scheduler.name, last.get("epoch", 0)
            self._end(trial.trial_id, TrialState.PRUNED, f"stopped by {name} after epoch {epoch} of {epochs}")
        else:
            raise OrchError(f"Ray Tune ended trial {self.live[trial.trial_id].request.id} without a reason.")

    def _end_prefill(self, trial: Trial, state: str, reason: str, built: Mapping[str, Any]) -> None:
        """Record a prefill. If it failed, the trials that waited for it start and report errors of their own."""
        self.patience.progress()
        prefill = self.queue.prefill_ended(trial.trial_id)
        payload = {**built, "for": prefill.request.id}
        self.record(EventKind.STAGE, stage=Stage.PREFILL, state=state, reason=reason, payload=payload)

    def close(self) -> None:
        """End the search after Tune returned: stop started trials, or raise and leave them to ``--resume``.

        Trials that were requested and not started stay PENDING either way; a search with more hours runs them.
        """
        self._record_replaced()
        if self.broken is not None:
            raise self.broken
        unended = [*self.live.values(), *self.queue.waiting]
        if self.signals.received:
            raise Interrupted(
                f"{self.stopping}: finished trials are kept, {len(unended)} unfinished ones restart with `--resume`."
            )
        if unended and not self.stopping:
            raise OrchError(f"Ray Tune returned with trial {unended[0].request.id} unfinished.")
        for live in self.live.values():
            if live.trial is not None:
                self._record_end(live, TrialState.STOPPED, self.stopping.rstrip("."))
        self.ledger.flush()

    def _end(self, tune_id: str, state: TrialState, reason: str) -> None:
        live = self.live.pop(tune_id)
        self._record_end(live, state, reason)
        self.queue.trial_ended(live)

    def _record_end(self, live: LiveTrial, state: TrialState, reason: str) -> None:
        self._record_state(live, state, reason, self._written(live) if state == TrialState.COMPLETED else None)
        if live.request.job.checkpoint:
            remove_checkpoint(Path(live.request.job.checkpoint))
        rows = [live.values[epoch] for epoch in sorted(live.values)]
        self.source.tell(live.request.id, state, [row[0] for row in rows], rows[-1] if rows else ())

    def _written(self, live: LiveTrial) -> dict[str, Any]:
        """Return the checksums of the trained model, for the payload of the event that completes the trial."""
        output = live.request.job.output
        return {FILES: checksums(SweepPaths(self.ledger.folder.parent), files_below(Path(output)))} if output else {}

    def _record_running(self, live: LiveTrial) -> None:
        log = self.settings.logs / f"{live.request.id}.log"
        self._record_state(live, TrialState.RUNNING, "", {"log": f"{log.parent.name}/{log.name}"})

    def _record_state(self, live: LiveTrial, state: TrialState, reason: str, payload: Any = None) -> None:
        done = max(live.values, default=0)
        self.record(
            EventKind.TRIAL,
            trial=live.request.id,
            state=str(state),
            reason=reason,
            attempt=live.attempt,
            epoch=done,
            rung=self.settings.scheduler.rungs_passed(done),
            payload=payload,
        )


def _best_completed(state: SweepState, stage: str) -> float:
    values = [r.val_accuracy for r in state.trials.values() if r.state == TrialState.COMPLETED and r.stage == stage]
    return max((value for value in values if math.isfinite(value)), default=-math.inf)


def _last_error(trial: Trial) -> BaseException | None:
    """Return the last error of ``trial`` from Tune's file on this machine."""
    path = trial.pickled_error_file
    return cloudpickle.loads(Path(path).read_bytes()) if path and Path(path).is_file() else None


def _reason(trial: Trial) -> str:
    error = _last_error(trial)
    return explain(error) if error is not None else "its worker could not be started"


def _memory_kill(trial: Trial) -> MemoryKill | None:
    error = _last_error(trial)
    return parse_kill(str(error)) if isinstance(error, WorkerLostError) else None
