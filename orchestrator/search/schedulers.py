"""Ray Tune's trial schedulers, built from plain settings, watched and replayed.

``WatchedScheduler`` stands between Tune and the scheduler that decides. It notes which trials the scheduler itself
stopped or paused, so that PRUNED is recorded where it is decided, and it keeps figures that are no numbers from it.
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
from orchestrator.ledger.ledger import TrialState
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.objectives import ACCURACY, OBJECTIVES

SCHEDULERS = ("asha", "hyperband", "median", "none")


@dataclass(frozen=True)
class SchedulerSettings:
    """``grace_epochs``: no trial is stopped before (asha, median). ``reduction_factor``: one in so many goes on at each
    rung (asha, hyperband). ``min_samples``: other trials that ``median`` wants to compare with. ``metric``: the
    objective that trials are stopped by; of several it is the first, and no scheduler looks at the others.

    asha: Li et al. 2020, arXiv 1810.05934. hyperband: Li et al. 2018, arXiv 1603.06560. median: Golovin et al. 2017.
    """

    name: str = "none"
    grace_epochs: int = 1
    reduction_factor: float = 3.0
    min_samples: int = 3
    metric: str = ACCURACY

    def rung(self, epoch: int) -> int:
        """How many of asha's milestones, grace x reduction^k, ``epoch`` has reached; 0 for the others."""
        if self.name != "asha" or epoch < self.grace_epochs:
            return 0
        reached = 0
        while self.grace_epochs * self.reduction_factor**reached <= epoch:
            reached += 1
        return reached


def build_scheduler(settings: SchedulerSettings, epochs: int) -> TrialScheduler:
    """The Ray scheduler that ``settings`` name, for trials of at most ``epochs``. Raises OrchError."""
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
        return _SteadyMedian(grace_period=settings.grace_epochs, min_samples_required=settings.min_samples, **common)
    if settings.name == "none":
        return FIFOScheduler()
    raise OrchError(f"there is no scheduler {settings.name!r}; known are {', '.join(SCHEDULERS)}.")


class _SteadyMedian(MedianStoppingRule):
    """Never pauses. Ray's yields to waiting trials while there are too few to compare with, which saves nothing."""

    def _on_insufficient_samples(self, tune_controller: Any, trial: Trial, time: float) -> str:
        return TrialScheduler.CONTINUE


class _SteadyBracket(_Bracket):
    """A bracket that counts as full once its number of trials were added. Ray's counts those alive, so where trials
    come one at a time the first bracket, which stops nobody, would never fill up."""

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


def is_build(trial: Trial) -> bool:
    """Whether Tune's ``trial`` is no trial of the sweep but a worker that fills the store."""
    return "fill" in trial.config


class WatchedScheduler(TrialScheduler):
    """Passes trials on to ``inner``, builds not, and remembers what it decided.

    ``pruned``: Tune's ids of the trials that ``inner`` stopped. ``decisions``: the last answer for each trial.
    ``survived``: filled from outside. Its epochs are reported again, and shown to ``inner``, but stop nobody.
    A worker that has outgrown its part of the memory, given ``workers`` on a machine, is replaced once its trial ends.
    """

    def __init__(self, inner: TrialScheduler, metric: str = ACCURACY, workers: int = 1) -> None:
        super().__init__()
        self.inner = inner
        self.watched = metric
        self._workers = workers
        self._open: dict[str, Trial] = {}  # that have not ended, builds included, in the order of their coming
        self._seen: dict[str, int] = {}  # Tune's id -> epochs that inner was shown
        self.survived: dict[str, int] = {}  # Tune's id -> epochs at which an earlier driver let the trial go on
        self.pruned: set[str] = set()
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
        if is_build(trial):
            trial.max_failures = 0  # a second attempt is up to the trials that wait for it
        else:
            self.inner.on_trial_add(self._watch(tune_controller), trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._open.pop(trial.trial_id, None)  # added again if it is to be tried again
        if not is_build(trial):
            self.inner.on_trial_error(self._watch(tune_controller), trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if is_build(trial) or not _is_number(result.get(self.watched)):
            return TrialScheduler.CONTINUE
        if result["epoch"] <= self._seen.get(trial.trial_id, 0) and not isinstance(self.inner, HyperBandScheduler):
            return TrialScheduler.CONTINUE  # shown before a crash, and what was decided then stands
        self._seen[trial.trial_id] = result["epoch"]
        decision = self.inner.on_trial_result(self._watch(tune_controller), trial, result)
        if decision == TrialScheduler.STOP and result["epoch"] <= self._let_go_on(trial, result):
            decision = TrialScheduler.CONTINUE  # others came since: what was decided then stands
            if isinstance(self.inner, MedianStoppingRule):
                self.inner._stopped_trials.discard(trial)
        self.decisions[trial.trial_id] = decision
        if decision == TrialScheduler.STOP:
            self.pruned.add(trial.trial_id)
        return decision

    def _let_go_on(self, trial: Trial, result: Mapping[str, Any]) -> int:
        """The epochs of ``trial`` that are not decided again. Hyperband's brackets are new ones in each driver."""
        is_new = not result.get("held") or isinstance(self.inner, HyperBandScheduler)
        return 0 if is_new else self.survived.get(trial.trial_id, 0)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self._forget(trial)
        if "rss_bytes" in result and outgrown(result, self._workers):
            # Tune keeps started workers alone for the next trial; one that it takes for another it ends.
            tune_controller._started_actors.discard(tune_controller._trial_to_actor.get(trial))
        if is_build(trial):
            return
        if _is_number(result.get(self.watched)):
            self.inner.on_trial_complete(self._watch(tune_controller), trial, result)
        else:
            self.inner.on_trial_remove(self._watch(tune_controller), trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._forget(trial)
        if not is_build(trial):
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
    """Tune's controller as a scheduler sees it; hyperband stops paused trials through it.

    It shows the trials that have not ended alone: looking for one to run must not take longer the more there were.
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
    """What asha and median look at of a trial that ended in an earlier process."""

    trial_id: str
    status: str = Trial.TERMINATED


def replay(
    scheduler: TrialScheduler, events: Iterable[Event], finished: Mapping[str, TrialState], metric: str = ACCURACY
) -> int:
    """Feed the epochs of ``finished`` trials to asha or median in the order in which they came; returns how many.

    Trials that were interrupted are left out, because they start again. Hyperband's brackets hold paused processes,
    which do not survive their driver: it starts with new brackets, and the trials it had paused start again.
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
    """EPOCH events and the final TRIAL event of finished trials, in order, epochs of given-up attempts left out."""
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
