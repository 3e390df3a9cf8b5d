"""How fast GPUs train that nobody here has, from published figures, against what this machine was measured to do."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from orchestrator.calibration import Calibration
from orchestrator.estimates import cost_of, unknown_backbones
from trainers.costs import cost

REFERENCE = "resnet50"
"""The network whose training speed is published for most devices, at 224 px."""


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


def gpu_factor(gpu: Gpu, calibration: Calibration) -> float:
    """How many times as fast ``gpu`` runs networks as one worker of ``calibration``.

    The work of a training step of ``REFERENCE`` (forward and backward, see ``trainers.costs``) times its images a
    second, over the work a second that the worker was measured to train with, the median over the parts that have any;
    where none has, over what it runs prefixes with. Raises ValueError for a calibration that holds neither.
    """
    reference = cost(REFERENCE, "all", 224)
    assert reference is not None
    unknown = unknown_backbones(calibration.parts)
    parts = [(cost_of(key), speed) for key, speed in calibration.parts.items() if key.backbone not in unknown]
    rates = [has.train_work / speed.train_s for has, speed in parts if speed.train_s > 0 and has.train_work > 0]
    rates = rates or [has.prefix_work / speed.prefix_s for has, speed in parts if speed.prefix_s > 0]
    if not rates:
        raise ValueError("the calibration holds no part by whose speed a GPU could be compared.")
    return reference.train_work * gpu.images_per_s / statistics.median(rates)
