"""A real, local Ray for the tests of the folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.cluster.ray_session import ray_session, stop_ray


@pytest.fixture(scope="package")
def ray_up() -> Iterator[None]:
    """One Ray for the folder: two cores, and two GPUs that are only declared."""
    stop_ray()
    with ray_session(cpus=2, gpus=2):
        yield
