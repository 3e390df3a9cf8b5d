"""How a search runs and how it ended: plain values, without Ray. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.cluster.checkpoint import SAVE_AFTER_S
from orchestrator.cluster.memory_kills import PatienceSettings
from orchestrator.ledger.stages import Stage
from orchestrator.objectives import ACCURACY

ROUNDING = 1e-9
"""Fraction of an epoch by which a rung may exceed a whole epoch through floating point."""


@dataclass(frozen=True)
class SchedulerSettings:
    """When trials are stopped early.

    ``grace_epochs``: minimum epochs of every trial (asha, median). ``reduction_factor``: one in this many trials
    continues at each rung (asha, hyperband). ``min_trials``: minimum number of other trials to compare with (median).
    ``metric``: the objective that trials are stopped by; of several the first, the scheduler ignores the others.

    asha: Li et al. 2020, arXiv 1810.05934. hyperband: Li et al. 2018, arXiv 1603.06560. median: Golovin et al. 2017.
    """

    name: str = "none"
    grace_epochs: int = 1
    reduction_factor: float = 3.0
    min_trials: int = 3
    metric: str = ACCURACY

    def rungs_passed(self, epoch: int) -> int:
        """Return the number of asha's rungs that ``epoch`` has reached; 0 for other schedulers."""
        if self.name != "asha":
            return 0
        return sum(1 for _ in _rungs(self.grace_epochs, self.reduction_factor, epoch))


def rungs(epochs: int, grace_epochs: int, reduction_factor: float) -> list[int]:
    """Return the epochs at which asha decides: grace x reduction^k, rounded up, below ``epochs``.

    The last epoch is no rung: a trial that reaches it is complete.
    """
    found = {math.ceil(epoch - ROUNDING) for epoch in _rungs(grace_epochs, reduction_factor, epochs)}
    return sorted(epoch for epoch in found if epoch < epochs)


def _rungs(grace_epochs: int, reduction_factor: float, last: int) -> Iterator[float]:
    """Yield grace x reduction^k up to ``last``."""
    power = 0
    while (epoch := grace_epochs * reduction_factor**power) <= last:
        yield epoch
        power += 1


@dataclass(frozen=True)
class SearchSettings:
    """How trials run. Paths must be absolute and mean the same on every node.

    ``epochs``: maximum epochs of a trial; a configuration may have fewer. ``cpus``, ``gpus``: of one trial; a GPU may
    be shared (0.5). ``concurrent``: maximum trials at once, None for as many as the resources hold. ``retries``: of a
    trial whose worker died or raised. A worker that Ray killed because other programs filled the memory is replaced as
    often as ``patience`` allows. ``hours_left_s``: seconds until the search stops. ``target_accuracy``: the search
    stops once a COMPLETED trial has this validation accuracy. ``logs``: folder with one file per trial. ``storage``:
    folder of Ray's own files, removed at the end. ``stage``: stage of the trials in the ledger. ``objectives``: the
    objectives that the source gets. ``factory``: dotted name of the function (``FitJob`` -> ``Fit``) of a trial.
    ``fill``: dotted name of the function (``FitJob`` as a dict -> summary as a dict) that fills the store before the
    trials that read from it start; "" leaves that to the trials. ``save_after_s``: seconds of training between two
    saves of a trial's state in its job's ``checkpoint``.
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
    save_after_s: float = SAVE_AFTER_S
    patience: PatienceSettings = field(default_factory=PatienceSettings)


@dataclass(frozen=True)
class SearchOutcome:
    """``ended``: why no further trial was started, as a sentence. ``states``: state -> trials of this stage, including
    those of earlier processes. ``started``: trials that this call requested."""

    ended: str
    started: int
    states: dict[str, int]
    seconds: float
