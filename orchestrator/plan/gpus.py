"""How fast GPUs train that are not here, from published figures, against what this machine was measured to do. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from orchestrator.plan.calibration import Calibration
from orchestrator.plan.estimates import UNKNOWN_RATE, cost_of, unknown_backbones
from trainers.networks.costs import Cost, cost

REFERENCE = "resnet50"
"""The network whose training speed is published for most devices, at 224 px."""
COMPARABLE = 100.0
"""Times that a part's training work may lie below or above that of ``REFERENCE``. In a much shorter step its own cost
rules, so that its speed says little of large networks."""
SLOWEST_IMAGES_PER_S = 1.0
"""Images a second of ``REFERENCE`` that a worker trains at least: its 12 billion multiplications (forward and backward)
take a core with AVX2 at 3 GHz a second at a quarter of its peak. Slower is a measurement gone wrong."""


@dataclass(frozen=True)
class Gpu:
    """Images a second that one trains of ``REFERENCE``, and where that is written."""

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
    """``times``: how many times as fast as one worker here a GPU runs networks. ``notes``: sentences on how good the
    comparison is; () for a plain one."""

    times: float
    notes: tuple[str, ...] = ()


def gpu_speed(gpu: Gpu, calibration: Calibration) -> GpuSpeed:
    """How many times as fast ``gpu`` runs networks as one worker of ``calibration``.

    The work of a training step of ``REFERENCE`` (forward and backward, ``trainers.networks.costs``) times its images a
    second, over the work a second that the worker was measured to train with: the median over the parts of
    ``COMPARABLE`` work; else the part of nearest work; else what it runs prefixes with; else ``UNKNOWN_RATE``, which is
    a core of a server. Never more than over a worker that trains ``SLOWEST_IMAGES_PER_S``. A note says which it is,
    but for the first.
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
    """Work a second of a worker, and a sentence where it is not the plain comparison."""
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
