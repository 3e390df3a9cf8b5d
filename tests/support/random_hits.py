"""Made-up predictions: which of a few hundred images a network has right."""

from __future__ import annotations

import numpy as np

IMAGES = 400


def right(share: float, seed: int, networks: int = 1) -> np.ndarray:
    """Random rows, bool (networks, IMAGES), each True with probability ``share``."""
    return np.random.default_rng(seed).random((networks, IMAGES)) < share
