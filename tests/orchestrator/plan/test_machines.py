"""Other machines that are simulated, and GPUs by their published speed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.plan.calibration import Calibration, PartKey
from orchestrator.plan.machines import GPUS, SLOWEST_IMAGES_PER_S, SimulatedMachines, gpu_speed, simulated_machine
from tests.support.plan_files import TWO, calibration_for, spec_of
from tests.support.sweep_costs import CALIBRATION

HEAD = PartKey("mobilenet_1.0", 224, 0)
WHOLE = PartKey("mobilenet_1.0", 224, "all")
TINY = PartKey("small_cnn", 16, "all")
EMPTY = Calibration("m", 1, 0.0)


def test_a_gpu_by_published_figures() -> None:
    v100, a100 = (gpu_speed(GPUS[name], CALIBRATION) for name in ("v100", "a100"))
    assert a100.times / v100.times == pytest.approx(2375 / 1270)
    assert 50 < v100.times < 2000
    assert v100.notes == a100.notes == ()


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "counts as one core of a server"),
        ({HEAD: CALIBRATION.parts[HEAD]}, "by frozen layers alone"),
        ({TINY: dataclasses.replace(CALIBRATION.parts[WHOLE], train_s=5e-5)}, "by small_cnn at 16 px alone"),
        ({PartKey("mine:NET", 224, "all"): CALIBRATION.parts[WHOLE]}, "counts as one core of a server"),
    ],
)
def test_a_gpu_is_compared_by_whatever_there_is_and_that_is_said(parts: dict, said: str) -> None:
    found = gpu_speed(GPUS["v100"], dataclasses.replace(EMPTY, parts=parts))
    assert 10 < found.times <= 1270 / SLOWEST_IMAGES_PER_S
    assert said in found.notes[0]


@pytest.mark.parametrize("slower", [5.0, 50.0, 1e6])
def test_no_gpu_is_absurdly_fast_whatever_was_measured(slower: float) -> None:
    """A worker that got a small share of a core made a V100 5,660 times as fast as itself."""
    parts = {
        key: dataclasses.replace(speed, train_s=slower * speed.train_s, prefix_s=slower * speed.prefix_s)
        for key, speed in CALIBRATION.parts.items()
    }
    plain = gpu_speed(GPUS["v100"], CALIBRATION).times
    found = gpu_speed(GPUS["v100"], dataclasses.replace(CALIBRATION, parts=parts))
    most = 1270 / SLOWEST_IMAGES_PER_S
    assert found.times == pytest.approx(min(slower * plain, most))
    absurd = slower * plain > most
    assert [("cannot be" in note, "--recalibrate" in note) for note in found.notes] == [(True, True)] * absurd


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
