"""The measured speed of a machine, from which a plan takes all its times; kept as JSON. Pure.

Every figure is of one worker while every worker of the machine is busy, so that contention is in it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from trainers.config import PrefixConfig, TrialConfig
from trainers.contract import PartFigures
from trainers.training.load import Load

SCHEMA = 1
"""Version of the JSON, raised when a figure changes its meaning; other versions are measured again."""
OTHERS_SHARE = 1 / 8
"""Maximum share of the workers' cores that other programs may use in a trusted measurement."""
CORE_SHARE = 0.85
"""Minimum share of a core that a busy thread must get if other programs are unknown."""


@dataclass(frozen=True)
class PartKey(PrefixConfig):
    """What decides the seconds per image of a network's parts: the prefix, whatever its weights, and the batch size."""

    batch_size: int = 32

    @classmethod
    def of(cls, config: TrialConfig, precision: str = "float32") -> PartKey:
        return cls(**vars(config.prefix(precision)), batch_size=config.batch_size)


@dataclass(frozen=True)
class PartSpeed(PartFigures):
    """The speed of one part. ``exact``: measured for this part, not estimated from a relative. ``doubtful``: measured
    on a busy machine, or contradicted by a sweep, so it is to be measured again."""

    exact: bool = True
    doubtful: bool = False

    @property
    def bare_train_s(self) -> float:
        """Seconds per image of the trainable part at the device's best: the smaller of our step and the bare one."""
        return min(self.train_s, self.floor_train_s) if self.floor_train_s > 0 else self.train_s


