"""The command line as a person types it, and a file to name in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from orchestrator.cli import app
from tests.support.places import ROOT

SPEC = """\
name: tiny
data: {source: "builtin:digits"}
search: {backbone: small_cnn, dropout: [0.0, 0.2]}
budget: {trials: 2, epochs: 3}
weights: none
"""


def orch(*line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, as a shell starts it."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "orchestrator", *line]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)


def said(capsys: pytest.CaptureFixture[str], *line: str, code: int = 0) -> str:
    """What a command line prints, in this process; it must end with ``code``."""
    assert app.run([*line]) == code
    written = capsys.readouterr()
    return written.out + written.err
