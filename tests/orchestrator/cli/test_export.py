"""`orch export`, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sweep_on_disk import write_sweep
from tests.support.typed import said


def test_what_cannot_be_exported_is_a_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no finished sweep" in said(capsys, "export", code=1)
    write_sweep(here / "runs" / "half", ended="INTERRUPTED")
    assert "there is no finished sweep" in said(capsys, "export", code=1)
    write_sweep(here / "runs" / "tiny")
    assert "runs/tiny has no finished leaderboard, so no winner" in said(capsys, "export", code=1)
    assert not (here / "runs" / "tiny" / "exports").exists()


def test_formats_and_bounds_are_looked_at_first(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(here / "runs" / "tiny")
    assert "there is no export format 'onx'; did you mean onnx?" in said(capsys, "export", "--to", "onx", code=2)
    assert "no format was given" in said(capsys, "export", "--to", ",", code=2)
    assert "--bound" in said(capsys, "export", "--bound", "2", code=2)
