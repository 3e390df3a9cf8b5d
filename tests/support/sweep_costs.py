"""Calibrations, photos and files for tests of the plan: nothing is measured, every figure is plain."""

from __future__ import annotations

from typing import Any

from orchestrator.plan.calibration import Calibration, Machine, PartKey, PartSpeed
from orchestrator.plan.playthrough import SweepConditions
from orchestrator.plan.workload import PhotoCounts
from orchestrator.spec.sweep import SweepSpec

PHOTOS = PhotoCounts((70, 30), (10, 10), (15, 15))
"""100 to train on, unevenly, 20 to choose on, 30 to judge on."""


def speed(prefix_s: float, train_s: float, predict_s: float, **values: Any) -> PartSpeed:
    """A part; a bare step is a fifth quicker than ours."""
    once = {"open_s": 2.0, "trace_s": 1.0, "prefix_trace_s": 0.5, "row_bytes": 0} | values
    return PartSpeed(prefix_s, train_s, predict_s, floor_train_s=0.8 * train_s, **once)


CALIBRATION = Calibration(
    machine="a machine of tests",
    workers=2,
    start_s=12.0,
    driver_s=4.0,
    decode_s={"squash/224": 4e-3},
    augment_s={"flips/224": 1e-3, "rich/224": 2e-3},
    parts={
        PartKey("mobilenet_1.0", 224, 0): speed(16e-3, 3e-5, 1e-5),
        PartKey("mobilenet_1.0", 224, 5): speed(15e-3, 2e-3, 5e-4),
        PartKey("mobilenet_1.0", 224, 13): speed(13e-3, 6e-3, 2e-3),
        PartKey("mobilenet_1.0", 224, "all"): speed(0.0, 50e-3, 16e-3),
    },
    worker_bytes=900_000_000,
)


def situation(workers: int = 2, photos: PhotoCounts = PHOTOS, **values: Any) -> SweepConditions:
    """A calibrated machine with so many workers; an empty store."""
    machine = values.pop("machine", Machine(workers))
    return SweepConditions(**({"photos": photos, "machine": machine, "calibration": CALIBRATION} | values))


def spec_of(search: dict[str, Any] | None = None, **sections: Any) -> SweepSpec:
    """A file over the digits; ``search`` and ``sections`` are laid over it."""
    data = {
        "name": "planned",
        "data": {"source": "builtin:digits"},
        "search": search
        or {"backbone": "mobilenet_1.0", "unfrozen_layers": [0, 5, 13], "dropout": {"uniform": [0, 0.5]}},
        "budget": {"trials": 12, "epochs": 9, "scheduler": "none"},
        "final": {"seeds": 2, "runners_up": 1, "policies": ["whole", "flip"]},
        "weights": "none",
    }
    for name, section in sections.items():
        data[name] = {**data.get(name, {}), **section} if isinstance(section, dict) else section
    return SweepSpec.model_validate(data)
