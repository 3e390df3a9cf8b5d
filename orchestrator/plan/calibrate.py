"""Calibrate: what of a space to measure on this machine, where the figures are kept, and the measuring itself.

``trainers.training.measure`` measures, on every slot at once. Kept below the cache in a file for each machine, so
that a second plan of the same space measures nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.errors import OrchError
from orchestrator.machine.environment import cores, cpu_model, gpu_capability, gpu_names, package_versions
from orchestrator.plan.calibration import Calibration, PartKey, PartSpeed, busy_words
from orchestrator.plan.draws import many_of
from orchestrator.plan.estimates import UNKNOWN_RATE, cost_of
from orchestrator.spec.slots import Slots
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig
from trainers.contract import PartFigures
from trainers.data.manifest import Manifest
from trainers.files.atomic import atomic_write_text
from trainers.networks.costs import layers_of
from trainers.training.load import Load, mean, sample

MEASURE_S = 32.0
"""How long the workers measure; with their start it stays under a minute."""
PART_AT_LEAST_S = 5.0
"""What a part takes of it at least, most of it to open and trace its network."""
BUILD_LAYER_S, TRACE_LAYER_S = 0.02, 0.035
"""What a layer takes to build, and one above the boundary to trace, at the low end of what was seen on a CPU: MobileNet
0.5 took 4 s for the 86 of its layers, EfficientNetV2-L at 480 px 118 s for 1,028."""
FORWARD_RUNS, TRAINING_RUNS = 4, 6
"""How often one image runs through a part at the least until it is measured."""
FIRST_PART = 3
"""Of the time to measure, a part may take the FIRST_PART-th; larger ones come where time is left."""
SAME_BACKBONE = 0.4
"""Weight of a further part of a backbone that is measured already: others of it can be estimated from the first."""
DRIVER_S = 3.0
"""What a sweep's driver takes before it asks for a worker, besides Ray's start: imports, record, sampler."""
UNKNOWN_FIRST = 100
"""A backbone that no table knows counts as so many times its stand-in where it is decided what to measure."""
QUIET_SAMPLES = 3
"""Samples of the machine's load, a quarter of a second each, that show whether measuring again is worth it."""
TUNE_TRIAL_S = 0.05
"""What a trial costs besides opening its fit: scheduling, and the record."""


@dataclass(frozen=True)
class PartToMeasure:
    """An architecture to measure: one configuration that has it, and how often the space does (a share)."""

    config: TrialConfig
    weights: str
    share: float = 1.0