@dataclass(frozen=True)
class Calibration:
    """The speed of one worker of ``machine``, measured while ``workers`` of them were busy.

    ``start_s``: seconds until the first worker can train: Ray, and TensorFlow in the worker. ``driver_s``: the part of
    it that occurs once per sweep, Ray's start; each further stage starts new workers. ``decode_s``: "view/size" ->
    seconds to decode a photo and make it square. ``augment_s``: "recipe/size" -> seconds of one augmented copy, without
    decoding. ``worker_bytes``: memory of a warm worker without rows. ``trial_s``: overhead of a trial in a warm worker.
    ``measured_at``: seconds since 1970. ``doubt``: why the figures other than ``parts`` should be measured again, ""
    if they need not.
    """

    machine: str
    workers: int
    start_s: float
    decode_s: Mapping[str, float] = field(default_factory=dict)
    augment_s: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[PartKey, PartSpeed] = field(default_factory=dict)
    worker_bytes: int = 0
    trial_s: float = 0.1
    driver_s: float = 0.0
    measured_at: float = 0.0
    doubt: str = ""

    def decode(self, view: str, size: int) -> float:
        """Return the seconds to decode a photo for ``size``; if not measured, those of the nearest size or view."""
        return _nearest(self.decode_s, view, size, by_area=False)

    def augment(self, recipe: str, size: int) -> float:
        """Return the seconds of one copy: other sizes by their area, unknown recipes as the slowest known one."""
        return _nearest(self.augment_s, recipe, size, by_area=True)

    def doubts(self, keys: Iterable[PartKey]) -> list[str]:
        """Return why the figures for a plan of ``keys`` should be measured again, a sentence each."""
        known = [self.parts[key] for key in keys if key in self.parts]
        doubtful = sum(speed.doubtful for speed in known)
        found = [self.doubt] if self.doubt else []
        if doubtful and not self.doubt:
            found = [
                f"{doubtful} of {len(known)} kinds of network were measured on a busy machine, or took less than half "
                "or more than twice as long in a sweep as was measured."
            ]
        return found

    def trusted(self) -> Calibration:
        """Return a copy without doubtful figures; every measurement includes the start of workers."""
        parts = {key: speed for key, speed in self.parts.items() if not speed.doubtful}
        if not self.doubt:
            return dataclasses.replace(self, parts=parts)
        return dataclasses.replace(self, decode_s={}, augment_s={}, parts=parts, doubt="")

    def merged(self, newer: Calibration) -> Calibration:
        """Return the figures of both, preferring ``newer``; its doubtful figures replace no trusted ones."""
        steady = self if newer.doubt and not self.doubt else newer
        decode_s = {**self.decode_s, **newer.decode_s, **steady.decode_s}
        augment_s = {**self.augment_s, **newer.augment_s, **steady.augment_s}
        is_new = steady is newer or len(decode_s) > len(self.decode_s) or len(augment_s) > len(self.augment_s)
        return dataclasses.replace(
            newer,
            start_s=steady.start_s,
            driver_s=steady.driver_s,
            decode_s=decode_s,
            augment_s=augment_s,
            parts={**self.parts, **newer.parts},
            worker_bytes=max(self.worker_bytes, newer.worker_bytes),
            trial_s=steady.trial_s if newer.parts else self.trial_s,
            doubt=(newer.doubt or self.doubt) if is_new else self.doubt,
        )

    def to_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        parts = [{**dataclasses.asdict(key), **dataclasses.asdict(speed)} for key, speed in self.parts.items()]
        return plain | {
            "schema": SCHEMA,
            "decode_s": dict(self.decode_s),
            "augment_s": dict(self.augment_s),
            "parts": parts,
        }

    @property
    def worker_start_s(self) -> float:
        """Seconds until new workers are ready while Ray is running."""
        return max(self.start_s - self.driver_s, 0.0)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``. Raises ValueError for anything else."""
        try:
            return cls._read(values)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is no calibration: {error}") from error

    @classmethod
    def _read(cls, values: Mapping[str, Any]) -> Self:
        if values["schema"] != SCHEMA:
            raise ValueError(f"this calibration is of schema {values['schema']}, not {SCHEMA}")
        key_names = [f.name for f in dataclasses.fields(PartKey)]
        # Files without ``doubtful`` are older; they are trusted.
        speed_names = [f.name for f in dataclasses.fields(PartSpeed) if f.name != "doubtful"]
        parts = {}
        for part in values["parts"]:
            speed = PartSpeed(**{name: part[name] for name in speed_names}, doubtful=bool(part.get("doubtful")))
            _check_seconds(dataclasses.asdict(speed))
            parts[PartKey(**{name: part[name] for name in key_names})] = speed
        names = [f.name for f in dataclasses.fields(cls) if f.name not in ("parts", "doubt")]
        made = cls(**{name: values[name] for name in names}, parts=parts, doubt=str(values.get("doubt", "")))
        _check_seconds({**made.decode_s, **made.augment_s, "start_s": made.start_s})
        _check_seconds({"trial_s": made.trial_s, "driver_s": made.driver_s})
        if not isinstance(made.machine, str) or int(made.workers) < 1:
            raise ValueError("this is no calibration: it names no machine or no worker")
        return made


def busy_words(load: Load | None, wanted_cores: float) -> str:
    """Return a sentence if ``load`` slowed workers that use ``wanted_cores``, otherwise "".

    Other programs may use the cores that the workers leave free, and ``OTHERS_SHARE`` of the workers' own.
    """
    if load is None:
        return ""
    got = f"a thread of a worker got {100 * load.core_share:.0f} % of a core"
    if math.isnan(load.others_cores):
        return f"The machine was busy while it was measured: {got}." if load.core_share < CORE_SHARE else ""
    wanted_cores = min(max(wanted_cores, 1.0), load.cores)
    if load.others_cores <= load.cores - wanted_cores + OTHERS_SHARE * wanted_cores:
        return ""
    return (
        f"The machine was busy while it was measured: other programs used {load.others_cores:.1f} of its {load.cores} "
        f"cores, and {got}."
    )


def _check_seconds(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"this is no calibration: {name} is {value!r}")


def _nearest(known: Mapping[str, float], what: str, size: int, by_area: bool) -> float:
    """Return the figure of "what/size", of the nearest size, or the slowest of all others; 0 if none is known."""
    sizes = {int(name.rpartition("/")[2]): s for name, s in known.items() if name.rpartition("/")[0] == what}
    if not sizes:
        others = {name.rpartition("/")[0] for name in known} - {what}
        return max((_nearest(known, other, size, by_area) for other in others), default=0.0)
    near = min(sizes, key=lambda each: (abs(math.log(each / size)), each))
    return sizes[near] * ((size / near) ** 2 if by_area else 1.0)


@dataclass(frozen=True)
class Machine:
    """The machine of a sweep. ``workers``: trials at once, over all nodes; ``nodes`` share one store or have one each.

    ``network_factor``: speed of networks on a worker over one of the calibration; 1 for the calibrated machine.
    ``memory_bytes``: 0 if unknown. ``measured``: whether it is the calibrated machine itself.
    """

    workers: int
    nodes: int = 1
    gpus: float = 0.0
    shared_store: bool = True
    network_factor: float = 1.0
    memory_bytes: int = 0
    measured: bool = True
    name: str = ""
