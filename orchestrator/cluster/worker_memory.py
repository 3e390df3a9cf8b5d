"""Measure a worker's memory and decide whether to replace it.

TensorFlow frees little when a network is deleted: a worker that has run forty backbones holds 4 to 5 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

WORKERS_SHARE = 0.6
"""Share of a machine's memory for all its workers together."""
LEAST_BYTES = 2 * 10**9
"""Minimum bytes of a worker's budget: TensorFlow with one network, so a new worker would be no smaller."""
LEAST_JOBS = 8
"""Minimum jobs of a worker: if single trials exceed the budget, replacing it after each would only cost time."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def measure(jobs: int) -> dict[str, int]:
    """Return the memory of this process after ``jobs``, for ``outgrown``."""
    return {"rss_bytes": psutil.Process().memory_info().rss, "machine_bytes": machine_bytes(), "jobs": jobs}


def machine_bytes(limit: Path = CGROUP_LIMIT) -> int:
    """Return the memory of the machine, or of the container that the process runs in."""
    total = int(psutil.virtual_memory().total)
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def outgrown(measured: Mapping[str, Any], workers: int) -> bool:
    """Return whether a worker exceeds its share of the memory, given ``workers`` on its machine."""
    budget = max(LEAST_BYTES, WORKERS_SHARE * measured["machine_bytes"] / max(1, workers))
    return measured["jobs"] >= LEAST_JOBS and measured["rss_bytes"] > budget
