"""Plan a file's sweep on this machine or on simulated ones: read the photos, calibrate, and look into the store."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, OrchError
from orchestrator.machine.environment import gpu_names
from orchestrator.machine.places import require_places
from orchestrator.paths import cache_folder
from orchestrator.plan.calibrate import (
    CalibrationRequest,
    calibrated,
    doubts,
    precision_of,
)
from orchestrator.plan.calibration import Calibration, Machine
from orchestrator.plan.draws import many_of
from orchestrator.plan.estimates import Speeds
from orchestrator.plan.machines import SimulatedMachines, simulated_machine
from orchestrator.plan.plan import DRAWS, Plan, cautions, make_plan, refusals
from orchestrator.plan.playthrough import VALUE_BYTES, SweepConditions
from orchestrator.plan.workload import PhotoCounts, StoreSettings, fit_work
from orchestrator.spec.gpu import with_gpu_memory
from orchestrator.spec.sections.data import DataSpec
from orchestrator.spec.slots import Resources, slots_of
from orchestrator.spec.sweep import SweepSpec
from orchestrator.tracking.kept_splits import source_of
from trainers.config import TrialConfig, head_first
from trainers.data.build import build_manifest
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.networks.prefix_index import find, known_images
from trainers.networks.weight_sources import NONE
from trainers.store.inventory import contents
from trainers.training.examples import augmented_set, evaluation_set, row_keys

WORTH_CALIBRATING_S = 20 * 60.0
"""Minimum seconds of a rough plan that justify the minute of a calibration before the sweep."""
ROUGH_DRAWS = 1
"""Simulated sweeps of a rough plan."""


@dataclass(frozen=True)
class PlanResult:
    """A plan, why its sweep should not start, and warnings if it may, as sentences."""

    plan: Plan
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**self.plan.to_dict(), "refusals": list(self.refusals), "warnings": list(self.warnings)}


def plan_file(
    spec: SweepSpec,
    again: bool = False,
    devices: SimulatedMachines | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> PlanResult:
    """Plan a sweep that has not started, on this machine or on the simulated ``devices``.

    Reads the photos for their splits and measures what no earlier plan of the space measured; ``again``: measure
    everything. Raises DataError, OrchError.
    """
    spec = with_gpu_memory(spec)
    if devices is not None:  # what a part takes does not depend on its weights, which need not be here
        spec = spec.model_copy(update={"weights": NONE})
    require_places(starts_ray=True)
    tell(f"data     reading {', '.join(spec.data.sources)}")
    try:
        manifest, report = build_manifest(source_of(spec))
    except TrainerError as error:
        raise DataError(str(error)) from error
    for sentence in report.kept:
        tell(f"splits   {sentence}")
    slots = slots_of(spec, Resources(os.cpu_count() or 1, len(gpu_names())))
    request = CalibrationRequest(spec, manifest, slots, cache_folder())
    calibration = calibrated(request, again, tell=lambda text: tell(f"plan     {text}"))
    if devices is None:
        result = planned(request, calibration)
        return replace(result, warnings=(*report.warnings, *result.warnings))
    machine, notes = simulated_machine(spec, slots, devices, calibration)
    empty = replace(_situation(request, calibration), machine=machine, stored={}, cap_bytes=math.inf)
    if devices.gpus and not gpu_names():
        note = (
            "What the file lets depend on a GPU's memory is as on this machine, without one, and so is the precision."
        )
        empty = replace(empty, notes=(*empty.notes, note))
    if devices.photos:
        empty = with_photos(empty, spec.data, devices.photos, devices.classes or len(manifest.classes))
    plan = make_plan(spec, empty)
    doubt, refused = _doubt_words(request, calibration), refusals(plan, spec.budget.hours)
    return PlanResult(plan, warnings=(*report.warnings, *doubt, *notes, *refused))


def with_photos(situation: SweepConditions, data: DataSpec, photos: int, classes: int) -> SweepConditions:
    """Return ``situation`` with hypothetical photos, split as in ``data``. Raises OrchError for too few."""
    if photos < 10 * classes:
        raise OrchError(f"{photos} photos are too few for {classes} classes; name at least ten of each.")
    note = f"Of {photos:,} photos in {classes} classes of the same size; decoding as measured on the file's."
    shares = None if isinstance(data.splits, str) else data.splits  # unknown for other photos
    even = PhotoCounts.even(photos, classes, shares, data.folds)
    return replace(situation, photos=even, notes=(*situation.notes, note))


def planned(
    request: CalibrationRequest, calibration: Calibration, draws: int = DRAWS, share: bool = True
) -> PlanResult:
    """Plan ``request`` on this machine with the rows of its store; return the plan with refusals and warnings.

    ``share``: whether the sweep shares features. Doubtful figures warn about the hours instead of refusing.
    """
    situation = _situation(request, calibration)
    plan = make_plan(request.spec, situation, draws)
    hours, free, growth = request.spec.budget.hours, free_bytes(request.cache), growth_bytes(request.cache)
    doubted = _doubt_words(request, calibration)
    refused = refusals(plan, None if doubted else hours, free, growth, share)
    warnings = [*doubted, *(refusals(plan, hours, share=share) if doubted else ())]
    return PlanResult(plan, tuple(refused), (*warnings, *cautions(plan, situation.cap_bytes, share)))


def _doubt_words(request: CalibrationRequest, calibration: Calibration) -> list[str]:
    return [
        f"{sentence} The times here may be far off; the next plan, or sweep that is long or has budget.hours, measures "
        "again once the machine is quiet."
        for sentence in doubts(request, calibration)
    ]


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk that holds, or will hold, ``folder``."""
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.exists(each))
    return shutil.disk_usage(there).free


