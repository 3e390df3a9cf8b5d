"""Sample trials from a space with Optuna. The only module that imports Optuna.

The study lives in memory and the ledger is authoritative: ``OptunaSampler.replay`` repeats the asks and tells of the
ledger's events. Ask n draws from a new sampler seeded with (seed, n), so an interrupted sweep proposes what an
uninterrupted one would have, given the same results.
"""

from __future__ import annotations

import hashlib
import math
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState as OptunaState

from orchestrator.errors import OrchError
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.state import TrialState
from orchestrator.objectives import ACCURACY, OBJECTIVES
from orchestrator.search.next_step import DUPLICATES_IN_A_ROW, known_ahead
from orchestrator.search.source import TrialRequest
from orchestrator.spec.sections.budget import SAMPLERS
from orchestrator.spec.space.domains import Choice, Domain, IntRange, Uniform
from orchestrator.spec.space.space import LARGEST_COUNTED, Space
from trainers.config import TrialConfig, canonical, trial_id
from trainers.contract import FitJob


@dataclass(frozen=True)
class SamplerSettings:
    """``trials``: number of distinct configurations, including earlier runs. ``first``: configurations tried first.

    ``startup_trials``: random trials before tpe, gp or cmaes learn. ``data``: what identifies the photos and splits.
    ``objectives``: with several the sampler searches for the Pareto front.
    """

    trials: int
    epochs: int
    seed: int
    data: str
    sampler: str = "tpe"
    startup_trials: int = 10
    first: tuple[Mapping[str, Any], ...] = ()
    objectives: tuple[str, ...] = (ACCURACY,)


MakeJob = Callable[[str, TrialConfig], FitJob]
"""(trial id, configuration) -> its job, without threads and GPU share, which the search sets."""


class OptunaSampler:
    """A ``TrialSource`` over a space.

    Configurations with equal canonical forms are trained once: a proposal that repeats a finished trial gets that
    trial's result, one that repeats a running trial gets it when that trial ends, and another is asked for at once.
    COMPLETED becomes Optuna's COMPLETE with the last epoch's value (FAIL if that value is not finite), PRUNED becomes
    PRUNED with each epoch's value, FAILED becomes FAIL. Optuna has no STOPPED: with at least one epoch it becomes
    PRUNED, from which the sampler can learn, without one FAIL.

    With several objectives COMPLETE has a value of each, and FAIL replaces it if one is not finite. Optuna takes
    intermediate values for one objective only, so PRUNED has none. tpe counts such trials among the bad ones once it
    has enough COMPLETE ones; gp, as with one objective, learns from COMPLETE alone.

    grid visits all combinations once in an order shuffled by ``seed`` and does not learn.
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
        self._waiting: dict[str, list[int]] = {}  # trial -> asks without a result, its own first
        self._unfinished: list[TrialRequest] = []
        self._skipped: list[dict[str, Any]] = []  # duplicates since the last new trial
        self._exhausted = ""

    @property
    def exhausted(self) -> str:
        return self._exhausted

    @property
    def knows_next(self) -> bool:
        return bool(self._unfinished) or self._asks < known_ahead(self.settings.sampler, self.settings.startup_trials)

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
                f"the last {DUPLICATES_IN_A_ROW} proposals were all of known configurations; "
                f"the search ends after {len(self._requests)} of {self.settings.trials} trials."
            )
        return None

    def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
        result = self._ended[trial] = (state, tuple(values), tuple(last))
        for ask in self._waiting.pop(trial):
            self._tell_study(ask, *result)

    def replay(self, events: Iterable[Event]) -> None:
        """Restore the state after ``events``, a sweep's whole ledger. Call before the first ``ask``.

        ``ask`` returns trials that were created and never ended first, with their old ids and numbers.
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
            return f"All {self.settings.trials} trials of the budget were started."
        if self._size is not None and used >= self._size:
            return f"the space holds {self._size} different configurations and all of them were tried."
        return ""

    def _propose(self, ask: int, parameters: dict[str, Any] | None) -> tuple[int, dict[str, Any], TrialRequest | None]:
        """Make ask number ``ask``; a replay gives its ``parameters``. The request is None for a duplicate."""
        if ask != self._asks:
            raise OrchError(f"the ledger misses proposal {self._asks}; restore it from a copy.")
        self._asks += 1
        parameters, values = self._suggest(ask, parameters)
        config = canonical({**values, "epochs": self.settings.epochs})
        trial = trial_id(config, self.settings.seed, self.settings.data)
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
        """Return parameters and their resolved values, sampled unless ``given`` or among the first."""
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
            _ = trial.relative_params  # sampled to advance the sampler's state; not used
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
        """Return a new sampler, seeded for ask number ``ask``."""
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
        import cmaes  # noqa: F401  (Optuna imports it later; fail early if it is missing)

        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    if name == "gp":
        import torch  # noqa: F401  (Optuna imports it later; fail early if it is missing)

        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup)
    raise OrchError(f"there is no sampler {name!r}; known are {', '.join(SAMPLERS)}.")


def _any_sampler() -> optuna.samplers.BaseSampler:
    """Return a sampler for asks whose parameters are all given."""
    return optuna.samplers.RandomSampler(seed=0)


def _pick(trial: optuna.Trial, name: str, domain: Domain) -> Any:
    if isinstance(domain, Choice):
        return trial.suggest_categorical(name, domain.options)
    if isinstance(domain, Uniform):
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    if isinstance(domain, IntRange):
        return trial.suggest_int(name, domain.low, domain.high, step=domain.step, log=domain.log)
    raise OrchError(f"{name} is {domain} and has nothing to sample.")


def _shuffled_grid(space: Space, seed: int) -> list[dict[str, Any]]:
    """Return every distinct combination, shuffled by ``seed``. Raises OrchError if there are too many."""
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
