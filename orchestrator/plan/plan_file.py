"""Before a sweep: what it will do and take. After it: what it took. Gathers what a plan needs and records both."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import DataError, OrchError
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.machine.environment import gpu_names
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
from orchestrator.plan.gpus import GPUS, GpuSpeed, gpu_speed
from orchestrator.plan.plan import DRAWS, Plan, cautions, make_plan, refusals
from orchestrator.plan.playthrough import VALUE_BYTES, SweepConditions
from orchestrator.plan.workload import PhotoCounts, StoreSettings, fit_work
from orchestrator.spec.data import DataSpec
from orchestrator.spec.data_source import data_source
from orchestrator.spec.gpu import with_gpu_memory
from orchestrator.spec.slots import Resources, Slots, at_once, gpus_of, slots_of
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig
from trainers.data.examples import ExampleSet, originals, row_keys, training_examples_of
from trainers.data.manifest import Manifest, build_manifest
from trainers.errors import TrainerError
from trainers.networks.prefix_index import find, known_images
from trainers.store.inventory import contents

"""Stage that the notes of a plan are filed under."""
WORTH_CALIBRATING_S = 20 * 60.0
"""A sweep that roughly takes so long is worth the minute of a calibration; a shorter one is not delayed by it."""
ROUGH_DRAWS = 1


@dataclass(frozen=True)
class PlanResult:
    """A plan, and sentences: why the sweep should not start, and what a person should know of one that may."""

    plan: Plan
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**self.plan.to_dict(), "refusals": list(self.refusals), "warnings": list(self.warnings)}


@dataclass(frozen=True)
class SimulatedMachines:
    """Machines to simulate: ``nodes`` like this one, or with ``gpus`` in all, of the kind ``gpu`` of ``devices.GPUS``.

    ``gpu_speed``: how many times as fast as one worker here one of them runs networks; None for published figures.
    ``shared_store``: whether ORCH_CACHE is one folder for all nodes. ``photos`` and ``classes``: of another data set,
    divided evenly; 0 for the file's own."""

    nodes: int = 1
    gpus: int = 0
    gpu: str = "v100"
    gpu_speed: float | None = None
    shared_store: bool = False
    photos: int = 0
    classes: int = 0


# --- orch plan ----------------------------------------------------------------------------------------------------


