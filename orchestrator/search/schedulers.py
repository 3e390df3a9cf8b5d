"""Ray Tune's trial schedulers: built from plain settings, wrapped and replayed.

``WatchedScheduler`` wraps the scheduler that decides. It records which trials were stopped or paused, so that a trial
is PRUNED only if the scheduler decided so, and it keeps non-finite metrics from the scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.schedulers.hyperband import _Bracket

from orchestrator.cluster.worker_memory import outgrown
from orchestrator.errors import OrchError
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.state import TrialState
from orchestrator.objectives import ACCURACY, OBJECTIVES
from orchestrator.search.settings import SchedulerSettings
from orchestrator.spec.sections.budget import SCHEDULERS


def build_scheduler(settings: SchedulerSettings, epochs: int) -> TrialScheduler:
    """Return the Ray scheduler for ``settings`` and trials of at most ``epochs``. Raises OrchError."""
    mode = "min" if OBJECTIVES[settings.metric].minimised else "max"
    common: dict[str, Any] = {"time_attr": "epoch", "metric": settings.metric, "mode": mode}
    if settings.name == "asha":
        return ASHAScheduler(
            max_t=epochs,
            grace_period=min(settings.grace_epochs, epochs),
            reduction_factor=settings.reduction_factor,
            **common,
        )
    if settings.name == "hyperband":
        return _SteadyHyperBand(max_t=epochs, reduction_factor=settings.reduction_factor, **common)
    if settings.name == "median":
        return _SteadyMedian(grace_period=settings.grace_epochs, min_samples_required=settings.min_trials, **common)
    if settings.name == "none":
        return FIFOScheduler()
    raise OrchError(f"there is no scheduler {settings.name!r}; known are {', '.join(SCHEDULERS)}.")


class _SteadyMedian(MedianStoppingRule):
    """Ray's median rule without pauses: Ray's pauses trials while there are too few to compare, which saves nothing."""

    def _on_insufficient_samples(self, tune_controller: Any, trial: Trial, time: float) -> str:
        return TrialScheduler.CONTINUE


class _SteadyBracket(_Bracket):
    """A bracket that is full once its number of trials were added.

    Ray's counts live trials, so if trials come one at a time, the first bracket, which stops none, never fills.
    """

    def filled(self) -> bool:
        return len(self._all_trials) >= self._n0 or self._r != self._r0


class _SteadyHyperBand(HyperBandScheduler):
    def _create_bracket(self, s: int) -> _SteadyBracket:
        return _SteadyBracket(
            time_attr=self._time_attr,
            max_trials=self._get_n0(s),
            init_t_attr=self._get_r0(s),
            max_t_attr=self._max_t_attr,
            eta=self._eta,
            s=s,
        )


def is_prefill(trial: Trial) -> bool:
    """Return whether Tune's ``trial`` is a prefill rather than a trial of the sweep."""
    return "fill" in trial.config


