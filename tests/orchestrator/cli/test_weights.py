"""`orch weights list` and `orch weights convert`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.typed import said
from trainers.backbones import BACKBONES


def test_the_backbones_and_the_files_that_fit(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("ORCH_WEIGHTS", raising=False)
    (here / "vgg16_weights_no_top.h5").touch()
    found = {row["backbone"]: row["file"] for row in json.loads(said(capsys, "weights", "list", ".", "--json"))}
    assert list(found) == list(BACKBONES)
    assert [name for name, file in found.items() if file] == ["vgg16"]
    assert "vgg16_weights_no_top.h5" in said(capsys, "weights", "list", ".")
    assert "vgg16_weights_no_top.h5" not in said(capsys, "weights", "list")
    assert "nowhere does not exist" in said(capsys, "weights", "list", "nowhere", code=3)


def test_a_file_to_convert_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Missing argument 'FILE'" in said(capsys, "weights", "convert", code=2)
