"""The plan of a sweep before it trains: when this machine is measured, what is refused, what is compared."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.plan.calibrate import CalibrationRequest
from orchestrator.plan.calibration import Calibration
from orchestrator.plan.calibration_file import CalibrationFile, read_calibration, write_calibration
from orchestrator.plan.measurements import measurement_plan
from orchestrator.plan.stage_times import last_plan
from orchestrator.spec.slots import Resources
from orchestrator.spec.sweep import SweepSpec
from orchestrator.sweep import plan as plan_stage
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.plan import PlanRequest, compare_with_plan, plan_sweep
from orchestrator.tracking.run_updates import run_updates
from tests.support.plan_files import SEARCH, SPEED, calibration_for, spec_of
from tests.support.printed_lines import PrintedLines
from tests.support.tiny_fits import write_manifest
from trainers.data.manifest import Manifest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Sweep:
    """A sweep's folder with a ledger whose clock the test sets."""

    def __init__(self, folder: Path, spec: SweepSpec) -> None:
        self.now_s, self.printed, self.spec = 1000.0, PrintedLines(), spec
        self.manifest = Manifest.read(write_manifest(folder / "data"))
        self.ledger = Ledger(folder / "sweep" / "ledger", lambda: self.now_s)
        paths = SweepPaths(folder / "sweep")
        self.running = SweepContext(paths, spec, self.ledger, self.printed.on_event)
        self.ledger.append(EventKind.SWEEP, state="RUNNING")

    def plan_sweep(self, anyway: bool = False) -> None:
        plan_sweep(self.running, self.manifest, PlanRequest(Resources(2.0, 0.0), anyway=anyway))

    def notes(self) -> list[dict[str, Any]]:
        """The plan and its comparison with what happened."""
        notes = [event.data for event in self.ledger.events() if event.kind == EventKind.NOTE]
        return [data for data in notes if {"plan", "compared"} & {*data}]


def test_a_short_sweep_is_not_delayed(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_stage, "calibrated", lambda *a, **k: pytest.fail("measured"))
    sweep = Sweep(tmp_path, spec_of(tmp_path))
    sweep.plan_sweep()
    compare_with_plan(sweep.running)
    assert sweep.notes() == []
    (line,) = sweep.printed.lines
    assert line.endswith("this machine was not measured for it yet; `orch plan` does that")


@pytest.mark.parametrize(
    ("search", "more"),
    [
        (SEARCH, "budget: {trials: 9, epochs: 4, hours: 1}"),
        (
            "{backbone: resnet50, unfrozen_layers: all, dropout: {uniform: [0, 0.9]}}",
            "budget: {trials: 90, epochs: 40}",
        ),
    ],
)
def test_hours_or_a_long_sweep_are_worth_measuring(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, search: str, more: str
) -> None:
    spec = spec_of(tmp_path, search, more)
    monkeypatch.setattr(plan_stage, "calibrated", lambda request, **more: calibration_for(spec))
    sweep = Sweep(tmp_path, spec)
    sweep.plan_sweep()
    assert len(sweep.notes()) == 1
    assert sweep.printed.lines[0].startswith("plan     about ")
    found = last_plan(sweep.ledger.events())
    assert found is not None
    assert (found.plan.name, found.budget, found.share) == ("tiny", spec.budget.trials, True)