class WatchedScheduler(TrialScheduler):
    """Pass trials, but no prefills, to ``inner`` and record its decisions.

    ``pruned``: Tune's ids of the trials that ``inner`` stopped. ``decisions``: Tune's id -> last decision.
    ``survived``: Tune's id -> epochs that an earlier driver let the trial pass, set by the recorder; reported again,
    they reach ``inner`` but stop no trial.
    A worker that has outgrown its share of the memory, given ``workers`` on a machine, is replaced once its trial ends.
    ``replaced``: ``worker_memory.measure`` of each such worker, until the recorder takes it.
    """

    def __init__(self, inner: TrialScheduler, metric: str = ACCURACY, workers: int = 1) -> None:
        super().__init__()
        self.inner = inner
        self.watched = metric
        self._workers = workers
        self._open: dict[str, Trial] = {}  # not ended, prefills included, in order of arrival
        self._seen: dict[str, int] = {}  # Tune's id -> epochs passed to inner
        self.survived: dict[str, int] = {}
        self.pruned: set[str] = set()
        self.replaced: list[dict[str, int]] = []
        self.decisions: dict[str, str] = {}
        self.supports_buffered = inner.supports_buffered_results

    @property
    def metric(self) -> None:
        """None, so that Tune does not insist on the metric in results that end a failed trial."""
        return None

    @property
    def supports_buffered_results(self) -> bool:
        return self.supports_buffered

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._open[trial.trial_id] = trial
        if is_prefill(trial):
            trial.max_failures = 0  # the waiting trials compute their rows themselves
        else:
            self.inner.on_trial_add(self._watch(tune_controller), trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._open.pop(trial.trial_id, None)  # a retry adds it again
        if not is_prefill(trial):
            self.inner.on_trial_error(self._watch(tune_controller), trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if is_prefill(trial) or not _is_number(result.get(self.watched)):
            return TrialScheduler.CONTINUE
        if result["epoch"] <= self._seen.get(trial.trial_id, 0) and not isinstance(self.inner, HyperBandScheduler):
            return TrialScheduler.CONTINUE  # decided before a crash
        self._seen[trial.trial_id] = result["epoch"]
        decision = self.inner.on_trial_result(self._watch(tune_controller), trial, result)
        if decision == TrialScheduler.STOP and result["epoch"] <= self._survived_epochs(trial, result):
            decision = TrialScheduler.CONTINUE  # decided before other trials came
            if isinstance(self.inner, MedianStoppingRule):
                self.inner._stopped_trials.discard(trial)
        self.decisions[trial.trial_id] = decision
        if decision == TrialScheduler.STOP:
            self.pruned.add(trial.trial_id)
        return decision

    def _survived_epochs(self, trial: Trial, result: Mapping[str, Any]) -> int:
        """Return the epochs of ``trial`` that are not decided again; 0 for hyperband, whose brackets are new."""
        is_new = not result.get("repeated") or isinstance(self.inner, HyperBandScheduler)
        return 0 if is_new else self.survived.get(trial.trial_id, 0)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._forget(trial)
        if "rss_bytes" in result and outgrown(result, self._workers):
            # Tune reuses only actors in this set and ends all others.
            tune_controller._started_actors.discard(tune_controller._trial_to_actor.get(trial))
            self.replaced.append({name: result[name] for name in ("jobs", "rss_bytes", "machine_bytes")})
        if is_prefill(trial):
            return
        if _is_number(result.get(self.watched)):
            self.inner.on_trial_complete(self._watch(tune_controller), trial, result)
        else:
            self.inner.on_trial_remove(self._watch(tune_controller), trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._forget(trial)
        if not is_prefill(trial):
            self.inner.on_trial_remove(self._watch(tune_controller), trial)

    def _forget(self, trial: Trial) -> None:
        self._open.pop(trial.trial_id, None)
        self._seen.pop(trial.trial_id, None)
        self.survived.pop(trial.trial_id, None)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        return self.inner.choose_trial_to_run(self._watch(tune_controller))

    def debug_string(self) -> str:
        return self.inner.debug_string()

    def _watch(self, tune_controller: Any) -> _WatchedController:
        return _WatchedController(tune_controller, self.pruned, self._open)


class _WatchedController:
    """Tune's controller for ``inner``: records trials that hyperband stops while they are paused.

    ``get_trials`` returns only live trials, so that choosing one does not slow down as trials end.
    """

    def __init__(self, controller: Any, pruned: set[str], unended: Mapping[str, Trial]) -> None:
        self._controller = controller
        self._pruned = pruned
        self._unended = unended

    def get_trials(self) -> list[Trial]:
        return list(self._unended.values())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)

    def stop_trial(self, trial: Trial) -> None:
        self._pruned.add(trial.trial_id)
        self._controller.stop_trial(trial)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


@dataclass(frozen=True)
class _PastTrial:
    """The attributes that asha and median read from a trial that ended in an earlier process."""

    trial_id: str
    status: str = Trial.TERMINATED


def replay(
    scheduler: TrialScheduler, events: Iterable[Event], finished: Mapping[str, TrialState], metric: str = ACCURACY
) -> int:
    """Pass the epochs of ``finished`` trials to asha or median in their order; return how many.

    Interrupted trials are left out, because they restart. Hyperband is not replayed: its brackets hold paused
    processes, which end with their driver, so it starts with new brackets and its paused trials restart.
    """
    if not isinstance(scheduler, (ASHAScheduler, MedianStoppingRule)):
        return 0
    trials, last, fed = {}, {}, 0
    for event in _latest_attempts(events, finished):
        if event.trial not in trials:
            trials[event.trial] = _PastTrial(event.trial)
            scheduler.on_trial_add(None, trials[event.trial])
        trial = trials[event.trial]
        if event.kind == EventKind.EPOCH:
            value = event.metrics[metric]
            if _is_number(value):
                last[trial] = {"epoch": event.epoch, metric: value}
                scheduler.on_trial_result(None, trial, last[trial])
                fed += 1
        elif trial in last:
            scheduler.on_trial_complete(None, trial, last[trial])
    return fed


def _latest_attempts(events: Iterable[Event], finished: Mapping[str, TrialState]) -> list[Event]:
    """Return EPOCH and final TRIAL events of finished trials, in order, without epochs of abandoned attempts."""
    kept: dict[int, Event] = {}
    by_trial: dict[str, list[int]] = {}
    for event in events:
        if event.trial not in finished or event.fold:
            continue
        seqs = by_trial.setdefault(event.trial, [])
        if event.kind == EventKind.TRIAL and event.state == TrialState.PENDING:
            for seq in [seq for seq in seqs if kept[seq].epoch > event.epoch]:
                del kept[seq]
                seqs.remove(seq)
        elif event.kind == EventKind.EPOCH or (event.kind == EventKind.TRIAL and TrialState(event.state).is_final):
            kept[event.seq] = event
            seqs.append(event.seq)
    return [kept[seq] for seq in sorted(kept)]
