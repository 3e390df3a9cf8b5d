"""Probabilities of finished fits: made once by workers, kept per fit, split and crop policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from orchestrator.errors import OrchError
from orchestrator.paths import SweepPaths
from orchestrator.running import RunningSweep
from trainers.policies import policy as find_policy

MODELS_AT_ONCE = 8
"""Networks that one job holds in memory; a sweep of many configurations has dozens of one prefix."""


def predict_missing(
    sweep: RunningSweep, groups: Sequence[Sequence[str]], split: str, before: Callable[[int], None] = lambda jobs: None
) -> None:
    """Write the probabilities of fits that are not in the folder yet, under every crop policy of the spec.

    With folds the split "validation" is all of them: each of a trial's networks predicts the fold that it did not see.

    Each group holds fits of one prefix (the frozen part), which is run once for ``MODELS_AT_ONCE`` of them.
    ``before`` is told the number of jobs, if there is any.
    """
    from orchestrator.cluster import run_jobs  # Ray: seconds to import

    gpus = sweep.gpus_per_trial()
    policies = sweep.spec.final.policies
    jobs = [job for fits in groups for name in policies for job in missing_jobs(sweep, fits, split, name)]
    if jobs:
        before(len(jobs))
        jobs.sort(key=lambda job: -find_policy(str(job["policy"])).crops)  # the longest first
        for job in jobs:
            job["gpu_memory_share"] = min(1.0, gpus)
        run_jobs("trainers.crops:predict", jobs, sweep.spec.resources.cpus, gpus=gpus)


def missing_jobs(sweep: RunningSweep, fits: Sequence[str], split: str, policy: str) -> list[dict[str, Any]]:
    """The jobs for those of ``fits`` without probabilities; [] where none is missing."""
    paths = sweep.paths
    missing = [fit for fit in fits if not paths.probabilities(fit, split, policy).is_file()]
    return [
        {
            "models": {fit: str(paths.fit(fit).resolve()) for fit in some},
            "outputs": {fit: str(paths.probabilities(fit, split, policy).resolve()) for fit in some},
            "manifest": str(paths.manifest.resolve()),
            "split": split,
            "policy": policy,
            "folds": sweep.spec.data.folds if split == "validation" else 0,
            "threads": 1,
            "precision": sweep.spec.resources.precision,
        }
        for some in (missing[start : start + MODELS_AT_ONCE] for start in range(0, len(missing), MODELS_AT_ONCE))
    ]


def read_probabilities(paths: SweepPaths, fit: str, split: str, policy: str) -> dict[str, np.ndarray]:
    """The arrays of one ``.npz``. Raises OrchError where it is not there."""
    path = paths.probabilities(fit, split, policy)
    if not path.is_file():
        raise OrchError(f"{path} is missing; `orch sweep --resume --out {paths.root}` makes it again.")
    with np.load(path) as stored:
        return dict(stored)
