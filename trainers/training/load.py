"""CPU load of other programs during a measurement. Imports no TensorFlow."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

SAMPLE_S = 0.25
"""Seconds per sample."""
RAYLET = "raylet"
"""Name of the process that starts the workers of a Ray node."""


@dataclass(frozen=True)
class Load:
    """``core_share``: share of a core that a busy thread got. ``others_cores``: cores busy with other programs; NaN if
    unknown. ``cores``: number of cores that this process may use."""

    core_share: float
    others_cores: float
    cores: int


def sample(seconds: float = SAMPLE_S) -> Load:
    """Keep one thread busy for ``seconds`` and measure its share of a core and the load of other programs.

    This process and its descendants are not "other programs"; nor, in a Ray worker, are all workers of the node.
    """
    root = _root()
    busy_s, own_s = _busy_s(), _cpu_s(root)
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    while time.perf_counter() - began_s < seconds:
        pass
    taken_s, got_s = time.perf_counter() - began_s, time.thread_time() - began_cpu_s
    after_s = _cpu_s(root)
    used_s = sum(spent_s - own_s.get(pid, 0.0) for pid, spent_s in after_s.items())
    allowed = cores()
    others = min(max(_busy_s() - busy_s - used_s, 0.0) / taken_s, allowed) if after_s else math.nan
    return Load(min(got_s / taken_s, 1.0), others, allowed)


def mean(loads: Iterable[Load]) -> Load | None:
    """The mean of several samples; None if there are none."""
    known = list(loads)
    if not known:
        return None
    share = sum(load.core_share for load in known) / len(known)
    return Load(share, sum(load.others_cores for load in known) / len(known), max(load.cores for load in known))


def _root() -> psutil.Process:
    """The raylet if this process is one of its workers, else this process."""
    process = psutil.Process()
    try:
        parent = process.parent()
        return parent if parent is not None and parent.name() == RAYLET else process
    except psutil.Error:
        return process


def _cpu_s(root: psutil.Process) -> dict[int, float]:
    """PID -> CPU seconds so far, of ``root`` and its descendants; {} if the system does not report them."""
    found = {}
    try:
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.Error:  # it has ended
                continue
            found[process.pid] = times.user + times.system
    except psutil.Error:
        return {}
    return found


def _busy_s() -> float:
    """CPU seconds of all programs since the machine started, over the cores that this process may use."""
    idle = ("idle", "iowait", "guest", "guest_nice")  # guest time is also counted in "user" and "nice"
    every = psutil.cpu_times(percpu=True)
    return sum(
        sum(every[core]) - sum(getattr(every[core], name, 0.0) for name in idle) for core in _allowed(len(every))
    )


def _allowed(listed: int) -> list[int]:
    """Places of this process's cores among the ``listed`` ones; all of them if some core is offline."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(listed))
    return allowed if allowed[-1] < listed else list(range(listed))


def cores() -> int:
    """Count the cores this process may use; in a container they can be fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
