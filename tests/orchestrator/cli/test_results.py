"""`orch status` and `orch show`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import app
from tests.support.sweep_on_disk import write_sweep


def test_show_and_status_read_the_folder_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(here / "runs" / "tiny")
    assert app.run(["show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stage"] == "finished"
    assert app.run(["show", "tiny"]) == 0
    assert "winner/ensemble" in capsys.readouterr().out
    assert app.run(["status", "runs/tiny"]) == 0
    assert "tiny: finished" in capsys.readouterr().out
