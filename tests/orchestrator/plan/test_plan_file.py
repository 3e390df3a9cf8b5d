"""What a plan is made of, how it reads, when it refuses, and how it stands next to what happened."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from orchestrator.cli import app
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.paths import SweepPaths
from orchestrator.plan import calibrate
from orchestrator.plan import plan_file as planning
from orchestrator.plan.calibrate import CalibrationRequest
from orchestrator.plan.calibration import Calibration, PartSpeed
from orchestrator.plan.calibration_file import CalibrationFile, machine_name, read_calibration, write_calibration
from orchestrator.plan.machines import SimulatedMachines, simulated_machine
from orchestrator.plan.measurements import measurement_plan
from orchestrator.plan.plan import Estimate, Plan, make_plan
from orchestrator.plan.plan_file import plan_file, planned, with_photos
from orchestrator.plan.stage_times import StageComparison, last_plan
from orchestrator.report.plan import comparison_lines, limit_words, print_plan, summary
from orchestrator.spec.load import load_spec
from orchestrator.spec.sections.data import DataSpec
from orchestrator.spec.slots import Resources, Slots
from orchestrator.spec.sweep import SweepSpec
from orchestrator.sweep import plan as plan_stage
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.plan import PlanRequest, compare_with_plan, plan_sweep
from orchestrator.tracking.run_updates import plan_points, run_updates
from tests.support.photos_on_disk import folder_of
from tests.support.powerless import needs_modes, orch
from tests.support.printed_lines import PrintedLines
from tests.support.sweep_costs import situation
from tests.support.tiny_fits import write_manifest
from trainers.data.manifest import Manifest

SPEED = PartSpeed(0.02, 0.01, 0.005, 0.008, 2.0, 1.5, 4096)
SEARCH = "{backbone: small_cnn, image_size: 16, unfrozen_layers: [all, 4], dropout: {uniform: [0, 0.4]}}"
TWO = Slots(2, 1.0, 0.0)


def spec_of(folder: Path, search: str = SEARCH, more: str = "budget: {trials: 9, epochs: 4}") -> SweepSpec:
    file = folder / "space.yaml"
    file.write_text(f"name: tiny\ndata: {{source: 'builtin:digits'}}\nweights: none\nsearch: {search}\n{more}\n")
    return load_spec(str(file))


def request_for(folder: Path, spec: SweepSpec, folds: int = 0) -> CalibrationRequest:
    manifest = Manifest.read(write_manifest(folder / "data", folds=folds))
    return CalibrationRequest(spec, manifest, TWO, folder / "cache")


def calibration_for(spec: SweepSpec, slots: Slots = TWO, speed: PartSpeed = SPEED) -> Calibration:
    asked = measurement_plan(spec)
    return Calibration(
        machine_name(slots),
        slots.workers,
        12.0,
        decode_s={f"{view}/{size}": 1e-3 for view, size in asked.decode},
        augment_s={f"{recipe}/{size}": 1e-3 for recipe, size in asked.recipes},
        parts=dict.fromkeys(asked.parts, speed),
        driver_s=5.0,
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def text_of(plan: Plan, against: tuple[str, ...] = (), width: int = 80) -> str:
    out = io.StringIO()
    print_plan(plan, against, Console(file=out, width=width, force_terminal=True, no_color=True))
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


# the plan of a file


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


@pytest.mark.parametrize("width", [80, 120])
def test_how_it_reads(tmp_path: Path, width: int) -> None:
    spec = spec_of(tmp_path)
    text = text_of(planned(request_for(tmp_path, spec), calibration_for(spec)).plan, ("too much.",), width)
    for words in (
        "tiny: 9 trials of at most 4 epochs",
        "2 workers at once, no GPU; 2 of 2 kinds of network measured",
        "small_cnn at 16 px to ",
        "images at 16 px",
        "start of the workers",
        "time     about ",
        "disk     ",
        "limit    ",
        "times as fast as without sharing",
        "of search is a lower bound",
        "GB at the most, of all workers",
        "warning  too much.",
        "assumed  Measured on ",
    ):
        assert words in text, words
    assert max(map(len, text.splitlines())) <= width


def test_the_first_lines_answer_how_long_how_much_and_what_limits_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    text = text_of(planned(request_for(tmp_path, spec), calibration_for(spec)).plan, width=300)
    assert [line.split()[0] for line in text.splitlines()[:4]] == ["plan", "time", "disk", "limit"]


PRIVATE = re.compile(r"\b(floor|leaning|fits|drawn|evenly|for itself|nobody|told)\b")


def test_a_plan_is_said_in_plain_words(tmp_path: Path) -> None:
    """Every word that the page, the summary, the assumptions and the refusals can say."""
    seen = []
    for more in (
        "budget: {trials: 9, epochs: 4}",
        "budget: {trials: 200, epochs: 4, hours: 0.1, target_accuracy: 0.9}",
    ):
        spec = spec_of(tmp_path, more=more)
        for parts in ({}, calibration_for(spec).parts):
            calibration = dataclasses.replace(calibration_for(spec), parts=parts)
            found = planned(request_for(tmp_path, spec), calibration)
            text = text_of(found.plan, (*found.refusals, *found.warnings)) + "\n".join(summary(found.plan))
            assert not PRIVATE.search(text), PRIVATE.search(text)
            seen.append(text)
            machine, notes = simulated_machine(spec, TWO, SimulatedMachines(2, 4), calibration)
            there = make_plan(spec, situation(machine=machine, calibration=calibration, notes=notes))
            assert not PRIVATE.search(text_of(there))
    assert len(seen) == 4
    assert any("estimates based on" in " ".join(text.split()) for text in seen)


@pytest.mark.parametrize(
    ("stages", "about", "expected"),
    [
        ({"search": 100.0, "prefill": 10.0}, {}, "search, 93 % of the time, most of it training on 2 workers"),
        ({"search": 100.0, "prefill": 150.0}, {}, "most of it to decode photos and run frozen layers once"),
        ({"search": 100.0, "prefill": 0.0}, {"longest_trial_s": 80.0}, "its longest trial alone takes 80 s"),
        ({"refit": 300.0, "prefill": 0.0}, {}, "refit, 97 % of the time"),
        (
            {"start": 60.0, "select": 61.0, "refit": 90.0, "leaderboard": 64.0},
            {},
            "starting the workers, 60 s in each of 4 stages",
        ),
        (
            {"start": 60.0, "select": 0.0, "refit": 0.0, "leaderboard": 0.0},
            {},
            "starting the workers, 60 s in each of 1 stage",
        ),
        ({}, {"begun": 3.0, "trials": 9}, "budget.hours: they end the search after 3 of 9 trials"),
    ],
)
def test_what_limits_a_sweep(tmp_path: Path, stages: dict[str, float], about: dict[str, Any], expected: str) -> None:
    spec = spec_of(tmp_path)
    plan = planned(request_for(tmp_path, spec), calibration_for(spec)).plan
    means = dict.fromkeys(plan.stages, 2.0) | stages
    means["total"] = sum(seconds for stage, seconds in means.items() if stage not in ("prefill", "total"))
    spans = {stage: Estimate.of([seconds]) for stage, seconds in means.items()}
    made = dataclasses.replace(plan, stages=spans, **({"longest_trial_s": 1.0} | about))
    assert expected in limit_words(made)


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
    from trainers.data.examples import evaluation_set, row_keys, training_set
    from trainers.networks.prefix_index import known_images

    spec = spec_of(tmp_path, SEARCH.replace("[all, 4]", "all"))
    request, calibration = request_for(tmp_path, spec), calibration_for(spec)
    before = planned(request, calibration).plan
    config = next(iter(measurement_plan(spec).parts.values())).config
    train, validation = request.manifest.split("train"), request.manifest.split("validation")
    keys = row_keys(training_set(train, config), "flips") + row_keys(evaluation_set(validation, config), "flips")
    shelf = known_images(request.cache, 16, "squash").shelf(request.cache)
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


@pytest.mark.parametrize(
    ("more", "devices", "workers", "gpus", "factor"),
    [
        ("", SimulatedMachines(gpus=8, gpu_speed=50), 8, 8.0, 50.0),
        ("resources: {gpus: 0.5}", SimulatedMachines(gpus=8, gpu_speed=50), 16, 8.0, 25.0),
        ("resources: {gpus: 2}", SimulatedMachines(gpus=8, gpu_speed=50), 4, 8.0, 50.0),
        ("", SimulatedMachines(nodes=4), 8, 0.0, 1.0),
        ("", SimulatedMachines(), 2, 0.0, 1.0),
    ],
)
def test_other_machines(
    tmp_path: Path, more: str, devices: SimulatedMachines, workers: int, gpus: float, factor: float
) -> None:
    spec = spec_of(tmp_path, more=f"budget: {{trials: 9, epochs: 4}}\n{more}")
    machine, _ = simulated_machine(spec, TWO, devices, calibration_for(spec))
    assert (machine.workers, machine.gpus, machine.network_factor) == (workers, gpus, factor)


def test_gpus_that_no_trial_may_have_are_not_simulated(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, more="budget: {trials: 9, epochs: 4}\nresources: {gpus: 0}")
    with pytest.raises(OrchError, match=r"lets no trial have a GPU \(resources.gpus: 0\); add --set resources.gpus=1"):
        simulated_machine(spec, TWO, SimulatedMachines(gpus=8, gpu_speed=50), calibration_for(spec))


@pytest.mark.parametrize(
    ("devices", "shared"),
    [(SimulatedMachines(), True), (SimulatedMachines(2), False), (SimulatedMachines(2, 0, "", 1, True), True)],
)
def test_nodes_have_a_store_each_unless_they_share_one(
    tmp_path: Path, devices: SimulatedMachines, shared: bool
) -> None:
    spec = spec_of(tmp_path)
    machine, _ = simulated_machine(spec, TWO, devices, calibration_for(spec))
    assert (machine.shared_store, machine.measured) == (shared, False)


def test_gpus_by_published_figures(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    slower, faster = (
        simulated_machine(spec, TWO, SimulatedMachines(gpus=1, gpu=name), calibration_for(spec))[0]
        for name in ("v100", "a100")
    )
    assert faster.network_factor / slower.network_factor == pytest.approx(2375 / 1270)
    assert "NVIDIA" in slower.name
    with pytest.raises(OrchError, match=r"a GPU 'abacus' is, is not known; known are v100, a100\. .*--gpu-speed TIMES"):
        simulated_machine(spec, TWO, SimulatedMachines(gpus=1, gpu="abacus"), calibration_for(spec))
    machine, notes = simulated_machine(spec, TWO, SimulatedMachines(gpus=1), Calibration("m", 2, 1.0))
    assert machine.network_factor > 10
    assert "Nothing was measured here" in notes[0]


def test_hours_that_end_the_search_are_said(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, more="budget: {trials: 200, epochs: 4, hours: 0.1}")
    found = planned(request_for(tmp_path, spec), calibration_for(spec, speed=dataclasses.replace(SPEED, train_s=0.2)))
    text = " ".join(text_of(found.plan, found.refusals).split())
    assert found.plan.begun < 200
    assert "limit budget.hours: they end the search after" in text
    assert "trials within the hours" in text
    assert len(found.refusals) == 1


def test_a_file_is_planned_from_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    spec = spec_of(tmp_path)
    write_calibration(tmp_path / "cache", CalibrationFile(calibration_for(spec)))
    said: list[str] = []
    here = plan_file(spec, tell=said.append)
    assert said == ["data     reading builtin:digits"]
    assert here.plan.machine.measured
    there = plan_file(spec, devices=SimulatedMachines(gpus=4, gpu_speed=10.0))
    assert there.plan.stages["search"].mean < here.plan.stages["search"].mean
    assert "simulated: 4 workers at once, 4 GPUs" in text_of(there.plan)


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


def test_figures_in_doubt_refuse_no_hours_and_are_said(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, more="budget: {trials: 9, epochs: 4, hours: 0.001}")
    slow = calibration_for(spec, speed=dataclasses.replace(SPEED, train_s=1.0))
    request = request_for(tmp_path, spec)
    assert len(planned(request, slow).refusals) == 1
    found = planned(request, dataclasses.replace(slow, doubt="The machine was busy while it was measured."))
    assert found.refusals == ()
    assert ["busy" in text for text in found.warnings] == [True, False]
    assert "raise budget.hours" in found.warnings[1]


def test_a_data_set_that_nobody_has_is_simulated(
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


@pytest.mark.parametrize(
    ("data", "train", "test", "folds"),
    [
        ({}, 700, 150, 0),
        ({"splits": {"train": 0.5, "validation": 0.2, "test": 0.3}}, 500, 300, 0),
        ({"splits": {"train": 0.5, "validation": 0.2, "test": 0.3}, "folds": 4}, 700, 300, 4),
        ({"source": "split.csv", "splits": "own"}, 700, 150, 0),
    ],
)
def test_photos_that_nobody_has_are_divided_as_the_file_says(
    data: dict[str, Any], train: int, test: int, folds: int
) -> None:
    divided = DataSpec.model_validate({"source": "builtin:digits", **data})
    found = with_photos(situation(notes=("before",)), divided, 1000, 10)
    assert (sum(found.photos.train), sum(found.photos.test), len(found.photos.folds)) == (train, test, folds)
    assert found.photos.classes == 10
    assert found.notes[0] == "before"
    assert len(found.notes) == 2


# in a sweep


class Sweep:
    """A sweep's folder with a ledger whose clock is told the time."""

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


# words


def test_a_comparison_says_what_did_not_happen() -> None:
    rows = [StageComparison("start", 10.0, 9.0, 12.0, 20.0), StageComparison("refit", 300.0, 200.0, 400.0, math.nan)]
    lines = comparison_lines(rows, processes=3)
    assert lines[1].split() == [
        "start",
        "of",
        "the",
        "workers",
        "10",
        "s",
        "9",
        "s",
        "to",
        "12",
        "s",
        "20",
        "s",
        "2.00",
    ]
    assert lines[2].split()[-2:] == ["-", "-"]
    assert "3 processes worked on it" in lines[-1]
    assert max(map(len, lines)) <= 100


def test_a_summary_without_sharing_plans_without_it(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    plan = planned(request_for(tmp_path, spec), calibration_for(spec)).plan
    shared, alone = summary(plan), summary(plan, share=False)
    assert "without sharing it would take" in shared[1]
    assert "with sharing it would take" in alone[1]
    assert len(shared) == len(alone) == 2


def test_other_notes_say_nothing_to_mlflow() -> None:
    assert plan_points(Event(seq=1, time_s=1.0, kind="NOTE", payload='{"override": "x"}')) == []
