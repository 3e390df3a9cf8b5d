"""Probabilities of finished fits: computed once by workers, stored by fit, split and crop policy."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.ledger.kept import DamagedFile, FileState, KeptFiles
from orchestrator.paths import cache_folder
from orchestrator.spec.slots import Resources, at_once
from orchestrator.sweep.context import SweepContext
from trainers.data.manifest import Manifest
from trainers.files.arrays import DAMAGED
from trainers.images.policies import distinct_crops
from trainers.serving.model import SERVED_PRECISION
from trainers.serving.parts import PredictionPart, divide_rows, write_whole
from trainers.wording import count

MODELS_AT_ONCE = 8
"""Maximum networks that one job holds in memory; a sweep of many configurations has dozens of one prefix."""
FEWEST_CROPS = 400
"""Minimum crops for a worker: opening the networks takes a second or two, as do these crops in a small network."""


def predict_missing(
    sweep: SweepContext,
    groups: Sequence[Sequence[str]],
    split: str,
    before: Callable[[int, bool], None] = lambda jobs, again: None,
    policies: Sequence[str] = (),
) -> None:
    """Compute the probabilities that the folder lacks, or holds damaged, under ``policies``, by default every crop
    policy of the spec.

    With folds the split "validation" is all of them: each of a trial's networks predicts the fold that it did not see.

    Each group holds fits of one prefix (the frozen part), which sees each distinct crop once for ``MODELS_AT_ONCE`` of
    them. The images of a job are divided among the workers; its files are written when all its parts are there.
    ``before`` is called with the number of jobs if there are any, and whether all of them only repeat what had been
    computed. Raises DamagedFile if a network to predict with is not what was trained.
    """
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import
    from orchestrator.cluster.ray_session import machine_resources

    kept = sweep.kept()
    jobs = [job for fits in groups for job in missing_jobs(sweep, fits, split, kept, policies)]
    if not jobs:
        return
    wanted = [Path(file) for job in jobs for files in job["outputs"].values() for file in files.values()]
    damaged = [file for file in wanted if file.is_file()]
    if damaged:
        sweep.warn(f"{count(len(damaged), 'file')} of probabilities, {damaged[0]} first, cannot be used; made again")
    kept.require(*(file for job in jobs for fit in job["models"] for file in kept.below(sweep.paths.fit(fit))))
    before(len(jobs), all(kept.recorded(file) for file in wanted))
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
            sweep.keep(Path(file) for files in outputs.values() for file in files.values())

    run_jobs("trainers.serving.predict:predict", parts, cpus, collect, gpus, tell=sweep.warn)


def _images(manifest: Manifest, split: str) -> int:
    """Count the images that a job on ``split`` predicts."""
    return len(manifest.split("train" if manifest.folds and split == "validation" else split).table)


def missing_jobs(
    sweep: SweepContext,
    fits: Sequence[str],
    split: str,
    kept: KeptFiles | None = None,
    policies: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return the jobs for those of ``fits``, all of one prefix, that lack usable probabilities under some policy.

    ``outputs``: policy -> fit -> file. Fits that lack the same policies share a job; in a sweep that shares nothing,
    each fit and policy is a job of its own.
    """
    paths, kept = sweep.paths, kept or sweep.kept()
    lacking: dict[tuple[str, ...], list[str]] = {}
    for fit in fits:
        lack = [p for p in policies or sweep.spec.final.policies if not _is_usable(kept, fit, split, p)]
        for together in [tuple(lack)] if sweep.share else [(policy,) for policy in lack]:
            lacking.setdefault(together, []).append(fit)
    at_once = MODELS_AT_ONCE if sweep.share else 1
    return [
        {
            "models": {fit: str(paths.fit(fit).resolve()) for fit in some},
            "policies": together,
            "outputs": {
                policy: {fit: str(paths.probabilities(fit, split, policy).resolve()) for fit in some}
                for policy in together
            },
            "manifest": str(paths.manifest.resolve()),
            "split": split,
            "folds": sweep.spec.data.folds if split == "validation" else 0,
            "cache": str(cache_folder()),
            "share": sweep.share,
            "threads": 1,
            "precision": SERVED_PRECISION,  # what is registered is what was judged
        }
        for together, those in lacking.items()
        if together
        for some in (those[start : start + at_once] for start in range(0, len(those), at_once))
    ]


def _is_usable(kept: KeptFiles, fit: str, split: str, policy: str) -> bool:
    """Whether a file of probabilities is there and whole.

    A file without a checksum is the leftover of a killed process, unless the whole sweep has none.
    """
    path = kept.paths.probabilities(fit, split, policy)
    if not path.is_file() or (kept.recorded(path) is None and kept.since_checksums):
        return False
    try:
        read_probabilities(kept, fit, split, policy)
    except DamagedFile:
        return False
    return True


def read_probabilities(kept: KeptFiles, fit: str, split: str, policy: str) -> dict[str, np.ndarray]:
    """Read the arrays of one ``.npz``. Raises DamagedFile if it is missing or not what was written."""
    path = kept.paths.probabilities(fit, split, policy)
    content = kept.read(path)
    try:
        with np.load(io.BytesIO(content)) as stored:
            arrays = dict(stored)
        rows, labels = arrays["probabilities"], arrays["labels"]
        if rows.ndim == 2 and labels.shape == rows.shape[:1] and np.isfinite(rows).all():
            return arrays
    except DAMAGED as error:  # of a sweep without checksums
        raise kept.damaged(path, FileState.DIFFERENT, "is damaged: it does not hold whole arrays") from error
    raise kept.damaged(path, FileState.DIFFERENT, "is damaged: it does not hold probabilities and their labels")
