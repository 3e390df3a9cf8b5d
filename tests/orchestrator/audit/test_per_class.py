"""Figures of classes that were changed in ``per_class.csv``, and those that the audit computes by itself."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from orchestrator.audit.audit import audit_sweep, leaderboard_record
from orchestrator.audit.checks import DIFFERENT, NOT_CHECKABLE, JudgedSweep
from orchestrator.audit.per_class import class_figures, compare_per_class
from orchestrator.evaluation.per_class import COLUMNS, per_class
from orchestrator.ledger.folder import read_sweep
from orchestrator.paths import SweepPaths
from orchestrator.sweep.leaderboard import STATISTICS
from tests.orchestrator.audit.conftest import write_classes


def differing(sweep: SweepPaths) -> list[str]:
    return [f"{check.part}: {check.what}" for check in audit_sweep(sweep.root).having(DIFFERENT)]


def test_untouched_figures_are_equal(sweep: SweepPaths) -> None:
    checks = [check for check in audit_sweep(sweep.root).checks if check.part == "per_class.csv"]
    assert len(checks) == 1 + len(pd.read_csv(sweep.per_class)) * (len(COLUMNS) - 1)
    assert not [check.sentence() for check in checks if check.state != "equal"]


@pytest.mark.parametrize("column", COLUMNS[1:])
def test_a_changed_digit_is_found(old: SweepPaths, column: str) -> None:
    """Without checksums, so that only the figures tell."""
    write_classes(old)
    assert differing(old) == []
    table = pd.read_csv(old.per_class)
    name = str(table.loc[0, "class"])
    table.loc[0, column] += 1 if column in ("support", "predicted") else 1e-4
    table.to_csv(old.per_class, index=False)
    assert differing(old) == [f"per_class.csv: {name}: {column}"]


def test_another_order_and_a_missing_class_are_found(old: SweepPaths) -> None:
    write_classes(old)
    table = pd.read_csv(old.per_class)
    table.iloc[::-1].to_csv(old.per_class, index=False)
    assert "per_class.csv: classes" in differing(old)
    table.iloc[:-1].to_csv(old.per_class, index=False)
    assert differing(old) == ["per_class.csv: classes"]


def test_torn_and_older_files_are_said(old: SweepPaths) -> None:
    def said() -> list[tuple[str, str]]:
        return [(c.state, c.reason) for c in audit_sweep(old.root).checks if c.part == "per_class.csv"]

    assert said() == [(NOT_CHECKABLE, "the sweep is from before they were written")]
    old.per_class.write_bytes(b"\xff\xfe\x00")
    (found,) = said()
    assert found[0] == DIFFERENT
    assert found[1].startswith("cannot be read")


def test_intervals_of_an_unknown_version_are_left_out(old: SweepPaths) -> None:
    write_classes(old)
    found = read_sweep(old.root)
    record, until = leaderboard_record(found)
    checks = [*compare_per_class(JudgedSweep(found, {**record, "statistics": 99}, until))]
    assert [check.what for check in checks if check.state == NOT_CHECKABLE] == ["intervals"]
    assert not any(check.what.endswith(("_low", "_high")) for check in checks)


@pytest.mark.parametrize("objects", [12, 40, 200])
def test_the_figures_are_those_of_the_leaderboard(objects: int) -> None:
    """In groups, with a class that is never answered, one without photos and one that is neither."""
    draw = np.random.default_rng(objects)
    names = ("a", "b", "c", "never", "absent", "neither")
    groups = [f"g{i}" for i in draw.integers(0, objects, 200)] if objects < 200 else [f"g{i}" for i in range(200)]
    labels = draw.choice([0, 1, 2, 3], 200)
    answers = np.where(draw.random(200) < 0.7, np.minimum(labels, 2), draw.choice([0, 1, 2, 4], 200))
    expected = per_class(labels, answers, names, groups).set_index("class")
    found = class_figures(labels, answers, names, groups, STATISTICS)
    for name in names:
        for column in COLUMNS[1:]:
            assert found[name][column] == pytest.approx(expected.loc[name, column], abs=1e-9, nan_ok=True), name
    assert math.isnan(found["never"]["precision"])
    assert found["never"]["f1"] == 0.0
    assert math.isnan(found["absent"]["recall"])
    assert math.isnan(found["neither"]["f1"])
