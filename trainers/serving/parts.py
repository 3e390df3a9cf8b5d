"""Divide a split among workers, and merge and write their predictions. Imports no TensorFlow.

Each worker returns a ``PredictionPart``; the merged predictions are written as one ``.npz`` per model and policy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.files.arrays import write_arrays


@dataclass(frozen=True)
class PredictionPart:
    """Predictions of several models for ``split[start:stop]`` under several crop policies.

    ``sha256``: str (n,); ``labels``: int32 (n,); ``probabilities``: policy -> model -> float32 (n, classes).
    ``shared_seconds``: policy -> seconds common to all models of the prefix; ``own_seconds``: policy -> model ->
    additional seconds; both as for one worker that predicts these images under that policy only.
    ``decoded``: images decoded; ``computed`` and ``read``: crops run through the prefix, and read from the store.
    ``precision``: the Keras dtype policy of the networks; ``device``: "cpu" or "gpu". "" where it is not known.
    """

    start: int
    sha256: np.ndarray
    labels: np.ndarray
    probabilities: Mapping[str, Mapping[str, np.ndarray]]
    shared_seconds: Mapping[str, float]
    own_seconds: Mapping[str, Mapping[str, float]]
    decoded: int = 0
    computed: int = 0
    read: int = 0
    precision: str = ""
    device: str = ""

    @property
    def stop(self) -> int:
        return self.start + len(self.labels)


def divide_rows(images: int, crops: int, workers: int, fewest_crops: int) -> list[tuple[int, int]]:
    """Divide ``images`` into up to ``workers`` nearly equal ranges, of at least ``fewest_crops`` crops if several."""
    parts = max(1, min(workers, images, images * crops // fewest_crops))
    edges = [round(images * i / parts) for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def write_whole(outputs: Mapping[str, Mapping[str, str]], parts: Sequence[PredictionPart]) -> None:
    """Merge all parts of a split, given in any order, and write ``outputs`` (policy -> model -> .npz) atomically.

    A file holds ``sha256``, ``probabilities``, ``labels``, ``seconds`` (of one worker for that model and policy only)
    and ``shared_seconds`` (the share of it common to all models of the prefix), and the ``precision`` and ``device`` of
    the parts, sorted and joined by commas where workers differ.
    Raises ValueError if the parts are not contiguous from 0.
    """
    ordered = sorted(parts, key=lambda part: part.start)
    if [part.start for part in ordered] != [0, *(part.stop for part in ordered[:-1])]:
        raise ValueError(f"parts {[(p.start, p.stop) for p in ordered]} are not a contiguous split")
    for policy, files in outputs.items():
        shared_s = math.fsum(part.shared_seconds[policy] for part in ordered)
        for model, file in files.items():
            arrays = {
                "sha256": np.concatenate([part.sha256 for part in ordered]),
                "probabilities": np.concatenate([part.probabilities[policy][model] for part in ordered]),
                "labels": np.concatenate([part.labels for part in ordered]),
                "seconds": np.float64(shared_s + math.fsum(part.own_seconds[policy][model] for part in ordered)),
                "shared_seconds": np.float64(shared_s),
                "precision": np.array(",".join(sorted({part.precision for part in ordered}))),
                "device": np.array(",".join(sorted({part.device for part in ordered}))),
            }
            write_arrays(Path(file), arrays)
