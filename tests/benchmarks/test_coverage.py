"""The simulation of coverage: its truths, its grid, and a few small cells."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.common.coverage_page import PAGE, TABLE_HERE, TEXT, page
from benchmarks.coverage import RESULTS, SMALL, Cell, draw, grid, group_of, latent_correlation, main, simulate


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


def test_the_page_is_that_of_the_stored_cells_and_names_each_miss():
    rows = json.loads(RESULTS.read_text())
    assert [tuple(row[f.name] for f in dataclasses.fields(Cell)) for row in rows] == list(
        map(dataclasses.astuple, grid())
    )
    text = page(TEXT.read_text(), rows)
    assert PAGE.read_text() == text, "run python -m benchmarks.coverage"
    assert text.count("\n| ") > len(rows)
    for row in rows:
        if len(groups := set(group_of(Cell(*(row[f.name] for f in dataclasses.fields(Cell)))))) >= 10:
            assert row["networks"] < 3 or row["mean_accuracy"], (row, len(groups))


def test_a_miss_is_listed_with_its_setting():
    figures = {"coverage": 0.95, "width": 1.0, "false_positives": 0.05}
    names = ("mean_accuracy", "difference", "equal", "policy", "macro_f1")
    good = dataclasses.asdict(SMALL[0]) | {name: figures for name in names}
    bad = dataclasses.asdict(SMALL[3]) | {name: figures | {"coverage": 0.92} for name in names[:1]}
    bad |= {"difference": figures | {"false_positives": 0.08}} | {name: {} for name in names[2:]}
    text = page(TABLE_HERE, [good, bad])
    setting = "380 photos of accuracy 0.9, groups of 4 at 0.2, 3 networks at 1.5 points"
    assert f"accuracy (mean over networks): {setting} (coverage 92.0 %)." in text
    assert f"one better: {setting} (false positives 8.0 %)." in text
    assert "- macro F1 (one network): none." in text
    assert "| 380 | 3 | 0.9 | 4 | 0.2 | 1.5 | 92.0 / 1.00 / 5.0 | 95.0 / 1.00 / 8.0 |  |  |  |" in text
