"""Calibrate this machine: measure what a plan of a space needs, on every slot at once, and keep it in the cache.

The workers run ``trainers.training.measure``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.machine.environment import gpu_capability
from orchestrator.machine.places import require_writable
from orchestrator.plan.calibration import Calibration, PartKey, PartSpeed, busy_words
from orchestrator.plan.calibration_file import (
    FOLDER,
    CalibrationFile,
    calibration_path,
    machine_name,
    read_calibration,
    write_calibration,
    writing_to,
)
from orchestrator.plan.estimates import UNKNOWN_RATE, cost_of
from orchestrator.plan.measurements import MeasurementPlan, measurement_plan
from orchestrator.spec.slots import Slots
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig
from trainers.contract import PartFigures
from trainers.data.manifest import Manifest
from trainers.networks.costs import layers_of
from trainers.training.load import Load, mean, sample

MEASURE_S = 32.0
"""Maximum seconds that the workers measure; with their start it stays under a minute."""
PART_AT_LEAST_S = 5.0
"""Minimum seconds per part, mostly to open and trace its network."""
BUILD_LAYER_S, TRACE_LAYER_S = 0.02, 0.035
"""Seconds to build a layer, and to trace one above the boundary; the low end of CPU measurements: MobileNet 0.5 took
4 s for its 86 layers, EfficientNetV2-L at 480 px 118 s for 1,028."""
FORWARD_RUNS, TRAINING_RUNS = 4, 6
"""Minimum passes of one image through a part in its measurement."""
FIRST_PART = 3
"""Divisor of the measuring time: parts that take longer than this fraction are measured last."""
DRIVER_S = 3.0
"""Seconds of a sweep's driver before its first worker, without Ray's start: imports, ledger, sampler."""
QUIET_SAMPLES = 3
"""Samples of the machine's load, a quarter of a second each, that decide whether it is quiet."""
TUNE_TRIAL_S = 0.05
"""Seconds per trial for scheduling and recording, without opening its fit."""


def precision_of(spec: SweepSpec, slots: Slots) -> str:
    """Return the Keras dtype policy of the workers: the device's best, as in ``trainers.training.device``."""
    if spec.resources.precision != "auto":
        return spec.resources.precision
    if not slots.gpus:
        return "float32"
    return "mixed_bfloat16" if gpu_capability() >= 8 else "mixed_float16"


