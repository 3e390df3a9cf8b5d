"""Where trials come from: Optuna over a space, or a fixed list. The only module that knows Optuna.

The study lives in memory and the ledger is the truth: ``OptunaSampler.replay`` goes through the ledger's events and
asks and tells the study again just as they happened. Ask n draws from a sampler freshly seeded with (seed, n), so a
sweep that was interrupted proposes what an uninterrupted one would have, given the same results.
"""

from __future__ import annotations

import hashlib
import math
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState as OptunaState

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import TrialState
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.objectives import ACCURACY, OBJECTIVES
from orchestrator.spec.space.space import LARGEST_COUNTED, Choice, Domain, IntRange, Space, Uniform
from trainers.config import TrialConfig, canonical, trial_id
from trainers.contract import FitJob

SAMPLERS = ("tpe", "random", "grid", "cmaes", "gp")
DUPLICATES_IN_A_ROW = 300
"""So many proposals that were all seen before, one after the other, end the search."""


@dataclass(frozen=True)
class TrialRequest:
    """A trial to run. ``name`` is "" unless a person gave one; ``number`` counts a source's trials from 1.

    ``proposal`` is kept in the ledger with the trial's creation, so that a source can replay itself.
    """

    id: str
    name: str
    number: int
    job: FitJob
    proposal: Mapping[str, Any] = field(default_factory=dict)


class TrialSource(Protocol):
    """Hands out trials and is told how each ended. A trial that was handed out is told once, when it has ended; one
    that has not when the search stops is handed out again after a ``replay``."""

    @property
    def exhausted(self) -> str:
        """Why there will never be another trial, as a sentence; "" while there may be one."""
        ...

    @property
    def knows_next(self) -> bool:
        """Whether the next trial is settled already, whatever is told before it is asked for."""
        ...

    def ask(self) -> TrialRequest | None:
        """The next trial; None when there is none now: for ever if ``exhausted``, else until the next ``tell``."""
        ...

    def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
        """``trial`` (an id) ended as ``state``. ``values``: its epochs' values of the first objective, in order.
        ``last``: the last epoch's value of every objective; may be left out where there is one.
        """
        ...


@dataclass(frozen=True)
class SamplerSettings:
    """``trials``: distinct configurations in all, those of earlier runs included. ``first``: tried before the rest.

    ``startup_trials``: random ones before tpe, gp or cmaes begin to learn. ``fingerprint`` is the manifest's.
    ``objectives``: names of figures; with several the sampler looks for trials that none beats in all of them.
    """

    trials: int
    epochs: int
    seed: int
    fingerprint: str
    sampler: str = "tpe"
    startup_trials: int = 10
    first: tuple[Mapping[str, Any], ...] = ()
    objectives: tuple[str, ...] = (ACCURACY,)


MakeJob = Callable[[str, TrialConfig], FitJob]
"""(trial id, configuration) -> the job that trains it, without threads and GPU share, which the search fills in."""


