"""How large a worker has become, and whether a new one should take its place.

TensorFlow gives little back when a network goes: a worker that saw forty backbones holds 4 to 5 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

WORKERS_SHARE = 0.6
"""Of a machine's memory, for all its workers together."""
LEAST_BYTES = 2 * 10**9
"""TensorFlow with one network fits in it; below that, a new worker would be no smaller."""
LEAST_JOBS = 8
"""A worker lives at least so long: where single trials are that large, a new one each time would only cost time."""
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def measure(jobs: int) -> dict[str, int]:
    """This process now, after it took ``jobs``: what ``outgrown`` looks at."""
    return {"rss_bytes": psutil.Process().memory_info().rss, "machine_bytes": machine_bytes(), "jobs": jobs}


def machine_bytes(limit: Path = CGROUP_LIMIT) -> int:
    """Memory of the machine, or of the container that the process is in."""
    total = int(psutil.virtual_memory().total)
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def outgrown(measured: Mapping[str, Any], workers: int) -> bool:
    """Whether the worker that ``measured`` itself takes more than its part, given ``workers`` on its machine."""
    budget = max(LEAST_BYTES, WORKERS_SHARE * measured["machine_bytes"] / max(1, workers))
    return measured["jobs"] >= LEAST_JOBS and measured["rss_bytes"] > budget
