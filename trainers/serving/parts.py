"""What workers say of parts of a split, put together and written. Free of TensorFlow.

Images are divided among workers; each answers with a ``PredictionPart``. What is kept is whole: one
``.npz`` a model and policy.
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
    """What models say of ``split[start:stop]`` under crop policies.

    ``sha256``: str (n,), ``labels``: int32 (n,). ``probabilities``: policy -> model -> float32 (n, classes).
    ``shared_seconds``: policy -> what all models of the prefix have in common, ``own_seconds``: policy -> model ->
    what comes on top; both as one worker that predicted these images under that policy alone would have needed.
    ``decoded``: images of the part; ``computed`` and ``read``: crops through the prefix, and from the store.
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

    @property
    def stop(self) -> int:
        return self.start + len(self.labels)


def divide_rows(images: int, crops: int, workers: int, fewest_crops: int) -> list[tuple[int, int]]:
    """Up to ``workers`` ranges of ``images`` as equal as can be, of at least ``fewest_crops`` where there are two."""
    parts = max(1, min(workers, images, images * crops // fewest_crops))
    edges = [round(images * i / parts) for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def write_whole(outputs: Mapping[str, Mapping[str, str]], parts: Sequence[PredictionPart]) -> None:
    """Write ``outputs`` (policy -> model -> .npz) of all parts of a split, in any order; each file whole or not at all.

    A file holds ``sha256``, ``probabilities``, ``labels``, ``seconds``, what that model and policy alone would have
    taken one worker, and ``shared_seconds``, the part of it that models of one prefix have in common.
    Raises ValueError where the parts do not follow each other from 0.
    """
    ordered = sorted(parts, key=lambda part: part.start)
    if [part.start for part in ordered] != [0, *(part.stop for part in ordered[:-1])]:
        raise ValueError(f"parts {[(p.start, p.stop) for p in ordered]} do not make up a split")
    for policy, files in outputs.items():
        shared_s = math.fsum(part.shared_seconds[policy] for part in ordered)
        for model, file in files.items():
            arrays = {
                "sha256": np.concatenate([part.sha256 for part in ordered]),
                "probabilities": np.concatenate([part.probabilities[policy][model] for part in ordered]),
                "labels": np.concatenate([part.labels for part in ordered]),
                "seconds": np.float64(shared_s + math.fsum(part.own_seconds[policy][model] for part in ordered)),
                "shared_seconds": np.float64(shared_s),
            }
            write_arrays(Path(file), arrays)
