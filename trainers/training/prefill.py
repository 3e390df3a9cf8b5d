"""Compute what a fit will read, before it does: a job of its own, so that others train meanwhile."""

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


def fill(job: Mapping[str, Any]) -> dict[str, Any]:
    """Compute everything that the fit of ``job``, a ``FitJob`` as a dict, would read from the store.

    Several workers may be called for one job at once; they share the work. Returns ``what`` (words for a person),
    ``images`` (decoded by this call), ``features`` (rows run through the prefix by this call), ``decode_s``,
    ``prefix_s``, ``waited_s`` (for others, and for the disk), ``bytes`` (written), ``stored`` (False where rows are not
    kept and the prefix runs in every epoch), ``refused`` (why, where it was tried), ``share`` (whether features were
    to be kept) and ``seconds``. Raises TrainerError.
    """
    began = time.perf_counter()
    fit = FitJob.from_dict(job)
    precision = device.prepare(fit.threads, fit.gpu_memory_share, fit.precision)
    manifest = Manifest.read(Path(fit.manifest))
    prefix = prefix_of(fit.config.prefix_key(fit.weights, precision), Path(fit.cache))
    meter, opened = ReadCost(), time.perf_counter()
    fit_examples(fit, manifest, prefix, meter)
    now = time.perf_counter()
    return {
        "what": described(prefix),
        "images": meter.images,
        "features": meter.features,
        "decode_s": meter.decode_s,
        "prefix_s": meter.prefix_s,
        "waited_s": max(now - opened - meter.decode_s - meter.prefix_s, 0.0),
        "bytes": meter.bytes,
        "stored": meter.stored,
        "refused": meter.refused,
        "share": fit.share,
        "seconds": now - began,
    }


def described(prefix: Prefix) -> str:
    """For a person: "mobilenet_1.0 at 224 px to conv_pw_11_relu", or "images at 224 px" where nothing is frozen."""
    key = prefix.key
    if prefix.is_identity:
        return f"images at {key.image_size} px"
    return f"{key.backbone} at {key.image_size} px to {prefix.layer}"
