"""Which worker measures what, what the answers come to, and when a machine is measured again."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import OrchError
from orchestrator.plan import calibrate
from orchestrator.plan.calibrate import (
    MEASURE_S,
    CalibrationRequest,
    calibrated,
    calibration_of,
    jobs_for,
    known,
    measuring_s,
)
from orchestrator.plan.calibration import Calibration, PartKey
from orchestrator.plan.calibration_file import CalibrationFile, machine_name, write_calibration
from orchestrator.plan.measurements import MeasurementPlan, measurement_plan
from orchestrator.spec.slots import Slots
from tests.support.plan_files import SPACE, SPEED, TWO, calibration, spec_of, tiny_request
from trainers.config import TrialConfig

# which worker measures what


def test_workers_share_the_parts_in_turn(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path, SPACE))
    jobs = jobs_for(asked, TWO)
    assert [len(job["parts"]) for job in jobs] == [3, 3]
    assert jobs[0]["parts"][0]["config"]["backbone"] == "resnet50"
    assert jobs[0]["decode"] == jobs[1]["decode"]


def test_where_there_are_fewer_parts_than_workers_all_measure(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path, "backbone: mobilenet_0.25"))
    jobs = jobs_for(asked, Slots(3, 1.0, 0.0))
    assert [len(job["parts"]) for job in jobs] == [1, 1, 1]


def test_no_more_parts_than_there_is_time_for(tmp_path: Path) -> None:
    search = "backbone: mobilenet_0.25\nunfrozen_layers: {int: [0, 60]}"
    jobs = jobs_for(measurement_plan(spec_of(tmp_path, search)), TWO)
    assert [len(job["parts"]) for job in jobs] == [6, 6]


def test_parts_of_which_some_take_longer_are_fewer(tmp_path: Path) -> None:
    search = "backbone: [mobilenet_0.25, resnet50]\nunfrozen_layers: {int: [0, 60]}"
    jobs = jobs_for(measurement_plan(spec_of(tmp_path, search)), TWO)
    for job in jobs:
        taken_s = sum(measuring_s(PartKey.of(TrialConfig(**part["config"]))) for part in job["parts"])
        assert 2 / 3 * MEASURE_S < taken_s <= MEASURE_S
        assert len(job["parts"]) < 6


def test_one_large_network_does_not_take_the_time_of_many_small_ones(tmp_path: Path) -> None:
    search = "backbone: [efficientnet_v2_l, mobilenet_0.25, mobilenet_0.5, mobilenet_0.75]\nunfrozen_layers: [0, all]"
    asked = measurement_plan(spec_of(tmp_path, search))
    assert next(iter(asked.parts)).backbone == "efficientnet_v2_l"
    for slots in (TWO, Slots(1, 2.0, 0.0)):
        chosen = [PartKey.of(TrialConfig(**part["config"])) for job in jobs_for(asked, slots) for part in job["parts"]]
        assert "efficientnet_v2_l" not in {key.backbone for key in chosen}
        assert sum(map(measuring_s, chosen)) <= MEASURE_S * slots.workers
    assert measuring_s(PartKey.of(TrialConfig(backbone="efficientnet_v2_l", unfrozen_layers="all"))) > MEASURE_S


def test_where_nothing_fits_the_smallest_is_measured_all_the_same(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path, "backbone: efficientnet_v2_l\nunfrozen_layers: [40, all]"))
    jobs = jobs_for(asked, TWO)
    assert [[part["config"]["unfrozen_layers"] for part in job["parts"]] for job in jobs] == [[40], [40]]


# what the workers answer


def answer(start_s: float, place: int, train_s: float) -> dict[str, Any]:
    row = {"place": place, "prefix_s": 0.01, "train_s": train_s, "predict_s": 1e-3, "floor_train_s": 1e-3}
    row |= {"open_s": 1.0, "trace_s": 2.0, "prefix_trace_s": 0.5, "reset_s": 0.1, "row_bytes": 4096}
    decode = [{"view": "squash", "size": 224, "seconds": train_s}]
    return {"start_s": start_s, "decode": decode, "recipes": [], "parts": [row], "worker_bytes": int(1e9 * train_s)}


def test_the_mean_of_those_who_measured_the_same() -> None:
    parts = [{"config": TrialConfig(unfrozen_layers=n).to_dict(), "weights": "none"} for n in (0, 5)]
    jobs = [{"parts": parts}, {"parts": parts}]
    blank = calibration(driver_s=5.0)
    found = calibration_of([answer(6.0, 1, 1.0), answer(8.0, 1, 3.0)], jobs, "auto", blank)
    assert (found.start_s, found.worker_start_s) == (12.0, 7.0)
    assert found.decode_s == {"squash/224": 2.0}
    assert found.worker_bytes == 3_000_000_000
    assert found.trial_s == pytest.approx(calibrate.TUNE_TRIAL_S + 0.1)
    assert not found.doubts(found.parts)
    busy = calibration_of([answer(6.0, 1, 1.0)], jobs[:1], "auto", dataclasses.replace(blank, doubt="busy."))
    assert busy.doubts(busy.parts) == ["busy."]
    assert [speed.doubtful for speed in busy.parts.values()] == [True]
    speed = found.parts[PartKey.of(TrialConfig(unfrozen_layers=5), "auto")]
    assert (speed.train_s, speed.open_s, speed.prefix_trace_s, speed.exact) == (2.0, 1.0, 0.5, True)
    assert len(found.parts) == 1


def test_a_manifest_that_cannot_be_written_for_the_workers_is_said(
    request_on_digits: CalibrationRequest,
) -> None:
    blocked = request_on_digits.cache / "calibration"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("not a folder")
    with pytest.raises(OrchError, match=r"the calibration cannot be kept in .*set ORCH_CACHE to a folder"):
        calibrate.measure(measurement_plan(request_on_digits.spec), request_on_digits, 0.0)


# the real thing


@pytest.fixture
def request_on_digits(tmp_path: Path) -> CalibrationRequest:
    return tiny_request(tmp_path)


def test_what_is_known_measures_nothing(request_on_digits: CalibrationRequest) -> None:
    asked = measurement_plan(request_on_digits.spec)
    machine = machine_name(request_on_digits.slots)
    assert known(request_on_digits) is None
    write_calibration(request_on_digits.cache, CalibrationFile(calibration(machine)))
    assert known(request_on_digits) is None
    little = calibration(machine, decode_s={"squash+needed/16": 1e-3})
    write_calibration(
        request_on_digits.cache, CalibrationFile(little, frozenset({asked.digest}))
    )  # what did not fit in then
    assert calibrated(request_on_digits) == little
    whole = calibration(
        machine,
        parts=dict.fromkeys(asked.parts, SPEED),
        decode_s={"squash+needed/16": 1e-3},
        augment_s={"rich/16": 1e-3},
    )
    write_calibration(request_on_digits.cache, CalibrationFile(whole))
    assert calibrated(request_on_digits) == whole


def test_photos_of_other_data_are_decoded_again_and_nothing_else(
    request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, machine = measurement_plan(request_on_digits.spec), machine_name(request_on_digits.slots)
    others = calibration(machine, parts=dict.fromkeys(asked.parts, SPEED), decode_s={"squash+needed/16": 5.0})
    others = dataclasses.replace(others, augment_s={"rich/16": 1e-3}, trial_s=0.7)
    write_calibration(request_on_digits.cache, CalibrationFile(others, frozenset({asked.digest}), "elsewhere"))
    assert known(request_on_digits) is None
    measured: list[MeasurementPlan] = []

    def measure(asked: MeasurementPlan, request: CalibrationRequest, ray_s: float, tell: object) -> Calibration:
        measured.append(asked)
        return calibration(machine, decode_s={"squash+needed/16": 1e-3})

    monkeypatch.setattr(calibrate, "measure", measure)
    monkeypatch.setattr("orchestrator.cluster.ray_session.ray_session", lambda address: contextlib.nullcontext())
    found = calibrated(request_on_digits)
    assert measured == [MeasurementPlan({}, asked.decode, ())]
    assert (found.decode_s, found.parts, found.trial_s) == ({"squash+needed/16": 1e-3}, others.parts, 0.7)
    assert known(request_on_digits) == found


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_in_doubt_is_measured_again_once_the_machine_is_quiet(
    request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    asked, machine = measurement_plan(request_on_digits.spec), machine_name(request_on_digits.slots)
    doubtful = dataclasses.replace(SPEED, doubtful=True)
    figures = {"decode_s": {"squash+needed/16": 1e-3}, "augment_s": {"rich/16": 1e-3}}
    first, *others = asked.parts
    other_space = {PartKey("resnet50", 224, 0): SPEED}
    busy = calibration(machine, parts={first: doubtful, **dict.fromkeys(others, SPEED), **other_space}, **figures)
    write_calibration(request_on_digits.cache, CalibrationFile(busy, frozenset({asked.digest})))
    measured: list[MeasurementPlan] = []

    def measure(asked: MeasurementPlan, request: CalibrationRequest, ray_s: float, tell: object) -> Calibration:
        measured.append(asked)
        return calibration(machine, parts=dict.fromkeys(asked.parts, SPEED))

    monkeypatch.setattr(calibrate, "measure", measure)
    monkeypatch.setattr(calibrate, "is_quiet", lambda slots: quiet)
    monkeypatch.setattr("orchestrator.cluster.ray_session.ray_session", lambda address: contextlib.nullcontext())
    said: list[str] = []
    found = calibrated(request_on_digits, tell=said.append)
    assert [list(each.parts) for each in measured] == ([[first]] if quiet else [])
    assert bool(found.doubts(asked.parts)) == (not quiet)
    assert [line.startswith("measuring again") for line in said] == [True] * quiet
    assert set(found.parts) == set(busy.parts)
    assert known(request_on_digits) == found


def test_a_file_that_cannot_be_read_is_said_and_measured_again(
    request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_name(request_on_digits.slots)
    monkeypatch.setattr(calibrate, "measure", lambda asked, request, ray_s, tell: calibration(machine))
    monkeypatch.setattr("orchestrator.cluster.ray_session.ray_session", lambda address: contextlib.nullcontext())
    file = write_calibration(request_on_digits.cache, CalibrationFile(calibration(machine)))
    file.write_text(file.read_text().replace('"schema": 1', '"schema": 0'))
    said: list[str] = []
    calibrated(request_on_digits, tell=said.append)
    assert [line.split()[0] for line in said] == [str(file), "measuring"]


@pytest.mark.slow
def test_measured_through_ray_and_kept(request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "MEASURE_S", 6.0)
    monkeypatch.setattr(calibrate, "is_quiet", lambda slots: False)
    said: list[str] = []
    found = calibrated(request_on_digits, tell=said.append)
    assert len(said) == 1
    assert found.start_s > 1
    assert found.worker_bytes > 100e6
    assert len(found.parts) >= 1
    assert calibrated(request_on_digits, tell=said.append) == found
    assert len(said) == 1
    again = calibrated(dataclasses.replace(request_on_digits), again=True)
    assert again.measured_at > found.measured_at
