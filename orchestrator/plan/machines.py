"""Machines to simulate: more nodes like this one, or GPUs by their published training speeds. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from orchestrator.errors import OrchError
from orchestrator.plan.calibration import Calibration, Machine
from orchestrator.plan.estimates import UNKNOWN_RATE, cost_of, unknown_backbones
from orchestrator.spec.slots import Resources, Slots, at_once, gpus_of
from orchestrator.spec.sweep import SweepSpec
from trainers.networks.costs import Cost, cost

REFERENCE = "resnet50"
"""Network whose training speed is published for most devices, at 224 px."""
COMPARABLE = 100.0
"""Maximum factor, either way, between the training work of a comparable part and that of ``REFERENCE``. The overhead of
a much shorter step dominates, so its speed does not predict large networks."""
SLOWEST_IMAGES_PER_S = 1.0
"""Minimum images per second of ``REFERENCE`` that a worker trains: its 12 billion multiplications (forward
and backward) take one second on an AVX2 core at 3 GHz at a quarter of its peak. A slower measurement is wrong."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, its training speed in images per second of ``REFERENCE``, and the source of that figure."""

    name: str
    images_per_s: float
    source: str


_NVIDIA = "NVIDIA DeepLearningExamples, ResNet50 v1.5 for TensorFlow, container 20.06, mixed precision with XLA, 1 GPU"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("v100", 1270.0, f"{_NVIDIA}, DGX-1 (V100 16 GB), batch 256"),
        Gpu("a100", 2375.0, f"{_NVIDIA}, DGX A100 (A100 40 GB), batch 256"),
    )
}


@dataclass(frozen=True)
class GpuSpeed:
    """``times``: speed of a GPU over one worker of this machine. ``notes``: caveats of the comparison, as sentences."""

    times: float
    notes: tuple[str, ...] = ()


def gpu_speed(gpu: Gpu, calibration: Calibration) -> GpuSpeed:
    """Return the speed of ``gpu`` over one worker of ``calibration``.

    The work of a training step of ``REFERENCE`` (forward and backward, see ``trainers.networks.costs``) times the GPU's
    images per second, over the worker's measured training work per second: the median over the parts of ``COMPARABLE``
    work; otherwise the part of nearest work; otherwise its rate on prefixes; otherwise ``UNKNOWN_RATE``, one core of a
    server. At most the ratio to a worker that trains ``SLOWEST_IMAGES_PER_S``. A note names any fallback.
    """
    reference = cost(REFERENCE, "all", 224)
    assert reference is not None
    rate, how = _worker_rate(calibration, reference)
    notes: tuple[str, ...] = (how,) if how else ()
    slowest = reference.train_work * SLOWEST_IMAGES_PER_S
    if rate < slowest:
        absurd, most = reference.train_work * gpu.images_per_s / rate, gpu.images_per_s / SLOWEST_IMAGES_PER_S
        notes += (
            f"By that a {gpu.name} would run networks {absurd:,.0f} times as fast as a worker here, which cannot be. "
            f"It counts as {most:,.0f} times as fast, as if a worker trained {REFERENCE} on {SLOWEST_IMAGES_PER_S:g} "
            "image a second. --recalibrate measures this machine again; --gpu-speed TIMES says it yourself.",
        )
    return GpuSpeed(reference.train_work * gpu.images_per_s / max(rate, slowest), notes)


def _worker_rate(calibration: Calibration, reference: Cost) -> tuple[float, str]:
    """Return the work per second of a worker, and a note on the fallback, "" if there is none."""
    unknown = unknown_backbones(calibration.parts)
    parts = [(key, cost_of(key), s) for key, s in calibration.parts.items() if key.backbone not in unknown]
    trained = [
        (key, has.train_work, has.train_work / s.train_s) for key, has, s in parts if s.train_s > 0 < has.train_work
    ]
    comparable = [rate for _, work, rate in trained if _distance(work, reference) <= math.log(COMPARABLE)]
    if comparable:
        return statistics.median(comparable), ""
    if trained:
        key, _, rate = min(trained, key=lambda each: _distance(each[1], reference))
        return rate, f"GPUs are compared by {key.backbone} at {key.image_size} px alone, far smaller than {REFERENCE}."
    rates = [has.prefix_work / speed.prefix_s for _, has, speed in parts if speed.prefix_s > 0 < has.prefix_work]
    if rates:
        return statistics.median(rates), "GPUs are compared by frozen layers alone: no training of layers was measured."
    return UNKNOWN_RATE, (
        "Nothing was measured here that a GPU could be compared by, so a worker counts as one core of a server; "
        "--gpu-speed TIMES says it yourself."
    )


def _distance(work: float, reference: Cost) -> float:
    return abs(math.log(work / reference.train_work))


@dataclass(frozen=True)
class SimulatedMachines:
    """Machines to simulate: ``nodes`` like this one, or nodes with ``gpus`` in total, of the kind ``gpu`` in ``GPUS``.

    ``gpu_speed``: speed of one GPU over one worker of this machine; None for published figures. ``shared_store``:
    whether ORCH_CACHE is one folder for all nodes. ``photos``, ``classes``: of another data set with classes of equal
    size; 0 for the file's own.
    """

    nodes: int = 1
    gpus: int = 0
    gpu: str = "v100"
    gpu_speed: float | None = None
    shared_store: bool = False
    photos: int = 0
    classes: int = 0


def simulated_machine(
    spec: SweepSpec, slots: Slots, devices: SimulatedMachines, calibration: Calibration
) -> tuple[Machine, tuple[str, ...]]:
    """Return the machine of ``devices`` for trials of ``spec``, and notes on how its GPU was compared with this one.

    It has as many workers as its GPUs or nodes hold. Raises OrchError for an unknown GPU, and if the file uses none.
    """
    each = gpus_of(spec.resources.gpus, devices.gpus)
    shared = devices.shared_store or devices.nodes == 1
    if not devices.gpus:
        workers = slots.workers * devices.nodes
        return Machine(workers=workers, nodes=devices.nodes, shared_store=shared, measured=False), ()
    if not each:
        raise OrchError("the file lets no trial have a GPU (resources.gpus: 0); add --set resources.gpus=1.")
    speed, name = _gpu_speed(devices, calibration)
    machine = Machine(
        workers=at_once(Resources(0.0, devices.gpus), Resources(0.0, each)),  # their CPUs are unknown
        nodes=devices.nodes,
        gpus=float(devices.gpus),
        shared_store=shared,
        network_factor=speed.times * min(each, 1.0),
        measured=False,
        name=name,
    )
    return machine, speed.notes


def _gpu_speed(devices: SimulatedMachines, calibration: Calibration) -> tuple[GpuSpeed, str]:
    """Return the speed of one GPU over one worker of this machine, and its description."""
    if devices.gpu_speed is not None:
        return GpuSpeed(devices.gpu_speed), f"each {devices.gpu_speed:g} times a worker here, as given"
    gpu = GPUS.get(devices.gpu)
    if gpu is None:
        raise OrchError(
            f"how fast a GPU {devices.gpu!r} is, is not known; known are {', '.join(GPUS)}. "
            "Of another say so yourself: --gpu-speed TIMES, over one worker of this machine."
        )
    return gpu_speed(gpu, calibration), f"{gpu.name}: {gpu.source}"
