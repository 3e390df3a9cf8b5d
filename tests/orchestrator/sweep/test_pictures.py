"""What the pictures of a sweep are drawn from, and that one which cannot be drawn costs no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dashboards import figures
from orchestrator.ledger.state import derive
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.leaderboard import Leaderboard
from orchestrator.sweep.pictures import draw_pictures, epochs_frame
from tests.support.photos_on_disk import folder_of, source
from tests.support.printed_lines import PrintedLines
from tests.support.two_trials import two_trials
from trainers.data.build import build_manifest


def test_figures_are_drawn_from_the_search_alone(tmp_path: Path) -> None:
    state = derive(two_trials(tmp_path))
    frame = epochs_frame(state)
    assert frame[["id", "epoch", "state"]].to_numpy().tolist() == [["aaa", 1, "COMPLETED"], ["aaa", 2, "COMPLETED"]]


def test_a_figure_that_cannot_be_drawn_costs_no_other(
    tmp_path: Path,
    open_sweep: Callable[..., SweepContext],
    printed: PrintedLines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unforeseen(Exception):
        pass

    def fail(*arguments: object, **options: object) -> None:
        raise Unforeseen("no such glyph")

    two_trials(tmp_path / "sweep")
    sweep = open_sweep()
    manifest, _ = build_manifest(source(folder_of(tmp_path / "photos", a=10, b=10)))
    test = manifest.split("test")
    labels = test.labels()
    probabilities = np.eye(2)[labels]
    row = {"model": "m", "policy": "whole", "accuracy": 1.0, "accuracy_low": 0.4, "accuracy_high": 1.0, "winner": True}
    monkeypatch.setattr(figures, "leaderboard_figure", fail)
    draw_pictures(sweep, manifest, Leaderboard(pd.DataFrame([row]), probabilities, labels))
    drawn = {path.name for path in sweep.paths.figures.iterdir()}
    assert {"curves.png", "parameters.png", "confusion.png", "mistakes.png"} <= drawn
    assert "leaderboard.png" not in drawn
    assert any("leaderboard.png could not be drawn: no such glyph" in line for line in printed.lines)
