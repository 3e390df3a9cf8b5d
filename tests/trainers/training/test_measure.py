"""What one worker measures of small networks, and what it leaves out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan.calibrate import CalibrationRequest, calibration_of, jobs_for
from orchestrator.plan.measurements import measurement_plan
from tests.support.plan_files import calibration, tiny_request
from trainers.errors import TrainerError


@pytest.fixture
def request_on_digits(tmp_path: Path) -> CalibrationRequest:
    return tiny_request(tmp_path)


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
    assert set(result.decode_s) == {"squash+needed/16"}
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
