"""What Ray runs in workers, run in this process one after the other: jobs, and the trials of a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import jobs as cluster_jobs
from orchestrator.cluster import ray_session
from orchestrator.ledger.kept import FILES, checksums, files_below
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import METRICS, Event, EventKind
from orchestrator.ledger.state import TrialState
from orchestrator.paths import SweepPaths
from orchestrator.search import run as search_run
from orchestrator.search.settings import SearchSettings
from orchestrator.search.source import FixedTrials
from orchestrator.spec.slots import Resources
from orchestrator.sweep.context import SweepContext
from trainers.dotted import load_dotted


class InProcess:
    """``calls``: dotted names of the functions called by jobs, in order; ``trained``: names of the trials run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.trained: list[str] = []
        monkeypatch.setattr(cluster_jobs, "run_jobs", self.run_jobs)
        monkeypatch.setattr(search_run, "run_trials", self.run_trials)
        monkeypatch.setattr(ray_session, "machine_resources", lambda: Resources(1, 0))
        monkeypatch.setattr(SweepContext, "gpus_per_trial", lambda self: 0.0)

    def run_jobs(
        self,
        function: str,
        jobs: Sequence[Mapping[str, Any]],
        cpus: float = 1.0,
        on_done: Callable[[int, Any], None] | None = None,
        gpus: float = 0.0,
        **more: Any,
    ) -> list[Any]:
        found = []
        for index, job in enumerate(jobs):
            self.calls.append(function.rpartition(":")[2])
            found.append(load_dotted(function)(dict(job)))
            if on_done is not None:
                on_done(index, found[-1])
        return found

    def run_trials(
        self, source: FixedTrials, settings: SearchSettings, ledger: Ledger, on_event: Callable[[Event], None]
    ) -> None:
        from trainers.training.loop import open_fit

        while (request := source.ask()) is not None:
            self.trained.append(request.name)
            about: dict[str, Any] = {"trial": request.id, "stage": settings.stage}
            created = {"config": request.job.config.to_dict(), "name": request.name, "number": request.number}
            ledger.append(EventKind.TRIAL, state="PENDING", payload=created, **about)
            ledger.append(EventKind.TRIAL, state="RUNNING", **about)
            fit = open_fit(request.job)
            for _ in range(request.job.config.epochs):
                epoch = fit.run_epoch().to_dict()
                figures = {name: epoch[name] for name in METRICS}
                ledger.append(EventKind.EPOCH, epoch=epoch["epoch"], **figures, **about)
            fit.finish()
            written = checksums(SweepPaths(ledger.folder.parent), files_below(Path(request.job.output)))
            ledger.append(EventKind.TRIAL, state="COMPLETED", payload={FILES: written}, **about)
            source.tell(request.id, TrialState.COMPLETED, [])
