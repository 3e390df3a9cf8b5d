"""Run ``orch`` without the right of root to read and write where the mode forbids it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
"""Takes away root's right to write where the mode forbids it."""
needs_modes = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root writes everywhere, and setpriv is missing"
)
OMITTED = ("ORCH_CACHE", "ORCH_DATA", "ORCH_WEIGHTS", "MLFLOW_TRACKING_URI", "TMPDIR", "HOME")
"""Variables of the tests' own environment that ``orch`` does not get."""


def orch(folder: Path, *line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``orch`` in ``folder`` without the rights of root."""
    return powerless(folder, [sys.executable, "-m", "orchestrator", *line], **environment)


def powerless(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in ``folder`` without the rights of root."""
    before = POWERLESS if os.geteuid() == 0 else []
    plain = {name: value for name, value in os.environ.items() if name not in OMITTED}
    return subprocess.run(
        [*before, *command],
        cwd=folder, env={**plain, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True, text=True, check=False, timeout=550,
    )  # fmt: skip
