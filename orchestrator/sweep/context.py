"""What the stages of one sweep share while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.ledger.kept import FILES, KeptFiles, checksums
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import SweepState, derive
from orchestrator.paths import SweepPaths, cache_folder
from orchestrator.spec.slots import gpus_of
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig
from trainers.contract import Distillation, FitJob


@dataclass(frozen=True)
class SweepContext:
    """The sweep's folder, spec and ledger. A stage reads them, does what is missing and records events.

    ``on_event``: callback for each event recorded. ``share``: whether trials share their frozen parts; if not, each
    runs its own in every epoch.
    """

    paths: SweepPaths
    spec: SweepSpec
    ledger: Ledger
    on_event: Callable[[Event], None]
    share: bool = True

    def record(self, kind: EventKind, **values: Any) -> Event:
        """Append an event to the ledger, and pass it to ``on_event``."""
        event = self.ledger.append(kind, **values)
        self.on_event(event)
        return event

    def note(self, stage: Stage, text: str) -> None:
        """Record what no other event says."""
        self.record(EventKind.NOTE, stage=stage, payload={"text": text})

    def warn(self, sentence: str) -> None:
        """Record a warning."""
        self.record(EventKind.NOTE, reason=sentence)

    def keep(self, files: Iterable[Path]) -> None:
        """Record the checksums of ``files``, which were just written."""
        self.record(EventKind.NOTE, payload={FILES: checksums(self.paths, files)})

    def kept(self) -> KeptFiles:
        """Return the folder's files with the checksums recorded so far."""
        return KeptFiles.of(self.paths, self.ledger.events())

    def state(self) -> SweepState:
        return derive(self.ledger.events())

    def gpus_per_trial(self) -> float:
        """Return what ``resources.gpus`` comes to on this cluster. Ray must be up."""
        from orchestrator.cluster.ray_session import machine_resources  # Ray: seconds to import

        return gpus_of(self.spec.resources.gpus, machine_resources().gpus)

    def fit_job(
        self,
        fit_id: str,
        config: TrialConfig,
        seed: int,
        splits: tuple[str, ...],
        start_seed: int | None = None,
        distillation: Distillation | None = None,
    ) -> FitJob:
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
            start_seed=start_seed,
            distillation=distillation,
        )
