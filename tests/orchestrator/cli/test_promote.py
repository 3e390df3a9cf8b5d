"""`orch promote best`, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from orchestrator.cli.promote import promote_app
from orchestrator.evaluation.promotion_gate import MARGIN
from tests.support.sweep_on_disk import write_sweep
from tests.support.typed import said


def test_what_cannot_be_promoted_is_a_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no finished sweep" in said(capsys, "promote", "best", code=1)
    write_sweep(here / "runs" / "tiny")
    assert "runs/tiny has no finished leaderboard, so no winner" in said(capsys, "promote", "best", "--force", code=1)


@pytest.mark.parametrize("margin", ["0", "-3", "51", "nan", "inf"])
def test_a_margin_out_of_range_is_a_sentence(here: Path, capsys: pytest.CaptureFixture[str], margin: str) -> None:
    words = said(capsys, "promote", "best", "--margin", margin, code=2)
    assert f"'--margin': found '{margin}'; allowed: a number at least 0.1 and at most 50, such as 3." in words


def test_the_default_margin_is_the_gates() -> None:
    options = typer.main.get_command(promote_app).commands["best"].params  # type: ignore[attr-defined]
    assert {p.name: p.default for p in options}["margin"] == pytest.approx(100 * MARGIN)
