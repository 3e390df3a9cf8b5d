"""The simulation of coverage: its truths, its grid, and a few small cells."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.coverage import SMALL, Cell, draw, grid, group_of, latent_correlation, main, simulate


def test_the_grid_includes_every_extreme():
    cells = grid()
    assert 200 <= len(cells) <= 400
    assert len(set(cells)) == len(cells)
    for name, values in {
        "photos": {100, 5000},
        "networks": {1, 2, 3, 5},
        "accuracy": {0.6, 0.995},
        "group": {1, 20},
        "correlation": {0.0, 0.5},
        "deviation": {0.0, 0.03},
    }.items():
        assert values <= {getattr(cell, name) for cell in cells}, name
    assert not set(SMALL) & set(cells)


def test_the_simulated_answers_have_the_stated_accuracy_correlation_and_deviation():
    cell = Cell(200, 2, 0.9, 4, 0.3, 0.03)
    drawn = draw(cell, group_of(cell), 3000, np.random.default_rng(0))
    for each, accuracy in ((drawn.first, 0.9), (drawn.equal, 0.9), (drawn.policy, 0.9), (drawn.better, 0.92)):
        assert each.mean() == pytest.approx(accuracy, abs=0.002)
    assert drawn.accuracy.std() == pytest.approx(0.03, rel=0.05)
    steady = Cell(200, 1, 0.9, 4, 0.3, 0.0)
    pairs = draw(steady, group_of(steady), 3000, np.random.default_rng(1)).first[:, 0].reshape(-1, 4)
    assert np.corrcoef(pairs[:, 0], pairs[:, 1])[0, 1] == pytest.approx(0.3, abs=0.02)
    assert latent_correlation(0.3, 0.9) > 0.3


def test_small_cells_cover_and_what_is_withheld_is_empty():
    """400 data sets a cell: the standard error of a coverage of 0.95 is 0.011."""
    rows = list(simulate(SMALL, 400))
    assert len(rows) == 6
    assert list(simulate(SMALL, 400, rows)) == []
    *shown, withheld = rows
    assert all(withheld[name] == {} for name in ("mean_accuracy", "difference", "policy", "macro_f1"))
    seen = 0
    for row in shown:
        for name in ("mean_accuracy", "difference", "equal", "policy", "macro_f1"):
            if row[name]:
                seen += 1
                assert row[name]["coverage"] >= 0.91, (row, name)
                assert row[name].get("false_positives", 0) <= 0.09, (row, name)
    assert seen == 23


def test_the_small_mode_prints_and_writes_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("benchmarks.coverage.RESULTS", tmp_path / "none.json")
    monkeypatch.setattr("benchmarks.coverage.SMALL", SMALL[:1])
    assert main(["--small"]) == 0
    assert json.loads(capsys.readouterr().out)["photos"] == 382
    assert not list(tmp_path.iterdir())
