"""`orch sweep`, as typed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import app
from orchestrator.sweep import pipeline
from tests.support.sweep_on_disk import write_sweep


def _requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []
    monkeypatch.setattr(pipeline, "sweep", lambda request, reporter: seen.append(request))
    return seen


def test_sweep_hands_its_options_on_as_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _requests(monkeypatch)
    line = ["sweep", "a.yaml", "--set", "budget.trials=5", "--set", "data.seed=1", "--out", "there", "--hours", "1.5"]
    assert app.run([*line, "--until", "search", "--address", "auto", "--trials", "7"]) == 0
    (request,) = seen
    assert (request.spec_source, request.overrides) == ("a.yaml", ("budget.trials=5", "data.seed=1"))
    assert (request.out, request.hours, request.until, request.address) == (Path("there"), 1.5, "search", "auto")
    assert (request.trials, request.fresh, request.resume) == ("7", False, False)


def test_resume_without_a_file_goes_on_with_the_newest_unfinished_sweep(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = _requests(monkeypatch)
    write_sweep(here / "runs" / "done")
    assert app.run(["sweep", "--resume"]) == 1
    assert "there is no unfinished sweep" in capsys.readouterr().err
    write_sweep(here / "runs" / "half", ended="INTERRUPTED")
    assert app.run(["sweep", "--resume"]) == 0
    assert (seen[0].out, seen[0].resume, seen[0].spec_source) == (Path("runs/half"), True, None)
    assert app.run(["sweep", "--resume", "--out", "runs/done", "--trials", "+20"]) == 0
    os.utime(here / "runs" / "done" / "ledger", (2e9, 2e9))
    assert app.run(["sweep", "--resume", "--trials", "+5"]) == 0
    assert seen[2].out == Path("runs/done")
    assert (seen[1].out, seen[1].trials) == (Path("runs/done"), "+20")
