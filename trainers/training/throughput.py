"""Inference throughput of a network on this worker."""

from __future__ import annotations

import time

import numpy as np

from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix

BATCH_IMAGES = 32
MAX_RUNS = 5
BUDGET_S = 3.0
"""Seconds after which no further run starts."""

_measured: dict[Architecture, float] = {}


def images_per_second(prefix: Prefix, network: Network) -> float:
    """Images per second from decoded pixels (uint8) to probabilities, through the prefix and the network.

    The best of up to MAX_RUNS warm batches of BATCH_IMAGES. Measured once per process and architecture: weights and a
    trial's values do not affect it.
    """
    architecture = network.architecture
    if architecture not in _measured:
        size = architecture.prefix.image_size
        images = np.random.default_rng(0).integers(0, 256, (BATCH_IMAGES, size, size, 3), np.uint8)
        network.predict(prefix(images[:1]))
        best_s, started = float("inf"), time.perf_counter()
        for _ in range(MAX_RUNS):
            began = time.perf_counter()
            network.predict(prefix(images))
            best_s = min(best_s, time.perf_counter() - began)
            if time.perf_counter() - started > BUDGET_S:
                break
        _measured[architecture] = BATCH_IMAGES / best_s
    return _measured[architecture]
