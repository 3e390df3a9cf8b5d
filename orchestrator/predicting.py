"""Probabilities of finished fits: made once by workers, kept per fit, split and crop policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.errors import OrchError
from orchestrator.running import RunningSweep
from orchestrator.paths import SweepPaths
from trainers.policies import policy as find_policy


def predict_missing(sweep: RunningSweep, groups: Sequence[Sequence[str]], split: str) -> None:
    """Write the probabilities of fits that are not in the folder yet, under every crop policy of the spec.

    Each group holds fits of one configuration: they have the same prefix, which is run once for all of them.
    """
    from orchestrator.cluster import run_jobs

    jobs = []
    for fits in groups:
        for name in sweep.spec.final.policies:
            missing = [fit for fit in fits if not sweep.paths.probabilities(fit, split, name).is_file()]
            if missing:
                jobs.append(
                    {
                        "models": {fit: str(sweep.paths.fit(fit).resolve()) for fit in missing},
                        "outputs": {
                            fit: str(sweep.paths.probabilities(fit, split, name).resolve()) for fit in missing
                        },
                        "manifest": str(sweep.paths.manifest.resolve()),
                        "split": split,
                        "policy": name,
                        "threads": 1,
                        "gpu_memory_share": 0.0,
                        "precision": sweep.spec.resources.precision,
                    }
                )
    if jobs:
        jobs.sort(key=lambda job: -find_policy(str(job["policy"])).crops)  # the longest first
        run_jobs("trainers.crops:predict", jobs)


def read_probabilities(paths: SweepPaths, fit: str, split: str, policy: str) -> dict[str, np.ndarray]:
    """The arrays of one ``.npz``. Raises OrchError where it is not there."""
    path = paths.probabilities(fit, split, policy)
    if not path.is_file():
        raise OrchError(f"{path} is missing; `orch sweep --resume --out {paths.root}` makes it again.")
    with np.load(path) as stored:
        return dict(stored)
