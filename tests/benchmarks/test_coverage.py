"""The simulation of coverage: its truths, its grid, and a few small cells."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy.stats import t

from benchmarks.common.coverage_floor import smallest_width
from benchmarks.common.coverage_page import PAGE, TABLE_HERE, TEXT, page
from benchmarks.coverage import RESULTS, SMALL, Cell, draw, grid, group_of, latent_correlation, main, simulate
from benchmarks.coverage_tuning import tuning_grid


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
    figures = {"coverage": 0.95, "width": 1.0, "false_positives": 0.05, "groups": 12.0}
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


def test_what_is_too_wide_is_told_from_what_cannot_be_narrower():
    figures = {"coverage": 0.98, "width": 1.4, "groups": 12.0}
    row = dataclasses.asdict(SMALL[0])
    floors = (0.0, 1.25, 1.5)
    rows = [row | {"mean_accuracy": figures | {"floor": floor}} for floor in floors]
    rows.append(row | {"mean_accuracy": figures | {"groups": 3.0}})
    rows = [each | {"macro_f1": figures, "difference": figures, "equal": figures, "policy": figures} for each in rows]
    line = next(each for each in page(TABLE_HERE, rows).splitlines() if each.startswith("| accuracy ("))
    assert line.endswith("| 4 | 3 | 4 | 1 | 2 |")


def test_the_floor_of_a_width_is_that_of_students_t_where_networks_rule():
    """Then h = t s: a mean width of t sqrt(2 / k) gamma((k + 1) / 2) / gamma(k / 2) / 1.96 times the best."""
    for df, level in ((2, 0.95), (2, 0.93), (4, 0.93)):
        mean = np.sqrt(2 / df) * math.gamma((df + 1) / 2) / math.gamma(df / 2)
        expected = t.ppf((1 + level) / 2, df) * mean / 1.959964
        assert smallest_width(df, 1.0, 2.0, level) == pytest.approx(expected, rel=0.02)
    assert smallest_width(2, 1.0, 0.0, 0.93) > smallest_width(2, 3.0, 0.0, 0.93) > 0.9
    assert smallest_width(2, 50.0, 0.0, 0.93) == 0


def test_the_tuning_grid_shares_no_cell_with_the_reported_one():
    cells = tuning_grid()
    assert len(cells) > 300
    assert len(set(cells)) == len(cells)
    assert not {each.photos for each in cells} & {each.photos for each in grid()}
    assert not set(cells) & set(SMALL)
