"""Lines on a terminal and in a pipe, long ones and ones whose reader has gone."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.ledger.segments import EventKind, read_events
from orchestrator.report.terminal import tell
from tests.support.places import ROOT

GOES_ON = """
import sys
from pathlib import Path
from rich.console import Console
from orchestrator.report.progress import ProgressReporter
reporter = ProgressReporter(Console())
reporter.print_line("begun")
Path("ready").touch()
sys.stdin.read()
for _ in range(3):
    reporter.warn("not read")
print("stdout", flush=True)
print("stderr", file=sys.stderr, flush=True)
Path("gone-on").touch()
"""
SWEEP = """
import sys
from pathlib import Path
from orchestrator.cli import app as cli
from orchestrator.sweep import data
build = data.build_manifest
def once_closed(*given, **named):
    Path("ready").touch()
    sys.stdin.read()
    return build(*given, **named)
data.build_manifest = once_closed
sys.exit(cli.run(["sweep", "quick", "--until", "data", "--set", "tracking.enabled=false"]))
"""


def test_a_line_is_wrapped_on_a_terminal_alone_and_has_no_markup() -> None:
    for terminal, expected in ((True, "see [b] and\n    more\n"), (False, "see [b] and more\n")):
        out = io.StringIO()
        tell(Console(file=out, width=12, force_terminal=terminal, no_color=True), "see [b] and more", 4)
        assert out.getvalue() == expected


def run_without_reader(folder: Path, code: str, kind: str) -> int:
    """Run ``code``, which makes the file "ready" and waits for stdin, on a terminal or pipe that is closed then."""
    reader, writer = pty.openpty() if kind == "terminal" else os.pipe()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ORCH_CACHE": str(folder / "cache"), "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=writer, stderr=writer,
        start_new_session=True,
    )  # fmt: skip
    os.close(writer)
    deadline_s = time.monotonic() + 120
    while not (folder / "ready").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    os.close(reader)
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_the_reporter_goes_on(tmp_path: Path, kind: str) -> None:
    assert run_without_reader(tmp_path, GOES_ON, kind) == 0
    assert (tmp_path / "gone-on").exists()


@pytest.mark.parametrize("kind", ["terminal", "pipe"])
def test_a_sweep_reaches_its_end(tmp_path: Path, kind: str) -> None:
    assert run_without_reader(tmp_path, SWEEP, kind) == 0
    events = read_events(tmp_path / "runs" / "quick" / "ledger")
    assert [event.state for event in events if event.kind == EventKind.SWEEP] == ["RUNNING", "STOPPED"]
