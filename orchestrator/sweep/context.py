"""What the stages of one sweep share while it is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.ledger.ledger import Ledger, SweepState, derive
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.paths import SweepPaths, cache_folder
from orchestrator.spec.slots import gpus_of
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig
from trainers.contract import FitJob


@dataclass(frozen=True)
class SweepContext:
    """What the stages share: where, what was asked for, the record, and whom to tell.

    ``tell`` prints a line for a person; ``show`` hands an event to whoever watches. ``share``: whether trials share
    what they have in common; without, each runs its frozen part in every epoch.
    """

    paths: SweepPaths
    spec: SweepSpec
    ledger: Ledger
    show: Callable[[Event], None]
    tell: Callable[[str], None]
    share: bool = True

    def record(self, kind: EventKind, **values: Any) -> Event:
        event = self.ledger.append(kind, **values)
        self.show(event)
        return event

    def warn(self, sentence: str) -> None:
        """Record a warning."""
        self.record(EventKind.NOTE, reason=sentence)

    def state(self) -> SweepState:
        return derive(self.ledger.events())

    def gpus_per_trial(self) -> float:
        """What ``resources.gpus`` comes to on what Ray, which must be up, has."""
        from orchestrator.cluster.ray_session import machine_resources  # Ray: seconds to import

        return gpus_of(self.spec.resources.gpus, machine_resources().gpus)

    def fit_job(self, fit_id: str, config: TrialConfig, seed: int, splits: tuple[str, ...]) -> FitJob:
        return FitJob(
            id=fit_id,
            config=config,
            seed=seed,
            manifest=str(self.paths.manifest.resolve()),
            weights=self.spec.weights_for(config.backbone),
            train_splits=splits,
            output=str(self.paths.fit(fit_id).resolve()),
            cache=str(cache_folder()),
            precision=self.spec.resources.precision,
            share=self.share,
            store_dtype=self.spec.resources.store_dtype,
            checkpoint=str(self.paths.checkpoint(fit_id).resolve()),
        )
