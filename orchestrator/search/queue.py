"""The trials that wait for a worker, and the prefills that they wait for.

Holds the state that ``next_step`` decides on. Knows neither Ray nor the ledger.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from orchestrator.search.next_step import (
    NO_FEATURES,
    FeatureSet,
    StartPrefill,
    WaitingTrial,
    feature_set_of,
    may_ask,
    next_step,
    trace_key,
)
from orchestrator.search.source import TrialRequest, TrialSource


@dataclass
class LiveTrial:
    """A trial that was requested and has not ended. ``trial``: Tune's trial, once it exists.

    ``active``: it holds or waits for a slot. ``kept``: epochs that the ledger has and that the trial, resumed from its
    checkpoint, reports again. ``values``: epoch -> value of each objective.
    """

    request: TrialRequest
    attempt: int
    trial: Any = None
    active: bool = True
    kept: int = 0
    values: dict[int, tuple[float, ...]] = field(default_factory=dict)


@dataclass
class PrefillJob:
    """A worker that fills ``features`` for the trial of ``request`` and all others that read them."""

    request: TrialRequest
    features: FeatureSet
    trial: Any = None


class TrialQueue:
    """Trials in the order of their requests, and running prefills.

    ``waiting``: trials that wait for a worker or a prefill. ``prefills``: Tune's id -> running prefill. With
    ``prefill`` False there are no prefills, and the trial that was requested runs next.
    """

    def __init__(self, prefill: bool) -> None:
        self.waiting: list[LiveTrial] = []
        self.prefills: dict[str, PrefillJob] = {}
        self._prefill = prefill
        self._needs: list[WaitingTrial] = []  # parallel to ``waiting``
        self._settled: set[FeatureSet] = {NO_FEATURES}
        self._warm_trace: tuple[Any, ...] | None = None

    def may_ask(self, source: TrialSource, active: int, slots: int) -> bool:
        """Return whether ``source`` may be asked for one more trial while ``active`` run; a slot must be free."""
        if not self._prefill:
            return not self.waiting
        return may_ask(len(self.waiting), active, slots, source.knows_next)

    def add(self, live: LiveTrial) -> None:
        """Append a requested trial."""
        job = live.request.job
        self.waiting.append(live)
        self._needs.append(
            WaitingTrial(feature_set_of(job), trace_key(job)) if self._prefill else WaitingTrial(NO_FEATURES)
        )

    def next(self, tune_id: str, may_prefill: bool) -> LiveTrial | PrefillJob | None:
        """Return the trial or the prefill to start, which then runs as ``tune_id``; None if there is none."""
        filling = Counter(prefill.features for prefill in self.prefills.values())
        step = next_step(self._needs, self._settled, filling, self._warm_trace, may_prefill)
        if step is None:
            return None
        needs = self._needs[step.place]
        if isinstance(step, StartPrefill):
            prefill = self.prefills[tune_id] = PrefillJob(self.waiting[step.place].request, needs.features)
            return prefill
        del self._needs[step.place]
        return self.waiting.pop(step.place)

    def trial_ended(self, live: LiveTrial) -> None:
        """Note that the worker of ``live`` is free, and warm for trials of the same trace."""
        self._warm_trace = trace_key(live.request.job) if self._prefill else None

    def prefill_ended(self, tune_id: str) -> PrefillJob:
        """Remove a prefill; its trials may start, whether it completed or failed."""
        prefill = self.prefills.pop(tune_id)
        self._settled.add(prefill.features)
        return prefill