def growth_bytes(cache: Path) -> int:
    """Return the bytes that the cache may grow before eviction starts."""
    held = contents(cache)
    return max(held.limit_bytes - held.bytes, 0)


def _situation(request: CalibrationRequest, calibration: Calibration) -> SweepConditions:
    spec, slots = request.spec, request.slots
    machine = Machine(workers=slots.workers, gpus=slots.workers * slots.gpus, memory_bytes=_memory_bytes())
    blank = SweepConditions(
        photos=PhotoCounts.of(request.manifest),
        machine=machine,
        calibration=calibration,
        cap_bytes=contents(request.cache).limit_bytes,
        precision=precision_of(spec, slots),
        store_dtype=spec.resources.store_dtype,
    )
    return replace(blank, stored=stored_rows(request, blank))


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def stored_rows(request: CalibrationRequest, situation: SweepConditions) -> dict[str, int]:
    """Return place -> rows in the store, of all rows that the space's trials can read.

    Rows missing from ``trainers.networks.prefix_index`` count as not stored.
    """
    spec, manifest, cache = request.spec, request.manifest, request.cache
    if not os.path.isdir(cache):
        return {}
    speeds = Speeds(situation.calibration, situation.machine)
    settings = StoreSettings(situation.precision, VALUE_BYTES[situation.store_dtype])
    keys = _Keys(manifest)
    found: dict[str, int] = {}
    asked: set[str] = set()
    # The largest multiplier first: its copies hold those of all others.
    for config in sorted(many_of(spec), key=lambda config: -config.multiplier):
        work = fit_work(config, situation.photos, speeds, settings=settings)
        for rows in work.rows:
            if rows.place in asked:
                continue
            asked.add(rows.place)
            view, size = rows.shelf.view, rows.shelf.image_size
            if rows.shelf.layer:
                weights = spec.weights_for(config.backbone)
                own = head_first(config) if rows in work.head_features else config
                shelf = find(cache, own, weights, situation.precision, situation.store_dtype, view)
            else:
                shelf = known_images(cache, size, view)
            if shelf is not None and os.path.isdir(shelf.folder):
                found[rows.place] = shelf.shelf(cache).count(keys.of(config, rows.split, rows.recipe))
    return {place: count for place, count in found.items() if count}


@dataclass
class _Keys:
    """Cache of the store's keys per split: of its originals, or of its copies under a recipe."""

    manifest: Manifest
    _known: dict[tuple[str, str, float, str], list[str]] = field(default_factory=dict)

    def of(self, config: TrialConfig, split: str, recipe: str) -> list[str]:
        multiplier = config.multiplier if recipe else 1.0
        kind = (split, recipe, multiplier, config.copies)
        if kind not in self._known:
            part = self.manifest.split(split)
            examples = augmented_set(part, config) if recipe else evaluation_set(part, config)
            self._known[kind] = row_keys(examples, recipe or "flips")
        return self._known[kind]