def plan_file(
    spec: SweepSpec,
    again: bool = False,
    devices: SimulatedMachines | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> PlanResult:
    """The plan of a sweep that has not begun, on this machine or, with ``devices``, on others from its calibration.

    Reads the photos for their splits, and measures what no earlier plan of the space did; ``again``: all of it.
    Raises DataError, OrchError.
    """
    spec = with_gpu_memory(spec)
    tell(f"data     reading {', '.join(spec.data.sources)}")
    try:
        manifest, _ = build_manifest(data_source(spec))
    except TrainerError as error:
        raise DataError(str(error)) from error
    slots = slots_of(spec, Resources(os.cpu_count() or 1, len(gpu_names())))
    request = CalibrationRequest(spec, manifest, slots, cache_folder())
    calibration = calibrated(request, again, tell=lambda text: tell(f"plan     {text}"))
    if devices is None:
        return planned(request, calibration)
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
    return PlanResult(plan, warnings=(*_doubt_words(request, calibration), *notes, *refusals(plan, spec.budget.hours)))


def with_photos(situation: SweepConditions, data: DataSpec, photos: int, classes: int) -> SweepConditions:
    """``situation`` with so many photos that nobody has, divided as ``data`` says. Raises OrchError for too few."""
    if photos < 10 * classes:
        raise OrchError(f"{photos} photos are too few for {classes} classes; name at least ten of each.")
    note = f"Of {photos:,} photos in {classes} classes of the same size; decoding as measured on the file's."
    shares = None if data.splits == "own" else data.splits  # nobody knows how others would be divided
    even = PhotoCounts.even(photos, classes, shares, data.folds)
    return replace(situation, photos=even, notes=(*situation.notes, note))


def simulated_machine(
    spec: SweepSpec, slots: Slots, devices: SimulatedMachines, calibration: Calibration
) -> tuple[Machine, tuple[str, ...]]:
    """What ``devices`` come to for trials of ``spec``: as many workers as its GPUs hold, or as nodes like this have.

    And sentences on how well a GPU could be compared with this machine. Raises OrchError for a GPU that nothing is
    known of, and where the file wants none.
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
        workers=at_once(Resources(0.0, devices.gpus), Resources(0.0, each)),  # of their CPUs nothing is known
        nodes=devices.nodes,
        gpus=float(devices.gpus),
        shared_store=shared,
        network_factor=speed.times * min(each, 1.0),
        measured=False,
        name=name,
    )
    return machine, speed.notes


def _gpu_speed(devices: SimulatedMachines, calibration: Calibration) -> tuple[GpuSpeed, str]:
    """Of one GPU over one worker here, and what it is called."""
    if devices.gpu_speed is not None:
        return GpuSpeed(devices.gpu_speed), f"each {devices.gpu_speed:g} times a worker here, as given"
    gpu = GPUS.get(devices.gpu)
    if gpu is None:
        raise OrchError(
            f"how fast a GPU {devices.gpu!r} is, is not known; known are {', '.join(GPUS)}. "
            "Of another say so yourself: --gpu-speed TIMES, over one worker of this machine."
        )
    return gpu_speed(gpu, calibration), f"{gpu.name}: {gpu.source}"


def planned(
    request: CalibrationRequest, calibration: Calibration, draws: int = DRAWS, share: bool = True
) -> PlanResult:
    """The plan of ``request`` on this machine with what its store holds, and what speaks against it.

    ``share``: whether the sweep will. For its hours nothing is refused by figures that are in doubt."""
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
    """What the disk of ``folder``, which need not exist yet, has free."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free


def growth_bytes(cache: Path) -> int:
    """By how much the cache may grow until older rows go."""
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
    """Place of rows -> how many of them the store has, of all that the space's trials can read.

    What nobody has named yet (``trainers.networks.prefix_index``) counts as not there.
    """
    spec, manifest, cache = request.spec, request.manifest, request.cache
    if not cache.is_dir():
        return {}
    speeds = Speeds(situation.calibration, situation.machine)
    settings = StoreSettings(situation.precision, VALUE_BYTES[situation.store_dtype])
    keys = _Keys(manifest)
    found: dict[str, int] = {}
    asked: set[str] = set()
    # The largest multiplier first: its copies hold those of all others.
    for config in sorted(many_of(spec), key=lambda config: -config.multiplier):
        work = fit_work(config, situation.photos, speeds, settings=settings)
        for rows in (*work.images, *work.features):
            if rows.place in asked:
                continue
            asked.add(rows.place)
            view, size = rows.shelf.view, rows.shelf.image_size
            if rows.shelf.layer:
                weights = spec.weights_for(config.backbone)
                shelf = find(cache, config, weights, situation.precision, situation.store_dtype, view)
            else:
                shelf = known_images(cache, size, view)
            if shelf is not None and shelf.folder.is_dir():
                found[rows.place] = shelf.shelf(cache).count(keys.of(config, rows.split, rows.recipe, view))
    return {place: count for place, count in found.items() if count}


@dataclass
class _Keys:
    """The store's keys of a split's originals, or of its copies under a recipe; each list is made once."""

    manifest: Manifest
    _known: dict[tuple[str, str, float], list[str]] = field(default_factory=dict)

    def of(self, config: TrialConfig, split: str, recipe: str, view: str) -> list[str]:
        multiplier = config.multiplier if recipe else 1.0
        if (split, recipe, multiplier) not in self._known:
            part = self.manifest.split(split)
            items = originals(part)
            if recipe:
                items = [item for item in training_examples_of(part, multiplier) if item.copy]
            self._known[split, recipe, multiplier] = row_keys(ExampleSet(part, items, view), recipe or "flips")
        return self._known[split, recipe, multiplier]


# --- in a sweep ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RecordedPlan:
    """A plan as the ledger keeps it. ``share``: whether the sweep shared; ``budget``: the trials it was asked for.

    ``machine``, ``precision`` and ``data``: of the calibration that it was made from, "" where that was not noted."""

    plan: Plan
    share: bool
    budget: int
    machine: str = ""
    precision: str = ""
    data: str = ""


def last_plan(events: Sequence[Event]) -> RecordedPlan | None:
    """The plan that the ledger holds last; None where there is none. Pure."""
    for event in reversed(events):
        if event.kind == EventKind.NOTE and event.stage == Stage.PLAN and "plan" in event.data:
            data = event.data
            source = data.get("calibration", {})
            return RecordedPlan(Plan.from_dict(data["plan"]), bool(data["share"]), int(data["budget"]), **source)
    return None