class OptunaSampler:
    """A ``TrialSource`` over a space.

    Configurations that are the same once canonical are trained once: a proposal that repeats a finished trial is
    told that trial's result, one that repeats a running trial is told when it ends, and another is asked for at
    once. Optuna is told COMPLETED as COMPLETE with the last epoch's value (FAIL where that is no number, whatever
    earlier epochs had), PRUNED as PRUNED with each epoch's value, FAILED as FAIL. It has no word for STOPPED: with at
    least one epoch it is PRUNED, which is what the sampler can learn from, without FAIL.

    With several objectives COMPLETED is told with a value of each, and is a FAIL where one of them is no number.
    Optuna takes epochs' values for one objective alone: PRUNED then comes without them. tpe counts such trials among
    the bad ones once it has enough COMPLETE ones; gp, as with one objective, learns from COMPLETE alone.

    grid goes once through all combinations in an order shuffled by ``seed`` and learns nothing.
    Raises OrchError for an unknown sampler, one whose library is not installed, and cmaes with several objectives.
    """

    def __init__(self, space: Space, settings: SamplerSettings, make_job: MakeJob) -> None:
        self.space = space
        self.settings = settings
        self._make_job = make_job
        self._grid = _shuffled_grid(space, settings.seed) if settings.sampler == "grid" else None
        self._size = len(self._grid) if self._grid is not None else space.size()
        if len(settings.objectives) > 1 and settings.sampler == "cmaes":
            raise OrchError("the sampler cmaes learns from one objective alone; use tpe, gp or random with several.")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        directions = ["minimize" if OBJECTIVES[name].minimised else "maximize" for name in settings.objectives]
        self._study = optuna.create_study(directions=directions, sampler=self._sampler(0))
        self._trials: dict[int, optuna.Trial] = {}
        self._asks = 0
        self._requests: dict[str, TrialRequest] = {}
        self._ended: dict[str, tuple[TrialState, tuple[float, ...], tuple[float, ...]]] = {}
        self._waiting: dict[str, list[int]] = {}  # trial -> asks that wait for its result, its own first
        self._unfinished: list[TrialRequest] = []
        self._skipped: list[dict[str, Any]] = []  # duplicates since the last new trial
        self._exhausted = ""

    @property
    def exhausted(self) -> str:
        return self._exhausted

    @property
    def knows_next(self) -> bool:
        """Of a sampler that learns: while it could not know enough trials even if all that were asked for had ended."""
        sampler, startup = self.settings.sampler, self.settings.startup_trials
        return (
            bool(self._unfinished)
            or sampler in ("random", "grid")
            or (sampler in ("tpe", "gp") and self._asks < startup)
        )

    def ask(self) -> TrialRequest | None:
        if self._unfinished:
            return self._unfinished.pop(0)
        self._exhausted = self._why_exhausted()
        if self._exhausted:
            return None
        for _ in range(DUPLICATES_IN_A_ROW):
            if self._grid is not None and self._asks >= len(self._grid) + len(self.settings.first):
                break
            ask, parameters, request = self._propose(self._asks, None)
            if request is not None:
                return request
            self._skipped.append({"ask": ask, "parameters": parameters})
        if len(self._ended) == len(self._requests):
            self._exhausted = (
                f"the last {DUPLICATES_IN_A_ROW} proposals were all configurations that were tried before; "
                f"the search ends after {len(self._requests)} of {self.settings.trials} trials."
            )
        return None

    def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
        result = self._ended[trial] = (state, tuple(values), tuple(last))
        for ask in self._waiting.pop(trial):
            self._tell_study(ask, *result)

    def replay(self, events: Iterable[Event]) -> None:
        """Bring the source to where ``events``, a sweep's whole ledger, leave it. Call before the first ``ask``.

        Trials that were created and never ended are the next to be handed out, with their old ids and numbers.
        Raises OrchError if the ledger's trials do not belong to this space, seed and data.
        """
        values: dict[str, dict[int, tuple[float, ...]]] = {}
        for event in events:
            created = event.data.get("proposal") if event.kind == EventKind.TRIAL and event.trial else None
            if created and "ask" in created:
                self._replay_creation(event.trial, created)
                values[event.trial] = {}
            if event.trial not in self._requests:
                continue
            if event.kind == EventKind.EPOCH and not event.fold:
                found = [event.metrics[name] for name in self.settings.objectives]
                values[event.trial][event.epoch] = tuple(math.nan if value is None else value for value in found)
            elif event.state == TrialState.PENDING:
                values[event.trial] = {e: v for e, v in values[event.trial].items() if e <= event.epoch}
            elif event.state and TrialState(event.state).is_final:
                rows = [row for _, row in sorted(values[event.trial].items())]
                last = rows[-1] if rows else ()
                self.tell(event.trial, TrialState(event.state), [row[0] for row in rows], last)
        self._unfinished = [request for trial, request in self._requests.items() if trial not in self._ended]

    def _replay_creation(self, trial: str, created: Mapping[str, Any]) -> None:
        for skipped in created["skipped"]:
            self._propose(skipped["ask"], skipped["parameters"])
        _, _, request = self._propose(created["ask"], created["parameters"])
        if request is None or request.id != trial:
            raise OrchError(
                f"trial {trial} of the ledger does not belong to this space, seed and data; "
                "give the changed sweep a folder of its own with --out."
            )

    def _why_exhausted(self) -> str:
        used = len(self._requests)
        if used >= self.settings.trials:
            return f"All {self.settings.trials} trials of the budget were handed out."
        if self._size is not None and used >= self._size:
            return f"the space holds {self._size} different configurations and all of them were tried."
        return ""

    def _propose(self, ask: int, parameters: dict[str, Any] | None) -> tuple[int, dict[str, Any], TrialRequest | None]:
        """Ask number ``ask``, with ``parameters`` given in a replay: what was proposed, None for a duplicate."""
        if ask != self._asks:
            raise OrchError(f"the ledger misses proposal {self._asks}; restore it from a copy.")
        self._asks += 1
        parameters, values = self._suggest(ask, parameters)
        config = canonical({**values, "epochs": self.settings.epochs})
        trial = trial_id(config, self.settings.seed, self.settings.fingerprint)
        if trial in self._ended:
            self._tell_study(ask, *self._ended[trial])
            return ask, parameters, None
        if trial in self._requests:
            self._waiting[trial].append(ask)
            return ask, parameters, None
        proposal = {"ask": ask, "parameters": parameters, "skipped": self._skipped}
        self._skipped = []
        request = TrialRequest(trial, "", len(self._requests) + 1, self._make_job(trial, config), proposal)
        self._requests[trial] = request
        self._waiting[trial] = [ask]
        return ask, parameters, request

    def _suggest(self, ask: int, given: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Parameters and the values that they resolve to, drawn by the sampler unless ``given`` or among the first."""
        first = self.settings.first
        if given is None and ask < len(first):
            given = self.space.parameters_for(first[ask])
        if self._grid is not None:
            values = self._grid[ask - len(first)] if given is None else self.space.resolve(lambda name, _: given[name])
            return given or self.space.parameters_for(values), dict(values)
        learns_by_asking = self.settings.sampler == "cmaes"
        self._study.sampler = self._sampler(ask) if given is None or learns_by_asking else _any_sampler()
        if given is not None:
            self._study.enqueue_trial(given)
        trial = self._trials[ask] = self._study.ask()
        if given is not None and learns_by_asking:
            _ = trial.relative_params  # sampled, so that the sampler's state moves on, and not used
        values = self.space.resolve(lambda name, domain: _pick(trial, name, domain))
        return dict(trial.params), values

    def _tell_study(self, ask: int, state: TrialState, values: Sequence[float], last: Sequence[float]) -> None:
        if self._grid is not None:
            return
        several = len(self.settings.objectives) > 1
        finite = [(epoch, value) for epoch, value in enumerate(values, start=1) if math.isfinite(value)]
        complete = [*last] if several else [*values[-1:]]
        if state == TrialState.COMPLETED and complete and all(map(math.isfinite, complete)):
            self._study.tell(ask, complete)
        elif state in (TrialState.PRUNED, TrialState.STOPPED) and finite:
            for epoch, value in () if several else finite:
                self._trials[ask].report(value, epoch)
            self._study.tell(ask, state=OptunaState.PRUNED)
        else:
            self._study.tell(ask, state=OptunaState.FAIL)

    def _sampler(self, ask: int) -> optuna.samplers.BaseSampler:
        """A fresh sampler, seeded for ask number ``ask``."""
        digest = hashlib.sha256(f"{self.settings.seed}:{ask}".encode()).digest()
        seed, startup = int.from_bytes(digest[:4], "big"), self.settings.startup_trials
        try:
            return _build_sampler(self.settings.sampler, seed, startup, self.space.is_conditional)
        except ImportError as error:
            raise OrchError(
                f"the sampler {self.settings.sampler} needs a library that is not installed ({error.name or error}); "
                f"install it with: pip install 'orch[{self.settings.sampler}]', or use the sampler tpe."
            ) from error


def _build_sampler(name: str, seed: int, startup: int, conditional: bool) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`, since Optuna 2.8
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, group=conditional, constant_liar=True
            )
    if name in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "cmaes":
        import cmaes  # noqa: F401  (Optuna imports it late; missing, it must be said at once)

        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    if name == "gp":
        import torch  # noqa: F401  (Optuna imports it late; missing, it must be said at once)

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
    raise OrchError(f"there is no sampler {name!r}; known are {', '.join(SAMPLERS)}.")


def _any_sampler() -> optuna.samplers.BaseSampler:
    """For asks whose parameters are all given."""
    return optuna.samplers.RandomSampler(seed=0)


def _pick(trial: optuna.Trial, name: str, domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return trial.suggest_categorical(name, domain.options)
    if isinstance(domain, Uniform):
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, IntRange):
        return trial.suggest_int(name, domain.low, domain.high, step=domain.step, log=domain.log)
    raise OrchError(f"{name} is {domain} and leaves nothing to choose.")


def _shuffled_grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """Every distinct combination once, in an order that depends on ``seed`` alone. Raises OrchError if too many."""
    distinct: dict[TrialConfig, dict[str, Any]] = {}
    for values in space.grid():
        distinct.setdefault(canonical(values), values)
        if len(distinct) > LARGEST_COUNTED:
            raise OrchError(
                f"the grid holds more than {LARGEST_COUNTED} combinations; shorten its lists, or use the sampler "
                "random or tpe."
            )
    combinations = list(distinct.values())
    random.Random(seed).shuffle(combinations)
    return combinations


class FixedTrials:
    """A ``TrialSource`` of given trials in the given order: named configurations, or the final retraining."""

    def __init__(self, requests: Sequence[TrialRequest]) -> None:
        self._left = list(requests)
        self.results: dict[str, TrialState] = {}

    @property
    def exhausted(self) -> str:
        return "" if self._left else "All of the listed trials were handed out."

    @property
    def knows_next(self) -> bool:
        return True

    def ask(self) -> TrialRequest | None:
        return self._left.pop(0) if self._left else None

    def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
        self.results[trial] = state

    def replay(self, events: Iterable[Event]) -> None:
        """Leave out the trials that ended in an earlier process; the others are handed out again."""
        wanted = {request.id for request in self._left}
        for event in events:
            if event.kind == EventKind.TRIAL and event.trial in wanted and TrialState(event.state).is_final:
                self.results[event.trial] = TrialState(event.state)
        self._left = [request for request in self._left if request.id not in self.results]