def test_what_cannot_fit_its_hours_is_refused_and_nothing_lost(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(tmp_path, more="budget: {trials: 9, epochs: 4, hours: 0.001}")
    write_calibration(cache, CalibrationFile(calibration_for(spec, speed=dataclasses.replace(SPEED, train_s=1.0))))
    sweep = Sweep(tmp_path, spec)
    with pytest.raises(OrchError) as refused:
        sweep.plan_sweep()
    assert "raise budget.hours" in str(refused.value)
    assert str(refused.value).endswith(f"`orch sweep --resume --out {sweep.running.paths.root} --anyway`")
    assert sweep.notes() == []
    sweep.plan_sweep(anyway=True)
    assert len(sweep.notes()) == 1
    assert any(line.startswith("warning  one trial alone takes") for line in sweep.printed.lines)


def test_a_machine_that_cannot_be_measured_stops_no_sweep(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **values: Any) -> Calibration:
        raise OrchError("its worker process died.")

    monkeypatch.setattr(plan_stage, "calibrated", fails)
    sweep = Sweep(tmp_path, spec_of(tmp_path, more="budget: {trials: 9, epochs: 4, hours: 5}"))
    sweep.plan_sweep()
    assert sweep.printed.lines == ["plan     none: its worker process died."]
    assert sweep.notes() == []


def test_the_disk_is_looked_at_without_a_calibration(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_stage, "free_bytes", lambda folder: 1000)
    sweep = Sweep(tmp_path, spec_of(tmp_path))
    with pytest.raises(OrchError, match=r"the sweep writes .* are free; free some .* --anyway"):
        sweep.plan_sweep()


def test_plan_and_actual_are_kept_and_shown(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(tmp_path)
    write_calibration(cache, CalibrationFile(calibration_for(spec)))
    sweep = Sweep(tmp_path, spec)
    sweep.plan_sweep()
    for seconds, stage, state in ((10, "search", "BEGUN"), (50, "search", "ENDED"), (20, "select", "ENDED")):
        sweep.now_s += seconds
        sweep.ledger.append(EventKind.STAGE, stage=stage, state=state)
    sweep.printed.clear()
    compare_with_plan(sweep.running)
    assert sweep.printed.lines[0].split() == ["plan", "planned", "between", "actual", "actual/planned"]
    assert any(line.split()[0] == "total" for line in sweep.printed.lines)
    compared = {row["stage"]: row["actual_s"] for row in sweep.notes()[-1]["compared"]}
    assert compared["select"] == 20.0
    assert math.isnan(compared["leaderboard"])
    updates = run_updates(sweep.ledger.events())
    points = {point.key: point.value for point in updates[0].points}
    assert points["actual_select_s"] == 20.0
    assert points["planned_start_s"] == 7.0
    assert "actual_leaderboard_s" not in points


def test_a_sweep_measures_again_what_is_in_doubt_only_where_that_matters(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[str] = []
    for folder, more, matters in (("a", "", False), ("b", ", hours: 1", True)):
        (tmp_path / folder).mkdir()
        spec = spec_of(tmp_path / folder, more=f"budget: {{trials: 9, epochs: 4{more}}}")
        good = calibration_for(spec)
        write_calibration(
            cache, CalibrationFile(dataclasses.replace(good, doubt="The machine was busy while it was measured."))
        )

        def calibrated(request: CalibrationRequest, found: Calibration = good, **more: Any) -> Calibration:
            again.append(request.spec.name)
            return found

        monkeypatch.setattr(plan_stage, "calibrated", calibrated)
        sweep = Sweep(tmp_path / folder, spec)
        sweep.plan_sweep()
        assert len(again) == matters
        assert any("busy" in line for line in sweep.printed.lines) == (not matters)
        assert len(sweep.notes()) == 1


def test_a_finished_sweep_corrects_what_is_kept(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(tmp_path)
    before = calibration_for(spec)
    write_calibration(cache, CalibrationFile(before))
    sweep = Sweep(tmp_path, spec)
    sweep.plan_sweep()
    key, part = next(iter(measurement_plan(spec).parts.items()))
    ledger = sweep.ledger
    ledger.append(EventKind.STAGE, stage="search", state="BEGUN")
    payload = {"config": part.config.to_dict(), "number": 1}
    ledger.append(EventKind.TRIAL, trial="t", stage="search", state="PENDING", payload=payload)
    ledger.append(EventKind.TRIAL, trial="t", stage="search", state="RUNNING")
    for epoch in range(1, 6):
        sweep.now_s += 5
        rate = 1 / (2 * SPEED.train_s)
        values = {"trial": "t", "stage": "search", "epoch": epoch, "seconds": 5.0, "train_images_per_s": rate}
        ledger.append(EventKind.EPOCH, **values)
    ledger.append(EventKind.STAGE, stage="search", state="ENDED")
    sweep.printed.clear()
    compare_with_plan(sweep.running)
    kept = read_calibration(cache, before.machine)
    assert kept is not None
    assert kept.calibration.parts[key].train_s == pytest.approx(math.sqrt(2) * SPEED.train_s)
    assert "figures of this machine's speed were off, by 2.0 times" in sweep.printed.lines[-1]
    assert len({*kept.calibration.parts.values()}) == 2


def test_a_sweep_that_went_on_to_more_is_not_compared(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(tmp_path)
    write_calibration(cache, CalibrationFile(calibration_for(spec)))
    sweep = Sweep(tmp_path, spec)
    sweep.plan_sweep()
    larger = spec_of(tmp_path, more="budget: {trials: 12, epochs: 4}")
    compare_with_plan(dataclasses.replace(sweep.running, spec=larger))
    assert sweep.printed.lines[-1] == "plan     not compared: it was of 9 trials, and the sweep ran another number"


def test_a_sweep_that_goes_on_keeps_its_first_plan(tmp_path: Path, cache: Path) -> None:
    spec = spec_of(tmp_path)
    write_calibration(cache, CalibrationFile(calibration_for(spec)))
    sweep = Sweep(tmp_path, spec)
    sweep.plan_sweep()
    payload = {"config": {"backbone": "small_cnn"}, "number": 1}
    sweep.ledger.append(EventKind.TRIAL, trial="t", stage="search", state="PENDING", payload=payload)
    sweep.plan_sweep()
    assert len(sweep.notes()) == 1


def test_a_calibration_that_cannot_be_kept_stops_no_sweep(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cluster.ray_session.ray_session", lambda address: pytest.fail("Ray was started"))
    cache.mkdir(exist_ok=True)
    (cache / "calibration").write_text("not a folder")
    sweep = Sweep(tmp_path, spec_of(tmp_path, more="budget: {trials: 9, epochs: 4, hours: 5}"))
    sweep.plan_sweep()
    assert len(sweep.printed.lines) == 2
    assert "plan     none: cannot write to" in sweep.printed.lines[1]
    assert "calibration writable, or set ORCH_CACHE" in sweep.printed.lines[1]
