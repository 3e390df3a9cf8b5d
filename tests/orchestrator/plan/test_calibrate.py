"""What of a space is measured, how it is kept, and a small measurement of the real thing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
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
from orchestrator.plan.calibration import Calibration, PartKey, PartSpeed
from orchestrator.plan.calibration_file import (
    CalibrationFile,
    calibration_path,
    machine_name,
    read_calibration,
    write_calibration,
)
from orchestrator.plan.measurements import MeasurementPlan, measurement_plan
from orchestrator.spec.load import load_spec
from orchestrator.spec.slots import Slots
from orchestrator.spec.sweep import SweepSpec
from tests.support.tiny_fits import write_manifest
from trainers.config import TrialConfig
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError

SPACE = """\
backbone: [mobilenet_0.25, resnet50]
unfrozen_layers: [0, 5, all]
multiplier: [1, 2]
recipe: {choice: [flips, rich], when: {multiplier: 2}}
view: [squash, random_crop]
"""
SPEED = PartSpeed(3e-3, 1e-3, 5e-4, 8e-4, 2.0, 1.5, 4096)
TWO = Slots(2, 1.0, 0.0)


def spec_of(folder: Path, search: str = SPACE, more: str = "budget: {trials: 4, epochs: 2}") -> SweepSpec:
    file = folder / "space.yaml"
    lines = "".join(f"  {line}\n" for line in search.splitlines())
    file.write_text(f"name: space\ndata: {{source: 'builtin:digits'}}\nweights: none\nsearch:\n{lines}{more}\n")
    return load_spec(str(file))


def calibration(machine: str = "m", **values: Any) -> Calibration:
    return Calibration(machine, 2, 12.0, **values)


# what to measure


def test_a_space_asks_for_every_part_that_its_trials_have(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path))
    assert len(asked.parts) == 2 * 3
    assert sum(part.share for part in asked.parts.values()) == pytest.approx(1.0)
    assert set(asked.decode) == {("squash", 224), ("random_crop", 224), ("centre_crop", 224)}
    assert set(asked.recipes) == {("flips", 224), ("rich", 224)}
    order = [(key.backbone, key.unfrozen_layers) for key in asked.parts]
    assert order[0][0] == "resnet50"
    assert order.index(("resnet50", "all")) < order.index(("mobilenet_0.25", "all"))
    assert {part.weights for part in asked.parts.values()} == {"none"}


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    assert measurement_plan(spec) == measurement_plan(spec)
    assert measurement_plan(spec).digest == measurement_plan(spec).digest
    other = spec_of(tmp_path, "backbone: [mobilenet_0.25, resnet50]\nunfrozen_layers: [0, 5]")
    assert measurement_plan(other).digest != measurement_plan(spec).digest


def test_named_configurations_are_asked_for(tmp_path: Path) -> None:
    listed = "configurations:\n- {name: one, dropout: 0.2}\n- {name: two, unfrozen_layers: 5, batch_size: 16}"
    asked = measurement_plan(spec_of(tmp_path, listed, "budget: {epochs: 3}"))
    assert {key.batch_size for key in asked.parts} == {16, 32}


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path))
    first = next(iter(asked.parts))
    there = calibration(parts={first: SPEED}, decode_s={"squash/224": 1e-3}, augment_s={"rich/224": 1e-3})
    missing = asked.missing(there)
    assert len(missing.parts) == len(asked.parts) - 1
    assert ("squash", 224) not in missing.decode
    assert missing.recipes == (("flips", 224),)
    assert asked.missing(None) == asked


def test_workers_share_the_parts_in_turn(tmp_path: Path) -> None:
    asked = measurement_plan(spec_of(tmp_path))
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


# what is kept


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


def test_a_manifest_that_cannot_be_written_for_the_workers_is_said(
    request_on_digits: CalibrationRequest,
) -> None:
    blocked = request_on_digits.cache / "calibration"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("not a folder")
    with pytest.raises(OrchError, match=r"the calibration cannot be kept in .*set ORCH_CACHE to a folder"):
        calibrate.measure(measurement_plan(request_on_digits.spec), request_on_digits, 0.0)


def test_a_machine_is_named_by_what_decides_its_speed() -> None:
    one, two = machine_name(Slots(2, 1.0, 0.0)), machine_name(Slots(2, 2.0, 0.0))
    assert "2 workers of 1 thread" in one
    assert "2 workers of 2 threads" in two
    assert "tensorflow" in one
    assert machine_name(Slots(1, 1.0, 0.5)).count("1 worker of 1 thread and 0.5 GPU") == 1


# the real thing


@pytest.fixture
def request_on_digits(tmp_path: Path) -> CalibrationRequest:
    manifest = Manifest.read(write_manifest(tmp_path / "data"))
    search = "backbone: small_cnn\nimage_size: 16\nunfrozen_layers: [all, 4]\nmultiplier: 2\nrecipe: rich"
    return CalibrationRequest(spec_of(tmp_path, search), manifest, Slots(1, 1.0, 0.0), tmp_path / "cache")


def test_one_worker_measures_small_networks(
    request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainers.training import measure as worker

    for name, seconds in (("DECODE_S", 0.1), ("COPY_S", 0.1), ("PART_S", 0.3)):
        monkeypatch.setattr(worker, name, seconds)
    asked, slots = measurement_plan(request_on_digits.spec), request_on_digits.slots
    job = jobs_for(asked, slots)[0]
    file = request_on_digits.cache / "m.parquet"
    file.parent.mkdir()
    request_on_digits.manifest.write(file)
    more = {"manifest": str(file), "asked_at": 0.0, "seconds": 30.0, "threads": 1}
    found = worker.measure({**job, **more, "gpu_memory_share": 0.0, "precision": "auto"})
    result = calibration_of([found], [job], "float32", calibration())
    assert set(result.parts) == set(asked.parts)
    assert set(result.decode_s) == {"squash/16"}
    assert set(result.augment_s) == {"rich/16"}
    for key, speed in result.parts.items():
        assert 0 < speed.floor_train_s <= speed.train_s < 1
        assert 0 < speed.predict_s < 1
        assert speed.trace_s > 0
        assert speed.open_s > 0
        assert (speed.prefix_s > 0) == (key.unfrozen_layers == 4)
    assert len(found["loads"]) == 2 + len(found["parts"])
    assert all(0 < each["core_share"] <= 1 for each in found["loads"])
    rows = {key.unfrozen_layers: speed.row_bytes for key, speed in result.parts.items()}
    assert rows["all"] == 16 * 16 * 3
    assert rows[4] == 8 * 8 * 32 * 4


def test_what_there_is_no_time_for_is_left_out(request_on_digits: CalibrationRequest) -> None:
    from trainers.training import measure as worker

    file = request_on_digits.cache / "m.parquet"
    file.parent.mkdir()
    request_on_digits.manifest.write(file)
    job = {
        **jobs_for(measurement_plan(request_on_digits.spec), request_on_digits.slots)[0],
        "decode": [],
        "recipes": [],
    }
    more = {"manifest": str(file), "asked_at": 0.0, "seconds": 0.0, "threads": 1}
    found = worker.measure({**job, **more, "gpu_memory_share": 0.0, "precision": "auto"})
    assert found["parts"] == []
    assert found["worker_bytes"] > 0


def test_what_is_known_measures_nothing(request_on_digits: CalibrationRequest) -> None:
    asked = measurement_plan(request_on_digits.spec)
    machine = machine_name(request_on_digits.slots)
    assert known(request_on_digits) is None
    write_calibration(request_on_digits.cache, CalibrationFile(calibration(machine)))
    assert known(request_on_digits) is None
    little = calibration(machine, decode_s={"squash/16": 1e-3})
    write_calibration(
        request_on_digits.cache, CalibrationFile(little, frozenset({asked.digest}))
    )  # what did not fit in then
    assert calibrated(request_on_digits) == little
    whole = calibration(
        machine,
        parts=dict.fromkeys(asked.parts, SPEED),
        decode_s={"squash/16": 1e-3},
        augment_s={"rich/16": 1e-3},
    )
    write_calibration(request_on_digits.cache, CalibrationFile(whole))
    assert calibrated(request_on_digits) == whole


def test_photos_of_other_data_are_decoded_again_and_nothing_else(
    request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, machine = measurement_plan(request_on_digits.spec), machine_name(request_on_digits.slots)
    others = calibration(machine, parts=dict.fromkeys(asked.parts, SPEED), decode_s={"squash/16": 5.0})
    others = dataclasses.replace(others, augment_s={"rich/16": 1e-3}, trial_s=0.7)
    write_calibration(request_on_digits.cache, CalibrationFile(others, frozenset({asked.digest}), "elsewhere"))
    assert known(request_on_digits) is None
    measured: list[MeasurementPlan] = []

    def measure(asked: MeasurementPlan, request: CalibrationRequest, ray_s: float, tell: object) -> Calibration:
        measured.append(asked)
        return calibration(machine, decode_s={"squash/16": 1e-3})

    monkeypatch.setattr(calibrate, "measure", measure)
    monkeypatch.setattr("orchestrator.cluster.ray_session.ray_session", lambda address: contextlib.nullcontext())
    found = calibrated(request_on_digits)
    assert measured == [MeasurementPlan({}, asked.decode, ())]
    assert (found.decode_s, found.parts, found.trial_s) == ({"squash/16": 1e-3}, others.parts, 0.7)
    assert known(request_on_digits) == found


def test_a_part_that_cannot_be_measured_is_left_out(
    request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainers.training import measure as worker

    file = request_on_digits.cache / "m.parquet"
    file.parent.mkdir()
    request_on_digits.manifest.write(file)
    real, tried = worker._measure_part, []

    def once(*args: Any) -> Any:
        tried.append(args)
        if len(tried) == 1:
            raise TrainerError("its weight file does not fit.")
        return real(*args)

    monkeypatch.setattr(worker, "_measure_part", once)
    job = jobs_for(measurement_plan(request_on_digits.spec), dataclasses.replace(request_on_digits.slots, workers=1))[0]
    assert len(job["parts"]) > 1
    more = {"manifest": str(file), "asked_at": 0.0, "seconds": 2.0, "threads": 1}
    found = worker.measure({**job, **more, "gpu_memory_share": 0.0, "precision": "auto"})
    assert found["parts"][0]["place"] == 1


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_in_doubt_is_measured_again_once_the_machine_is_quiet(
    request_on_digits: CalibrationRequest, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    asked, machine = measurement_plan(request_on_digits.spec), machine_name(request_on_digits.slots)
    doubtful = dataclasses.replace(SPEED, doubtful=True)
    figures = {"decode_s": {"squash/16": 1e-3}, "augment_s": {"rich/16": 1e-3}}
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
