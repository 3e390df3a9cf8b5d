"""`orch promote best`, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sweep_on_disk import write_sweep
from tests.support.typed import said


def test_what_cannot_be_promoted_is_a_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no finished sweep" in said(capsys, "promote", "best", code=1)
    write_sweep(here / "runs" / "tiny")
    assert "runs/tiny has no finished leaderboard, so no winner" in said(capsys, "promote", "best", "--force", code=1)
