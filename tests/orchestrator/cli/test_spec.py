"""`orch check`, `orch schema` and `orch spaces`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import app
from tests.support.places import ROOT
from tests.support.typed import SPEC


def test_check_says_what_the_file_asks_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text(SPEC)
    assert app.run(["check", "a.yaml", "--set", "budget.trials=1"]) == 0
    said = capsys.readouterr().out
    assert said == "a.yaml: all right. The sweep tiny: 1 trial of at most 3 epochs, out of 2 configurations.\n"


def test_check_tells_every_mistake_with_its_place(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text(SPEC.replace("small_cnn", "small_cn").replace("epochs: 3", "epochs: 0"))
    assert app.run(["check", "a.yaml"]) == 2
    said = capsys.readouterr().err
    assert "a.yaml:3:" in said
    assert "small_cnn" in said
    assert "a.yaml:4:" in said


def test_schema_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["schema"]) == 0
    assert "search" in json.loads(capsys.readouterr().out)["properties"]


def test_spaces_lists_each_shipped_file_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((ROOT / "search_spaces").glob("*.yaml"))
    assert app.run(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [file.stem for file in files]
    assert len(lines) >= 1
    assert all(len(line.split()) > 3 for line in lines)
