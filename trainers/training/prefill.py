"""Compute the rows that a fit will read, as a job of its own, so that other trials can train meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.networks.prefix import Prefix
from trainers.training import device
from trainers.training.features import ReadCost, fit_examples
from trainers.training.steps import prefix_of
from trainers.training.warm_head import head_starts


def fill(job: Mapping[str, Any]) -> dict[str, Any]:
    """Compute all rows that the fit of ``job``, a ``FitJob`` as a dict, would read from the store.

    Several workers may run the same job at once and share the work. Returns ``what`` (a description for people),
    ``images`` (decoded by this call), ``features`` (rows run through the prefix by this call), ``decode_s``,
    ``prefix_s``, ``waited_s`` (for other workers and the disk), ``bytes`` (written), ``stored`` (False if rows are not
    stored and the prefix runs in every epoch), ``refused`` (why storing failed, if it did), ``share`` (whether features
    may be stored) and ``seconds``. Raises TrainerError.
    """
    started = time.perf_counter()
    fit = FitJob.from_dict(job)
    precision = device.prepare(fit.threads, fit.gpu_memory_share, fit.precision)
    manifest = Manifest.read(Path(fit.manifest))
    prefix = prefix_of(fit.config.prefix_key(fit.weights, precision), Path(fit.cache))
    cost, opened = ReadCost(), time.perf_counter()
    fit_examples(fit, manifest, prefix, cost)
    head_starts(fit, manifest, precision, cost)
    now = time.perf_counter()
    return {
        "what": described(prefix),
        "images": cost.images,
        "features": cost.features,
        "decode_s": cost.decode_s,
        "prefix_s": cost.prefix_s,
        "waited_s": max(now - opened - cost.decode_s - cost.prefix_s, 0.0),
        "bytes": cost.bytes,
        "stored": cost.stored,
        "refused": cost.refused,
        "share": fit.share,
        "seconds": now - started,
    }


def described(prefix: Prefix) -> str:
    """Describe a prefix: "mobilenet_1.0 at 224 px to conv_pw_11_relu", or "images at 224 px" if nothing is frozen."""
    key = prefix.key
    if prefix.is_identity:
        return f"images at {key.image_size} px"
    return f"{key.backbone} at {key.image_size} px to {prefix.layer}"
