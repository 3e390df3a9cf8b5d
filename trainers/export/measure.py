"""Measure written exports: the probabilities and the latency of each form of a model on every image of a split."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.data.manifest import Manifest
from trainers.export.graph import SERVE_BYTES
from trainers.export.run import Runner
from trainers.files.arrays import write_arrays
from trainers.files.plain import read_plain
from trainers.images.crops import cut
from trainers.serving.model import ServedModel

ORIGINAL = "original"
"""Name of the exported model itself, the reference for all formats."""


@dataclass
class Measured:
    """One form of the model and its predictions so far, one row per image."""

    name: str
    run: Runner
    size_mb: float
    hashes: list[str] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        return {"latency_ms": 1000 * statistics.median(self.seconds), "size_mb": self.size_mb}

    def write(self, file: Path) -> None:
        write_arrays(file, {"sha256": self.hashes, "probabilities": np.array(self.rows)})

    def answer(self, cut: np.ndarray, sha256: str) -> None:
        """Predict the crops of one image, and time it. An untimed call for the first image traces the function."""
        if not self.rows:
            self.run(cut)
        started = time.perf_counter()
        row = self.run(cut).mean(0)
        self.seconds.append(time.perf_counter() - started)
        self.hashes.append(sha256)
        self.rows.append(row)


def run_original(served: ServedModel) -> Runner:
    """Return the model itself as a function of crops."""

    def run(cut: np.ndarray) -> np.ndarray:
        features = served.prefix(cut)
        return np.mean([network.predict(features) for network in served.networks], 0)

    return run


def measure(served: ServedModel, part: Manifest, forms: Sequence[Measured]) -> dict[str, str]:
    """Run every form on every image of ``part``, whose crops are cut once for all forms.

    Returns form -> reason for failure; a form is dropped at its first failure.
    """
    failed: dict[str, str] = {}
    for path, sha256 in zip(part.paths(), part.table["sha256"], strict=True):
        pixels = cut(path, served.image_size, served.view, served.crop_names, sha256)
        for form in forms:
            if form.name in failed:
                continue
            try:
                form.answer(pixels, sha256)
            except Exception as error:  # each vendor's runtime raises its own types
                if form.name == ORIGINAL:
                    raise
                failed[form.name] = f"{form.name} was written but could not be run: {first_line(error)}"
    return failed


def measure_bytes(savedmodel: Path, part: Manifest, file: Path) -> None:
    """Write the predictions of ``serve_bytes`` to ``file``; an image that TensorFlow cannot decode has no row."""
    run = tf.saved_model.load(str(savedmodel)).signatures[SERVE_BYTES]
    hashes, rows = [], []
    for path, sha256 in zip(part.paths(), part.table["sha256"], strict=True):
        try:
            row = run(photos=tf.constant([read_plain(path)]))["probabilities"].numpy()[0]
        except tf.errors.InvalidArgumentError:
            continue
        hashes.append(sha256)
        rows.append(row)
    write_arrays(file, {"sha256": np.array(hashes, str), "probabilities": np.array(rows, np.float32)})


def first_line(error: Exception) -> str:
    """Return the type and the first line of another library's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
