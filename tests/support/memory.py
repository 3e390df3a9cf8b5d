"""Peak memory of a child process, as its own kernel counts it (``getrusage``, mapped files included)."""

from __future__ import annotations

import subprocess
import sys

from tests.support.places import ROOT


def peak_of(code: str, *arguments: object) -> tuple[int, int]:
    """What a process that runs ``code`` counted, and its peak in bytes."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    counted, peak = done.stdout.split()[-2:]
    return int(counted), int(peak)