@dataclass(frozen=True)
class MeasurementPlan:
    """What a plan of a space asks of a calibration; ``parts`` in the order in which they matter."""

    parts: Mapping[PartKey, PartToMeasure]
    decode: tuple[tuple[str, int], ...]
    recipes: tuple[tuple[str, int], ...]

    def missing(self, known: Calibration | None) -> MeasurementPlan:
        """What ``known`` does not hold."""
        if known is None:
            return self
        return MeasurementPlan(
            {key: part for key, part in self.parts.items() if key not in known.parts},
            tuple(each for each in self.decode if f"{each[0]}/{each[1]}" not in known.decode_s),
            tuple(each for each in self.recipes if f"{each[0]}/{each[1]}" not in known.augment_s),
        )

    def __bool__(self) -> bool:
        return bool(self.parts or self.decode or self.recipes)

    @property
    def digest(self) -> str:
        """Of what is asked for, whatever the order and the shares."""
        text = repr([sorted(map(repr, self.parts)), sorted(self.decode), sorted(self.recipes)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- what to measure ----------------------------------------------------------------------------------------------


def measurement_plan(spec: SweepSpec, precision: str = "float32") -> MeasurementPlan:
    """The parts that trials of ``spec`` have: first what costs most and comes often, other backbones before other
    depths of one. ``precision``: in force. Pure."""
    configs = many_of(spec)
    counts = Counter(PartKey.of(config, precision) for config in configs)
    first = {PartKey.of(config, precision): config for config in reversed(configs)}
    parts = {
        key: PartToMeasure(first[key], spec.weights_for(key.backbone), counts[key] / len(configs))
        for key in _ordered(counts)
    }
    decode = Counter((view, PartKey.of(c).image_size) for c in configs for view in _views(c))
    recipes = Counter((c.recipe, PartKey.of(c).image_size) for c in configs if c.multiplier > 1)
    return MeasurementPlan(parts, tuple(each for each, _ in decode.most_common()), _one_size(recipes))


def _ordered(counts: Mapping[PartKey, int]) -> list[PartKey]:
    """The keys, greedily by count x work."""
    left = {key: count * _work(key) for key, count in counts.items()}
    chosen: list[PartKey] = []
    while left:
        best = max(left, key=lambda key: left[key])
        chosen.append(best)
        del left[best]
        left = {key: w * (SAME_BACKBONE if key.backbone == best.backbone else 1.0) for key, w in left.items()}
    return chosen


def _work(key: PartKey) -> float:
    found = cost_of(key)
    # One of the user's own is in no table, and nothing tells of it but measuring: before most others.
    return (found.prefix_work + found.train_work) * (1 if layers_of(key.backbone) else UNKNOWN_FIRST)


def _views(config: TrialConfig) -> tuple[str, ...]:
    """What training and validation see: a random crop is judged by the centre crop."""
    return ("random_crop", "centre_crop") if config.view == "random_crop" else (config.view,)


def _one_size(recipes: Counter[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Each recipe at the size that it comes in most often; at others it takes as long for as many pixels."""
    found: dict[str, int] = {}
    for (recipe, size), _ in recipes.most_common():
        found.setdefault(recipe, size)
    return tuple(found.items())


# --- what is kept -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CalibrationFile:
    """What lies in the cache for one machine. ``settled``: digests of what was asked for already, so that what did not
    fit into the time then is estimated, and not measured by every further plan. ``data``: whose photos were decoded, ""
    for anybody's: those of other data are of other sizes and formats."""

    calibration: Calibration
    settled: frozenset[str] = frozenset()
    data: str = ""

    def of(self, data: str) -> Calibration:
        """Without the times of decoding where they are not those of ``data``."""
        return self.calibration if self.data in ("", data) else replace(self.calibration, decode_s={})


def precision_of(spec: SweepSpec, slots: Slots) -> str:
    """The Keras dtype policy that workers come to, as ``trainers.training.device`` does: what the device is good at."""
    if spec.resources.precision != "auto":
        return spec.resources.precision
    if not slots.gpus:
        return "float32"
    return "mixed_bfloat16" if gpu_capability() >= 8 else "mixed_float16"


def machine_name(slots: Slots, address: str = "") -> str:
    """All that the figures depend on besides the parts, as one line that a person can read."""
    threads = max(1, int(slots.cpus))
    each = f"{threads} thread{'s' * (threads > 1)}" + (f" and {slots.gpus:g} GPU" if slots.gpus else "")
    versions = package_versions(("tensorflow", "orch"))
    parts = [cpu_model(), f"{cores()} cores", ", ".join(gpu_names()) or "no GPU"]
    parts += [f"{slots.workers} worker{'s' * (slots.workers > 1)} of {each}"]
    parts += [f"{name} {version}" for name, version in versions.items()]
    return "; ".join([*parts, *([f"cluster {address}"] if address else [])])


def calibration_path(cache: Path, machine: str) -> Path:
    return cache / "calibration" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"


def read_calibration(cache: Path, machine: str) -> CalibrationFile | None:
    """What was measured on ``machine`` before; None where nothing was, or where the file is damaged."""
    try:
        raw = json.loads(calibration_path(cache, machine).read_text())
        settled, data = frozenset(map(str, raw["settled"])), str(raw.get("data", "unknown"))
        found = CalibrationFile(Calibration.from_dict(raw["calibration"]), settled, data)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if found.calibration.machine == machine else None


def write_calibration(cache: Path, kept: CalibrationFile) -> Path:
    """Write ``kept`` below the cache. Raises OrchError where the cache cannot be written."""
    file = calibration_path(cache, kept.calibration.machine)
    content = {"calibration": kept.calibration.to_dict(), "settled": sorted(kept.settled), "data": kept.data}
    text = json.dumps(content, indent=1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(file, text)
    except OSError as error:
        raise OrchError(
            f"the calibration cannot be kept in {file.parent} ({error.strerror or error}); free some space there, or "
            "set ORCH_CACHE to a folder on another disk."
        ) from error
    return file


# --- measuring ----------------------------------------------------------------------------------------------------


def measure(asked: MeasurementPlan, request: CalibrationRequest, ray_s: float) -> Calibration:
    """Measure what ``asked`` names, as far as it fits into ``request.seconds``, on every slot at once. Ray must be up.

    ``ray_s``: what Ray took to start. Raises OrchError with the sentence of a TrainerError.
    """
    from orchestrator.cluster.ray_session import run_jobs  # Ray: seconds to import

    slots, precision = request.slots, request.precision
    jobs = jobs_for(asked, slots, request.seconds)
    folder = request.cache / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f".manifest-{request.manifest.fingerprint}-{os.getpid()}.parquet"
    try:
        request.manifest.write(file)
        more = {"manifest": str(file), "asked_at": time.time(), "precision": precision}
        more |= {"threads": 1, "gpu_memory_share": min(1.0, slots.gpus), "seconds": request.seconds}
        filled = [{**job, **more} for job in jobs]
        answers = run_jobs("trainers.training.measure:measure", filled, slots.cpus, gpus=slots.gpus, fresh=True)
    finally:
        file.unlink(missing_ok=True)
    driver_s = DRIVER_S + ray_s
    load = mean(Load(**each) for answer in answers for each in answer["loads"])
    doubt = busy_words(load, slots.workers * slots.cpus)
    blank = Calibration(request.machine, slots.workers, 0.0, driver_s=driver_s, measured_at=time.time(), doubt=doubt)
    return calibration_of(answers, jobs, precision, blank)


def jobs_for(asked: MeasurementPlan, slots: Slots, seconds: float = MEASURE_S) -> list[dict[str, Any]]:
    """One job for each slot: they share the parts; where there are fewer, several measure the same. Pure.

    No more parts than ``seconds`` are enough for, and large ones last: where several small ones fit in, they say more
    of the space than one large network would. Views, sizes and recipes are timed by every worker.
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
        chosen[0].append(min(left, key=lambda key: left[key]))  # whatever it takes: something must be known
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
    """About how long a worker needs to measure a part: to build and trace its layers, and to run it a few times. Pure.

    A GPU runs networks so fast that building and tracing are all that counts. Of a backbone that no table knows the
    least is taken: nothing but measuring tells of it.
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
    """What the workers answered, as one value: the mean over those that measured the same. Pure.

    ``blank``: with the machine, the driver's own start, and what makes all of it doubtful.
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
    """The mean of every second; a row has the same bytes for all."""
    names = [figure.name for figure in fields(PartFigures) if figure.name != "row_bytes"]
    means: dict[str, Any] = {name: _mean(getattr(speed, name) for speed in speeds) for name in names}
    return replace(speeds[0], **means)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


@dataclass(frozen=True)
class CalibrationRequest:
    """What a calibration is for. ``address``: of a Ray cluster to join, "" for this machine. ``seconds``: how long the
    workers measure."""

    spec: SweepSpec
    manifest: Manifest
    slots: Slots
    cache: Path
    address: str = ""
    seconds: float = MEASURE_S

    @property
    def precision(self) -> str:
        """In force on the workers."""
        return precision_of(self.spec, self.slots)

    @property
    def data(self) -> str:
        """What the photos are known by: where they come from, whatever is added to them."""
        return "; ".join(self.spec.data.sources)

    @property
    def machine(self) -> str:
        return machine_name(self.slots, self.address)


def known(request: CalibrationRequest) -> Calibration | None:
    """What is kept for this machine, if it is all that can be measured for the space; else None. Measures nothing."""
    kept = read_calibration(request.cache, request.machine)
    asked = measurement_plan(request.spec, request.precision)
    if kept is None:
        return None
    found = kept.of(request.data)
    if (asked.missing(found) and asked.digest not in kept.settled) or (asked.decode and not found.decode_s):
        return None
    return found


def doubts(request: CalibrationRequest, calibration: Calibration) -> list[str]:
    """Why what a plan of the request takes from ``calibration`` should be measured again, a sentence each."""
    return calibration.doubts(measurement_plan(request.spec, request.precision).parts)


def calibrated(
    request: CalibrationRequest,
    again: bool = False,
    ray_s: float = 0.0,
    tell: Callable[[str], None] = lambda line: None,
) -> Calibration:
    """The calibration that a plan of the spec needs: what is kept, and what is missing of it measured now.

    What is in doubt is measured again once the machine is quiet, and used until then. Ray is started for it, or the
    cluster joined, unless it is up; then ``ray_s`` says what it took to start. ``again``: measure all of it, whatever
    is kept. Raises OrchError.
    """
    kept = None if again else read_calibration(request.cache, request.machine)
    found = None if kept is None else known(request)
    if kept is not None and doubts(request, kept.calibration) and is_quiet(request.slots):
        kept = CalibrationFile(kept.calibration.trusted(), frozenset(), kept.data)
        tell("measuring again what is in doubt of this machine's speed, now that it is quiet: under a minute")
    elif found is not None:
        return found
    else:
        if kept is None and not again and calibration_path(request.cache, request.machine).exists():
            tell(f"{calibration_path(request.cache, request.machine)} cannot be read and is measured again")
        tell(f"measuring how fast this machine is: under a minute, and kept for later plans in {request.cache}")
    return _measured(request, kept, ray_s)


def _measured(request: CalibrationRequest, kept: CalibrationFile | None, ray_s: float) -> Calibration:
    """What ``kept`` lacks is measured and kept with it."""
    from orchestrator.cluster.ray_session import ray_session  # Ray: seconds to import

    asked = measurement_plan(request.spec, request.precision)
    began_s = time.monotonic()
    with ray_session(request.address):
        ray_s = max(ray_s, time.monotonic() - began_s)
        new = measure(_left(asked, kept, request.data), request, ray_s)
    found = kept.of(request.data).merged(new) if kept else new
    write_calibration(
        request.cache, CalibrationFile(found, (kept.settled if kept else frozenset()) | {asked.digest}, request.data)
    )
    return found


def is_quiet(slots: Slots) -> bool:
    """Whether other programs leave the workers of ``slots`` their cores just now. Nothing of a sweep may run."""
    return not busy_words(mean(sample() for _ in range(QUIET_SAMPLES)), slots.workers * slots.cpus)


def _left(asked: MeasurementPlan, kept: CalibrationFile | None, data: str) -> MeasurementPlan:
    """What is to be measured still: of parts that were asked for before, and did not fit in, none."""
    if kept is None:
        return asked
    left = asked.missing(kept.of(data))
    return replace(left, parts={}) if asked.digest in kept.settled else left
