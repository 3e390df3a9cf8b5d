"""settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.cluster import checkpoint
from orchestrator.cluster.memory_kills import PatienceSettings
from orchestrator.ledger.stages import Stage
from orchestrator.objectives import ACCURACY
from orchestrator.search.schedulers import SchedulerSettings


@dataclass(frozen=True)
class SearchSettings:
    """How trials run. Paths must be absolute and mean the same on every node.

    ``epochs``: of a full trial; one whose configuration has fewer ends there. ``cpus``, ``gpus``: of one trial; a GPU
    may be shared (0.5). ``concurrent``: trials at once, None for as many as the resources hold. ``retries``: of a trial
    whose worker died or raised. A worker that Ray killed because other programs filled the memory is replaced as often
    as ``patience`` allows.
    ``hours_left_s``: seconds until the search stops. ``target_accuracy``: the search stops once a COMPLETED trial has
    this validation accuracy. ``logs``: one file a trial. ``storage``: Ray's own files, removed at the end.
    ``stage``: what the ledger files the trials under. ``objectives``: the figures that the source is told.
    ``fill``: what a worker calls to fill the store before the trials that read from it start, a dotted name (``FitJob``
    as a dict -> what was done, as a dict); "" to leave that to the trials. ``save_after_s``: training after which a
    trial's state is saved in its job's ``checkpoint``.
    """

    epochs: int
    logs: Path
    storage: Path
    factory: str = "trainers.training.loop:open_fit"
    fill: str = ""
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    cpus: float = 1.0
    gpus: float = 0.0
    concurrent: int | None = None
    retries: int = 2
    hours_left_s: float = math.inf
    target_accuracy: float = math.inf
    stage: Stage = Stage.SEARCH
    address: str = ""
    objectives: tuple[str, ...] = (ACCURACY,)
    save_after_s: float = checkpoint.SAVE_AFTER_S
    patience: PatienceSettings = field(default_factory=PatienceSettings)


@dataclass(frozen=True)
class SearchOutcome:
    """``ended``: why no further trial was started, as a sentence. ``states``: state -> trials of this stage, those of
    earlier processes included. ``started``: trials handed out by this call."""

    ended: str
    started: int
    states: dict[str, int]
    seconds: float
