"""`orch plan`, as typed."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from orchestrator.cli import app
from orchestrator.plan import calibrate
from orchestrator.plan.calibration_file import CalibrationFile, write_calibration
from orchestrator.plan.measurements import measurement_plan
from tests.support.plan_files import SEARCH, calibration_for, spec_of


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_gpu_is_simulated_from_a_calibration_without_parts(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A busy machine's measurement may have come to none of them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(calibrate, "is_quiet", lambda slots: False)
    spec = spec_of(tmp_path)
    doubt = "The machine was busy while it was measured."
    empty = dataclasses.replace(calibration_for(spec), parts={}, doubt=doubt)
    write_calibration(cache, CalibrationFile(empty, frozenset({measurement_plan(spec).digest}), "builtin:digits"))
    assert app.run(["plan", str(tmp_path / "space.yaml"), "--simulate", "--gpus", "1", "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert warnings[0].startswith(doubt)
    assert "Nothing was measured here" in warnings[1]


def test_other_machines_are_simulated_without_the_weights(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan of this machine asks for the weights that its sweep would need; one of others does not."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    spec = spec_of(tmp_path, "{backbone: mobilenet_0.25, image_size: 32, dropout: {uniform: [0, 0.4]}}")
    write_calibration(cache, CalibrationFile(calibration_for(spec)))
    (tmp_path / "weights").mkdir()
    line = ["plan", str(tmp_path / "space.yaml"), "--set", f"weights={tmp_path / 'weights'}", "--json"]
    assert app.run(line) == 2
    assert "mobilenet_0.25" in capsys.readouterr().err
    assert app.run([*line, "--simulate", "--gpus", "1"]) == 0


def test_a_data_set_that_do_not_exist_is_simulated(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line: 100 photos of each of 30 classes, of which 70 are trained on and 15 chosen on."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    spec = spec_of(tmp_path, SEARCH.replace("[all, 4]", "all"))
    write_calibration(cache, CalibrationFile(calibration_for(spec)))
    line = ["plan", str(tmp_path / "space.yaml"), "--simulate", "--photos", "3000", "--classes", "30"]
    assert app.run([*line, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [(build["what"], build["rows"], build["stored"]) for build in plan["builds"]] == [
        ("images at 16 px", 30 * (70 + 15), 0)
    ]
    assert any(text.startswith("Simulated: 2 workers on 1 node.") for text in plan["assumptions"])
    assert plan["assumptions"][-1].startswith("Of 3,000 photos in 30 classes of the same size; ")
    assert plan["machine"]["workers"] == 2
    assert app.run([*line[:-1], "301"]) == 1
    assert "3000 photos are too few for 301 classes; name at least ten of each." in capsys.readouterr().err
