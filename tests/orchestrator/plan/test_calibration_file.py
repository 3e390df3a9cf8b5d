"""How a calibration is kept and read back, and by which name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.plan.calibration import PartKey
from orchestrator.plan.calibration_file import (
    CalibrationFile,
    calibration_path,
    machine_name,
    read_calibration,
    write_calibration,
)
from orchestrator.spec.slots import Slots
from tests.support.plan_files import SPEED, calibration


def test_kept_and_read_back(tmp_path: Path) -> None:
    made = CalibrationFile(calibration(parts={PartKey("resnet50", 224, 0): SPEED}), frozenset({"a", "b"}))
    file = write_calibration(tmp_path, made)
    assert file.parent == tmp_path / "calibration"
    assert read_calibration(tmp_path, "m") == made
    assert read_calibration(tmp_path, "another machine") is None
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"calibration": {}, "settled": []}', "null", '{"calibration": null, "settled": 3}']
)
def test_a_damaged_file_is_no_calibration(tmp_path: Path, text: str) -> None:
    write_calibration(tmp_path, CalibrationFile(calibration()))
    calibration_path(tmp_path, "m").write_text(text)
    assert read_calibration(tmp_path, "m") is None


def test_a_wild_figure_is_no_calibration(tmp_path: Path) -> None:
    file = write_calibration(tmp_path, CalibrationFile(calibration(parts={PartKey("resnet50", 224, 0): SPEED})))
    raw = json.loads(file.read_text())
    raw["calibration"]["parts"][0]["train_s"] = -1
    file.write_text(json.dumps(raw))
    assert read_calibration(tmp_path, "m") is None


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OrchError, match=r"the calibration cannot be kept in .*set ORCH_CACHE to a folder"):
        write_calibration(blocked, CalibrationFile(calibration()))


def test_a_machine_is_named_by_what_decides_its_speed() -> None:
    one, two = machine_name(Slots(2, 1.0, 0.0)), machine_name(Slots(2, 2.0, 0.0))
    assert "2 workers of 1 thread" in one
    assert "2 workers of 2 threads" in two
    assert "tensorflow" in one
    assert machine_name(Slots(1, 1.0, 0.5)).count("1 worker of 1 thread and 0.5 GPU") == 1
