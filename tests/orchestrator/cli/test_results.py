"""`orch status` and `orch show`, as typed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from tests.support.sweep_on_disk import write_sweep
from tests.support.typed import said


def test_show_and_status_read_the_folder_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(here / "runs" / "tiny")
    assert app.run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "finished"
    assert app.run(["show", "tiny"]) == 0
    assert "winner/ensemble" in capsys.readouterr().out
    assert app.run(["status", "runs/tiny"]) == 0
    assert "tiny: finished" in capsys.readouterr().out


def test_a_newer_sweep_that_failed_at_its_data_is_named_and_passed_over(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(write_sweep(here / "runs" / "old").ledger, (1000, 1000))
    with Ledger(here / "runs" / "new" / "ledger") as ledger:
        ledger.append(EventKind.STAGE, stage="data", state="BEGUN")
        ledger.append(EventKind.SWEEP, state="FAILED", reason="no photos.")
    for verb in ("status", "show"):
        assert app.run([verb]) == 0
        words = capsys.readouterr()
        assert words.err == (
            "note     runs/new is newer but has no trials to show: it failed in the stage data: no photos.\n"
        )
        assert words.out.startswith("old: finished")
    shutil.rmtree(here / "runs" / "old")
    assert "new: in the stage data (failed: no photos); not running" in said(capsys, "show")
    assert "it failed" not in said(capsys, "status")
    assert "The newest, runs/new, failed in the stage data: no photos." in said(capsys, "compare", code=1)
