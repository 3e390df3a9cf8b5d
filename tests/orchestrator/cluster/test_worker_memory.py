"""When a worker has grown too large."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cluster.worker_memory import machine_bytes, measure, outgrown

GB = 10**9


@pytest.mark.parametrize(
    ("rss", "machine", "jobs", "workers", "expected"),
    [
        (5 * GB, 16 * GB, 40, 2, True),  # 4.8 GB each
        (4 * GB, 16 * GB, 40, 2, False),
        (5 * GB, 16 * GB, 3, 2, False),  # its trials are large, it has not grown
        (1 * GB, 16 * GB, 40, 64, False),  # TensorFlow alone takes as much
        (3 * GB, 16 * GB, 40, 64, True),
    ],
)
def test_a_worker_may_have_its_part(rss: int, machine: int, jobs: int, workers: int, expected: bool) -> None:
    assert outgrown({"rss_bytes": rss, "machine_bytes": machine, "jobs": jobs}, workers) is expected


def test_memory_is_measured_and_a_container_has_its_own(tmp_path: Path) -> None:
    here = measure(3)
    assert 10**6 < here["rss_bytes"] < here["machine_bytes"]
    assert here["jobs"] == 3
    limit = tmp_path / "memory.max"
    whole = machine_bytes(limit)
    for text, expected in (("max\n", whole), ("1000000\n", 10**6)):
        limit.write_text(text)
        assert machine_bytes(limit) == expected
