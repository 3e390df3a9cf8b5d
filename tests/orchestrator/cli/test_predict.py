"""`orch predict`, as typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import app


def test_predict_names_what_is_missing_and_asks_which_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["predict", "a.jpg"]) == 3
    assert capsys.readouterr().err == "orch: there is no a.jpg.\n"
    (here / "a.jpg").write_bytes(b"no photo")
    assert app.run(["predict", "a.jpg"]) == 1
    assert "which model?" in capsys.readouterr().err
