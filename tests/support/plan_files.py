"""Files to plan, calibrations of them whose figures are made up, and plans as text."""

from __future__ import annotations

import io
import re
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.plan.calibrate import CalibrationRequest
from orchestrator.plan.calibration import Calibration, PartSpeed
from orchestrator.plan.calibration_file import machine_name
from orchestrator.plan.measurements import measurement_plan
from orchestrator.plan.plan import Plan
from orchestrator.report.plan import print_plan
from orchestrator.spec.load import load_spec
from orchestrator.spec.slots import Slots
from orchestrator.spec.sweep import SweepSpec
from tests.support.tiny_fits import write_manifest
from trainers.data.manifest import Manifest

SPEED = PartSpeed(0.02, 0.01, 0.005, 0.008, 2.0, 1.5, 4096)
SEARCH = "{backbone: small_cnn, image_size: 16, unfrozen_layers: [all, 4], dropout: {uniform: [0, 0.4]}}"
SPACE = """\
backbone: [mobilenet_0.25, resnet50]
unfrozen_layers: [0, 5, all]
multiplier: [1, 2]
recipe: {choice: [flips, rich], when: {multiplier: 2}}
view: [squash, random_crop]
"""
"""A space of six parts."""
TWO = Slots(2, 1.0, 0.0)


def spec_of(folder: Path, search: str = SEARCH, more: str = "budget: {trials: 9, epochs: 4}") -> SweepSpec:
    file = folder / "space.yaml"
    lines = textwrap.indent(search, "  ")
    file.write_text(f"name: tiny\ndata: {{source: 'builtin:digits'}}\nweights: none\nsearch:\n{lines}\n{more}\n")
    return load_spec(str(file))


def request_for(folder: Path, spec: SweepSpec, folds: int = 0) -> CalibrationRequest:
    manifest = Manifest.read(write_manifest(folder / "data", folds=folds))
    return CalibrationRequest(spec, manifest, TWO, folder / "cache")


def tiny_request(folder: Path) -> CalibrationRequest:
    """The measurement of two tiny networks, on one worker."""
    manifest = Manifest.read(write_manifest(folder / "data"))
    search = "backbone: small_cnn\nimage_size: 16\nunfrozen_layers: [all, 4]\nmultiplier: 2\nrecipe: rich"
    return CalibrationRequest(spec_of(folder, search), manifest, Slots(1, 1.0, 0.0), folder / "cache")


def calibration(machine: str = "m", **values: Any) -> Calibration:
    """A calibration without figures; ``values`` on top."""
    return Calibration(machine, 2, 12.0, **values)


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


def text_of(plan: Plan, against: tuple[str, ...] = (), width: int = 80) -> str:
    out = io.StringIO()
    print_plan(plan, against, Console(file=out, width=width, force_terminal=True, no_color=True))
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
