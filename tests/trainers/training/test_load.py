"""The load of other programs, while they really run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator

import pytest

from trainers.training import load
from trainers.training.load import cores, sample

SPIN = "import time; end = time.time() + 20\nwhile time.time() < end: pass"


@contextlib.contextmanager
def other_program(code: str) -> Iterator[None]:
    """Run ``code`` in a process that belongs to another family: its parent ends at once."""
    start = "import subprocess as s, sys; print(s.Popen(sys.argv[1:], stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    command = [sys.executable, "-c", start, sys.executable, "-c", code]
    pid = int(subprocess.run(command, capture_output=True, check=True).stdout)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


def test_other_programs_are_seen_and_own_ones_are_not() -> None:
    before = sample(0.5).others_cores
    own = subprocess.Popen([sys.executable, "-c", SPIN])
    try:
        own_load = sample(0.5)
    finally:
        own.kill()
        own.wait()
    with other_program(SPIN):
        time.sleep(0.2)
        with_others = sample(0.5)
    assert own_load.others_cores < before + 0.4
    assert with_others.others_cores > 0.3
    assert 0 < with_others.core_share <= 1


@pytest.mark.parametrize(("allowed", "busy_s"), [({0}, 3.0), ({1}, 40.0), ({0, 1}, 43.0), ({0, 5}, 43.0)])
def test_only_cores_that_this_process_may_use_count(
    monkeypatch: pytest.MonkeyPatch, allowed: set[int], busy_s: float
) -> None:
    """Core 5 is not listed, as after one was taken offline: then all count."""
    times = namedtuple("times", "user system idle iowait")
    cores = [times(2.0, 1.0, 50.0, 7.0), times(30.0, 10.0, 5.0, 0.0)]
    monkeypatch.setattr(load.psutil, "cpu_times", lambda percpu: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    assert load._busy_s() == busy_s


def test_no_more_cores_than_this_process_may_use() -> None:
    found = sample(0.01)
    assert found.cores == cores() >= 1
    assert 0 <= found.others_cores <= found.cores
