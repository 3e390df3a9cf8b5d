"""Closed standard streams, and terminals that are gone: real descriptors of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT

OPENED = """
import os, sys
from orchestrator.machine.standard_streams import open_closed_streams
open_closed_streams()
file = open(sys.argv[1], "w")
os.write(2, b"a library's words")
print("to nowhere", file=sys.stderr)
print(file.fileno() > 2, flush=True)
print(os.get_inheritable(2), flush=True)
"""


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ORCH_CACHE": str(folder / "cache"), "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-"])
def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path: Path, closed: str) -> None:
    (tmp_path / "opened.py").write_text(OPENED)
    done = run(tmp_path, f"$PYTHON opened.py file {closed}")
    assert done.returncode == 0
    assert done.stdout.split() == ["True", "True"]
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("check quick 2>&-", 0),
        ("check quick >&- 2>&-", 0),
        ("spaces >&-", 0),
        ("spaces <&- >&- 2>&-", 0),
        ("show nothing 2>&-", 1),
        ("show nothing >&- 2>&-", 1),
    ],
)
def test_a_verb_ends_with_its_own_code_without_standard_streams(tmp_path: Path, line: str, code: int) -> None:
    done = run(tmp_path, f"$PYTHON -m orchestrator {line}")
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
