"""What a plan of a file is made of, and when it refuses."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.plan import plan_file as planning
from orchestrator.plan.calibration_file import CalibrationFile, write_calibration
from orchestrator.plan.machines import SimulatedMachines
from orchestrator.plan.measurements import measurement_plan
from orchestrator.plan.plan import Plan
from orchestrator.plan.plan_file import plan_file, planned, with_photos
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections.data import DataSpec
from tests.support.photos_on_disk import folder_of
from tests.support.plan_files import SEARCH, SPEED, calibration_for, request_for, spec_of, text_of
from tests.support.powerless import needs_modes, orch
from tests.support.sweep_costs import situation


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_plan_of_a_space(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    found = planned(request_for(tmp_path, spec), calibration_for(spec))
    assert found.plan.trials == 9
    assert found.plan.measured_parts == 2
    assert found.plan.estimated_parts == 0
    assert found.refusals == found.warnings == ()
    assert found.plan.stages["start"].mean == 7.0
    assert Plan.from_dict(found.plan.to_dict()) == found.plan
    assert found.to_dict() == {**found.plan.to_dict(), "refusals": [], "warnings": []}


def test_named_configurations_and_folds(tmp_path: Path) -> None:
    named = "[{name: a, unfrozen_layers: all}, {name: b, dropout: 0.2}]"
    listed = f"{{backbone: small_cnn, image_size: 16, configurations: {named}}}"
    data = "data: {source: 'builtin:digits', folds: 3}"
    file = tmp_path / "space.yaml"
    file.write_text(f"name: listed\n{data}\nweights: none\nsearch: {listed}\nbudget: {{epochs: 3, scheduler: none}}\n")
    spec = load_spec(str(file))
    plan = planned(request_for(tmp_path, spec, folds=3), calibration_for(spec)).plan
    assert plan.trials == 2
    assert "2 to epoch 3" in text_of(plan)
    assert "a sampler that learns" not in " ".join(plan.assumptions)


def test_what_the_store_holds_is_not_planned_again(tmp_path: Path) -> None:
    from trainers.networks.prefix_index import known_images
    from trainers.training.examples import evaluation_set, row_keys, training_set

    spec = spec_of(tmp_path, SEARCH.replace("[all, 4]", "all"))
    request, calibration = request_for(tmp_path, spec), calibration_for(spec)
    before = planned(request, calibration).plan
    config = next(iter(measurement_plan(spec).parts.values())).config
    train, validation = request.manifest.split("train"), request.manifest.split("validation")
    keys = row_keys(training_set(train, config), "flips") + row_keys(evaluation_set(validation, config), "flips")
    shelf = known_images(request.cache, 16, "squash+needed").shelf(request.cache)
    shelf.rows(keys, lambda places: iter([np.zeros((len(places), 16, 16, 3), np.uint8)]))
    after = planned(request, calibration).plan
    assert [(build.rows, build.stored) for build in before.builds] == [(len(keys), 0)]
    assert [(build.rows, build.stored) for build in after.builds] == [(0, len(keys))]
    assert after.disk["images"] == 0


def test_a_store_too_small_for_all_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(tmp_path)
    monkeypatch.setenv("ORCH_CACHE_GB", "0.00001")
    found = planned(request_for(tmp_path, spec), calibration_for(spec))
    assert found.refusals == ()
    assert [("ORCH_CACHE_GB" in text) for text in found.warnings] == [True]


def test_a_file_is_planned_from_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    spec = spec_of(tmp_path)
    write_calibration(tmp_path / "cache", CalibrationFile(calibration_for(spec)))
    said: list[str] = []
    here = plan_file(spec, tell=said.append)
    assert said == ["data     reading builtin:digits"]
    assert here.warnings == ()
    assert here.plan.machine.measured
    there = plan_file(spec, devices=SimulatedMachines(gpus=4, gpu_speed=10.0))
    assert there.plan.stages["search"].mean < here.plan.stages["search"].mean
    assert "simulated: 4 workers at once, 4 GPUs" in text_of(there.plan)
    assert there.warnings == ()


def test_what_is_said_of_the_photos_is_a_warning_of_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    photos = folder_of(tmp_path / "photos", a=9, b=9)
    (photos / "a" / "notes.txt").write_text("x")
    spec = spec_of(tmp_path)
    spec = spec.model_copy(update={"data": DataSpec(source=str(photos))})
    write_calibration(tmp_path / "cache", CalibrationFile(calibration_for(spec)))
    monkeypatch.setattr(planning, "planned", lambda *_: planning.PlanResult(None, warnings=("of the plan",)))
    warnings = plan_file(spec).warnings
    assert warnings.count("1 file without an image's suffix will not be read: a/notes.txt.") == 1
    assert warnings[-1] == "of the plan"


def test_figures_in_doubt_refuse_no_hours_and_are_said(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, more="budget: {trials: 9, epochs: 4, hours: 0.001}")
    slow = calibration_for(spec, speed=dataclasses.replace(SPEED, train_s=1.0))
    request = request_for(tmp_path, spec)
    assert len(planned(request, slow).refusals) == 1
    found = planned(request, dataclasses.replace(slow, doubt="The machine was busy while it was measured."))
    assert found.refusals == ()
    assert ["busy" in text for text in found.warnings] == [True, False]
    assert "raise budget.hours" in found.warnings[1]


@pytest.mark.parametrize(
    ("data", "train", "test", "folds"),
    [
        ({}, 700, 150, 0),
        ({"splits": {"train": 0.5, "validation": 0.2, "test": 0.3}}, 500, 300, 0),
        ({"splits": {"train": 0.5, "validation": 0.2, "test": 0.3}, "folds": 4}, 700, 300, 4),
        ({"source": "split.csv", "splits": "own"}, 700, 150, 0),
    ],
)
def test_photos_that_do_not_exist_are_divided_as_the_file_says(
    data: dict[str, Any], train: int, test: int, folds: int
) -> None:
    divided = DataSpec.model_validate({"source": "builtin:digits", **data})
    found = with_photos(situation(notes=("before",)), divided, 1000, 10)
    assert (sum(found.photos.train), sum(found.photos.test), len(found.photos.folds)) == (train, test, folds)
    assert found.photos.classes == 10
    assert found.notes[0] == "before"
    assert len(found.notes) == 2


@needs_modes
def test_a_plan_needs_a_cache_and_says_so_before_photos_are_read(tmp_path: Path) -> None:
    folder_of(tmp_path / "photos", a=12, b=12)
    spec_of(tmp_path, more="budget: {trials: 2, epochs: 1}")
    (tmp_path / "cache" / "calibration").mkdir(parents=True)
    for closed, reads in ((tmp_path / "cache", False), (tmp_path / "cache" / "calibration", True)):
        closed.chmod(0)
        try:
            line = ("plan", "space.yaml", "--set", "data.source=photos")
            done = orch(tmp_path, *line, ORCH_CACHE=str(tmp_path / "cache"))
        finally:
            closed.chmod(0o755)
        assert done.returncode == 1, done.stderr
        assert f"cannot write to {closed}: " in done.stderr
        assert "ORCH_CACHE" in done.stderr
        assert ("reading" in done.stderr) == reads


def test_rows_that_older_ones_make_room_for_are_no_growth(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "features" / "old.f2").mkdir(parents=True)
    (cache / "features" / "old.f2" / "00-0123456789abcdef.npy").write_bytes(b"x" * 10**6)
    monkeypatch.setenv("ORCH_CACHE_GB", "0.003")
    assert planning.growth_bytes(cache) == 2 * 10**6
    monkeypatch.setenv("ORCH_CACHE_GB", "0.0005")
    assert planning.growth_bytes(cache) == 0
