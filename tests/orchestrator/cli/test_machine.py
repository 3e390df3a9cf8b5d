"""`orch doctor`, as typed."""

from __future__ import annotations

import json

import pytest

from orchestrator.cli import app


def test_doctor_speaks_to_programs_too_and_a_problem_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ORCH_DATA", raising=False)
    monkeypatch.delenv("ORCH_WEIGHTS", raising=False)
    assert app.run(["doctor", "--json"]) == 0
    subjects = [finding["subject"] for finding in json.loads(capsys.readouterr().out)]
    assert {"Python", "packages", "cores", "memory", "GPU", "MLflow", "ORCH_DATA"} <= set(subjects)
    monkeypatch.setenv("ORCH_DATA", "/no/such/folder")
    assert app.run(["doctor"]) == 1
    assert "set ORCH_DATA to a folder that exists" in capsys.readouterr().out
