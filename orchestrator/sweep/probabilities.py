"""Probabilities of finished fits: computed once by workers, stored by fit, split and crop policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from orchestrator.errors import OrchError
from orchestrator.paths import SweepPaths, cache_folder, command_line
from orchestrator.spec.slots import Resources, at_once
from orchestrator.sweep.context import SweepContext
from trainers.data.manifest import Manifest
from trainers.images.policies import distinct_crops
from trainers.serving.parts import PredictionPart, divide_rows, write_whole

MODELS_AT_ONCE = 8
"""Maximum networks that one job holds in memory; a sweep of many configurations has dozens of one prefix."""
FEWEST_CROPS = 400
"""Minimum crops for a worker: opening the networks takes a second or two, as do these crops in a small network."""


def predict_missing(
    sweep: SweepContext, groups: Sequence[Sequence[str]], split: str, before: Callable[[int], None] = lambda jobs: None
) -> None:
    """Compute the probabilities that the folder lacks, under every crop policy of the spec.

    With folds the split "validation" is all of them: each of a trial's networks predicts the fold that it did not see.

    Each group holds fits of one prefix (the frozen part), which sees each distinct crop once for ``MODELS_AT_ONCE`` of
    them. The images of a job are divided among the workers; its files are written when all its parts are there.
    ``before`` is called with the number of jobs if there are any.
    """
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import
    from orchestrator.cluster.ray_session import machine_resources

    jobs = [job for fits in groups for job in missing_jobs(sweep, fits, split)]
    if not jobs:
        return
    before(len(jobs))
    cpus, gpus = sweep.spec.resources.cpus, sweep.gpus_per_trial()
    workers = at_once(machine_resources(), Resources(cpus, gpus))
    images = _images(Manifest.read(sweep.paths.manifest), split)
    jobs.sort(key=lambda job: -len(distinct_crops(job["policies"])))  # the longest first
    parts = [
        {**job, "part": part, "gpu_memory_share": min(1.0, gpus)}
        for job in jobs
        for part in divide_rows(images, len(distinct_crops(job["policies"])), workers, FEWEST_CROPS)
    ]
    collected: dict[str, list[PredictionPart]] = {}

    def collect(index: int, part: PredictionPart) -> None:
        outputs = parts[index]["outputs"]
        name = min(file for files in outputs.values() for file in files.values())
        collected.setdefault(name, []).append(part)
        if sum(len(p.labels) for p in collected[name]) == images:
            write_whole(outputs, collected.pop(name))

    run_jobs("trainers.serving.predict:predict", parts, cpus, collect, gpus, tell=sweep.warn)


def _images(manifest: Manifest, split: str) -> int:
    """Count the images that a job on ``split`` predicts."""
    return len(manifest.split("train" if manifest.folds and split == "validation" else split).table)


def missing_jobs(sweep: SweepContext, fits: Sequence[str], split: str) -> list[dict[str, Any]]:
    """Return the jobs for those of ``fits``, all of one prefix, that lack probabilities under some policy.

    ``outputs``: policy -> fit -> file. Fits that lack the same policies share a job; in a sweep that shares nothing,
    each fit and policy is a job of its own.
    """
    paths = sweep.paths
    lacking: dict[tuple[str, ...], list[str]] = {}
    for fit in fits:
        policies = [p for p in sweep.spec.final.policies if not paths.probabilities(fit, split, p).is_file()]
        for together in [tuple(policies)] if sweep.share else [(policy,) for policy in policies]:
            lacking.setdefault(together, []).append(fit)
    at_once = MODELS_AT_ONCE if sweep.share else 1
    return [
        {
            "models": {fit: str(paths.fit(fit).resolve()) for fit in some},
            "policies": policies,
            "outputs": {
                policy: {fit: str(paths.probabilities(fit, split, policy).resolve()) for fit in some}
                for policy in policies
            },
            "manifest": str(paths.manifest.resolve()),
            "split": split,
            "folds": sweep.spec.data.folds if split == "validation" else 0,
            "cache": str(cache_folder()),
            "share": sweep.share,
            "threads": 1,
            "precision": sweep.spec.resources.precision,
        }
        for policies, lack in lacking.items()
        if policies
        for some in (lack[start : start + at_once] for start in range(0, len(lack), at_once))
    ]


def read_probabilities(paths: SweepPaths, fit: str, split: str, policy: str) -> dict[str, np.ndarray]:
    """Read the arrays of one ``.npz``. Raises OrchError if it is missing."""
    path = paths.probabilities(fit, split, policy)
    if not path.is_file():
        resume = command_line("sweep", "--resume", "--out", paths.root)
        raise OrchError(f"{path} is missing; `{resume}` makes it again.")
    with np.load(path) as stored:
        return dict(stored)