def measure(
    asked: MeasurementPlan,
    request: CalibrationRequest,
    ray_s: float,
    tell: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Measure ``asked`` within ``request.seconds``, on every slot at once. Ray must be running.

    ``ray_s``: seconds that Ray took to start. ``tell`` gets a line for each job that is retried. Raises OrchError, also
    with the message of a TrainerError.
    """
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import

    slots, precision = request.slots, request.precision
    jobs = jobs_for(asked, slots, request.seconds)
    folder = request.cache / FOLDER
    file = folder / f".manifest-{request.manifest.fingerprint}-{os.getpid()}.parquet"
    with writing_to(folder):
        request.manifest.write(file)
    try:
        more = {"manifest": str(file), "asked_at": time.time(), "precision": precision}
        more |= {"threads": 1, "gpu_memory_share": min(1.0, slots.gpus), "seconds": request.seconds}
        filled = [{**job, **more} for job in jobs]
        answers = run_jobs(
            "trainers.training.measure:measure", filled, slots.cpus, None, slots.gpus, fresh=True, tell=tell
        )
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
    driver_s = DRIVER_S + ray_s
    load = mean(Load(**each) for answer in answers for each in answer["loads"])
    doubt = busy_words(load, slots.workers * slots.cpus)
    blank = Calibration(request.machine, slots.workers, 0.0, driver_s=driver_s, measured_at=time.time(), doubt=doubt)
    return calibration_of(answers, jobs, precision, blank)


def jobs_for(asked: MeasurementPlan, slots: Slots, seconds: float = MEASURE_S) -> list[dict[str, Any]]:
    """Divide the parts among one job per slot; with fewer parts than slots, several measure the same. Pure.

    Parts beyond ``seconds`` are left out, and large ones come last: several small networks cover more of the space than
    one large one. Every worker times views, sizes and recipes.
    """
    left = {key: measuring_s(key, bool(slots.gpus)) for key in asked.parts}
    chosen: list[list[PartKey]] = [[] for _ in range(slots.workers)]
    loads_s = [0.0] * slots.workers
    for most_s in (seconds / FIRST_PART, seconds):
        for key, part_s in list(left.items()):
            slot = loads_s.index(min(loads_s))
            if part_s <= most_s and loads_s[slot] + part_s <= seconds:
                chosen[slot].append(key)
                loads_s[slot] += left.pop(key)
    if left and not chosen[0]:
        chosen[0].append(min(left, key=lambda key: left[key]))  # at least one part must be measured
    begun = [keys for keys in chosen if keys]
    jobs = []
    for slot, keys in enumerate(chosen):
        own = [asked.parts[key] for key in keys or (begun[slot % len(begun)][:1] if begun else [])]
        jobs.append(
            {
                "decode": [{"view": view, "size": size} for view, size in asked.decode[:4]],
                "recipes": [{"recipe": recipe, "size": size} for recipe, size in asked.recipes],
                "parts": [{"config": part.config.to_dict(), "weights": part.weights} for part in own],
            }
        )
    return jobs


def measuring_s(key: PartKey, on_gpu: bool = False) -> float:
    """Estimate the seconds to measure a part: to build and trace its layers, and to run it a few times. Pure.

    On a GPU only building and tracing count. A backbone without a table gets the minimum, so that it is measured.
    """
    table = layers_of(key.backbone)
    if table is None:
        return PART_AT_LEAST_S
    found, layers = cost_of(key), len(table)
    run_s = (FORWARD_RUNS * (found.prefix_work + found.tail_work) + TRAINING_RUNS * found.train_work) / UNKNOWN_RATE
    once_s = BUILD_LAYER_S * layers + TRACE_LAYER_S * (layers - found.length)
    return max(PART_AT_LEAST_S, once_s + (0.0 if on_gpu else run_s))


def calibration_of(
    answers: Sequence[Mapping[str, Any]], jobs: Sequence[Mapping[str, Any]], precision: str, blank: Calibration
) -> Calibration:
    """Combine the workers' answers: the mean over those that measured the same. Pure.

    ``blank``: has the machine, the driver's start and the doubt of the whole measurement.
    """
    decode: dict[str, list[float]] = {}
    augment: dict[str, list[float]] = {}
    parts: dict[PartKey, list[PartSpeed]] = {}
    for answer, job in zip(answers, jobs, strict=True):
        for row in answer["decode"]:
            decode.setdefault(f"{row['view']}/{row['size']}", []).append(row["seconds"])
        for row in answer["recipes"]:
            augment.setdefault(f"{row['recipe']}/{row['size']}", []).append(row["seconds"])
        for row in answer["parts"]:
            config = TrialConfig(**job["parts"][row["place"]]["config"])
            parts.setdefault(PartKey.of(config, precision), []).append(_speed_of(row, bool(blank.doubt)))
    resets = [row["reset_s"] for answer in answers for row in answer["parts"]]
    return replace(
        blank,
        start_s=blank.driver_s + _mean(answer["start_s"] for answer in answers),
        decode_s={name: _mean(values) for name, values in decode.items()},
        augment_s={name: _mean(values) for name, values in augment.items()},
        parts={key: _mean_speed(speeds) for key, speeds in parts.items()},
        worker_bytes=max(int(answer["worker_bytes"]) for answer in answers),
        trial_s=TUNE_TRIAL_S + (float(np.median(resets)) if resets else 0.0),
    )


def _speed_of(row: Mapping[str, Any], doubtful: bool) -> PartSpeed:
    return PartSpeed(**{figure.name: row[figure.name] for figure in fields(PartFigures)}, doubtful=doubtful)


def _mean_speed(speeds: Sequence[PartSpeed]) -> PartSpeed:
    """Return the mean of all times; the bytes of a row are equal in all."""
    names = [figure.name for figure in fields(PartFigures) if figure.name != "row_bytes"]
    means: dict[str, Any] = {name: _mean(getattr(speed, name) for speed in speeds) for name in names}
    return replace(speeds[0], **means)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


@dataclass(frozen=True)
class CalibrationRequest:
    """What to calibrate for. ``address``: of a Ray cluster to join, "" for this machine. ``seconds``: maximum seconds
    that the workers measure."""

    spec: SweepSpec
    manifest: Manifest
    slots: Slots
    cache: Path
    address: str = ""
    seconds: float = MEASURE_S

    @property
    def precision(self) -> str:
        """The dtype policy of the workers."""
        return precision_of(self.spec, self.slots)

    @property
    def data(self) -> str:
        """The identity of the photos: their sources, so that added photos change nothing."""
        return "; ".join(self.spec.data.sources)

    @property
    def machine(self) -> str:
        return machine_name(self.slots, self.address)


def known(request: CalibrationRequest) -> Calibration | None:
    """Return this machine's calibration if it is complete for the space; otherwise None. Measures nothing."""
    kept = read_calibration(request.cache, request.machine)
    asked = measurement_plan(request.spec, request.precision)
    if kept is None:
        return None
    found = kept.of(request.data)
    if (asked.missing(found) and asked.digest not in kept.settled) or (asked.decode and not found.decode_s):
        return None
    return found


def doubts(request: CalibrationRequest, calibration: Calibration) -> list[str]:
    """Return why the parts of the request should be measured again, a sentence each."""
    return calibration.doubts(measurement_plan(request.spec, request.precision).parts)


def calibrated(
    request: CalibrationRequest,
    again: bool = False,
    ray_s: float = 0.0,
    tell: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """Return the calibration for a plan of the spec, and measure what the kept one lacks.

    Doubtful parts are used until the machine is quiet, and then measured again. Ray is started, or the cluster joined,
    unless it is running; ``ray_s`` is then the seconds that its start took. ``again``: measure everything. Raises
    OrchError.
    """
    kept = None if again else read_calibration(request.cache, request.machine)
    found = None if kept is None else known(request)
    if kept is not None and doubts(request, kept.calibration) and is_quiet(request.slots):
        kept = CalibrationFile(kept.calibration.trusted(), frozenset(), kept.data)
        tell("measuring again what is in doubt of this machine's speed, now that it is quiet: under a minute")
    elif found is not None:
        return found
    else:
        if kept is None and not again and os.path.exists(calibration_path(request.cache, request.machine)):
            tell(f"{calibration_path(request.cache, request.machine)} cannot be read and is measured again")
        tell(f"measuring how fast this machine is: under a minute, and kept for later plans in {request.cache}")
    return _measured(request, kept, ray_s, tell)


def _measured(
    request: CalibrationRequest, kept: CalibrationFile | None, ray_s: float, tell: Callable[[str], None]
) -> Calibration:
    """Measure what ``kept`` lacks, and write both. Raises OrchError."""
    from orchestrator.cluster.ray_session import ray_session  # Ray: seconds to import

    folder = request.cache / FOLDER
    require_writable(folder, f"Make {folder} writable, or set ORCH_CACHE to a folder of your own.")  # before Ray starts
    asked = measurement_plan(request.spec, request.precision)
    began_s = time.monotonic()
    with ray_session(request.address):
        ray_s = max(ray_s, time.monotonic() - began_s)
        new = measure(_remaining(asked, kept, request.data), request, ray_s, tell)
    found = kept.of(request.data).merged(new) if kept else new
    write_calibration(
        request.cache, CalibrationFile(found, (kept.settled if kept else frozenset()) | {asked.digest}, request.data)
    )
    return found


def is_quiet(slots: Slots) -> bool:
    """Return whether other programs leave the workers of ``slots`` their cores now. No sweep may be running."""
    return not busy_words(mean(sample() for _ in range(QUIET_SAMPLES)), slots.workers * slots.cpus)


def _remaining(asked: MeasurementPlan, kept: CalibrationFile | None, data: str) -> MeasurementPlan:
    """Return what remains to be measured, without parts that were requested before and did not fit in the time."""
    if kept is None:
        return asked
    left = asked.missing(kept.of(data))
    return replace(left, parts={}) if asked.digest in kept.settled else left
