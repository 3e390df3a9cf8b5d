"""The load of other programs while this one measures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from trainers.training.load import cores, sample


def test_other_programs_are_seen_and_own_ones_are_not() -> None:
    spin = [sys.executable, "-c", "import time; end = time.time() + 20\nwhile time.time() < end: pass"]
    before = sample(0.5).others_cores
    own = subprocess.Popen(spin)
    try:
        own_load = sample(0.5)
    finally:
        own.kill()
    # Started by a process that ends at once, so that it belongs to another family.
    start = "import subprocess as s, sys; print(s.Popen(sys.argv[1:], stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
    pid = int(subprocess.run([sys.executable, "-c", start, *spin], capture_output=True, check=True).stdout)
    try:
        with_others = sample(0.5)
    finally:
        os.kill(pid, signal.SIGKILL)
    assert own_load.others_cores < before + 0.4
    assert with_others.others_cores > 0.3
    assert 0 < with_others.core_share <= 1


def test_no_more_cores_than_this_process_may_use() -> None:
    found = sample(0.01)
    assert found.cores == cores() >= 1
    assert 0 <= found.others_cores <= found.cores
