"""Correct a calibration by the times of a finished sweep. Pure.

Every sweep records how fast each trial trained (``train_images_per_s`` of its epochs), what filling the store took, and
when its workers were ready: the quantities that a calibration measures in seconds. Each kept figure is compared with
the sweep's median (ratio = actual over kept) and corrected by these rules:

- a ratio within ``TOLERATED`` either way changes nothing: the plan was as right as it is known to be;
- otherwise the figure moves half of the way (the square root of the ratio), at most by ``LARGEST`` per sweep, so that
  one odd sweep does not spoil it and several alike correct it;
- a figure that is in doubt moves the whole way, at most by ``LARGEST_IN_DOUBT``: minutes of a sweep say more than
  seconds of a busy machine;
- training that was off by more than ``CONTRADICTED`` over ``MATTERS_S`` seconds is in doubt from then on: it is
  measured again before it is next needed (``calibrate.calibrated``).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.plan.calibration import Calibration, PartKey, PartSpeed
from orchestrator.plan.stage_times import actual
from trainers.config import TrialConfig

TOLERATED = 1.25
"""Factor, either way, within which actual and kept times count as equal; plans were within 1.22 of actual ones."""
LARGEST, LARGEST_IN_DOUBT = 1.5, 10.0
"""Maximum factors, either way, by which one sweep changes a figure."""
CONTRADICTED = 2.0
"""Factor, either way, beyond which training is measured again."""
MATTERS_S = 60.0
"""Minimum seconds of a part's epochs that can contradict its figures."""
FEWEST_EPOCHS = 3
"""Minimum epochs of a part to learn from, without a trial's first epoch, which traces."""
LEAST_BUILD_S = 10.0
"""Minimum seconds of frozen layers, or of decoding, to learn from."""


@dataclass(frozen=True)
class Learned:
    """``calibration``: the corrected one. ``changed``: number of changed figures. ``largest``: the largest ratio of
    actual to kept among them, or of kept to actual; 1 if none changed."""

    calibration: Calibration
    changed: int = 0
    largest: float = 1.0


def correction(ratio: float, in_doubt: bool) -> float:
    """Return the factor for a figure whose actual value was ``ratio`` times as large; see the module."""
    if not math.isfinite(ratio) or ratio <= 0:
        return 1.0
    if not in_doubt and 1 / TOLERATED <= ratio <= TOLERATED:
        return 1.0
    factor, most = (ratio, LARGEST_IN_DOUBT) if in_doubt else (math.sqrt(ratio), LARGEST)
    return min(max(factor, 1 / most), most)


def learn(calibration: Calibration, events: Sequence[Event], precision: str, same_data: bool = True) -> Learned:
    """Correct ``calibration`` by the sweep of ``events``. ``same_data``: its decoding times are of the same photos.

    A sweep of several processes teaches nothing, since their machines may differ. Trials must share features, so that
    an epoch runs only the part above the boundary; trials whose rows were not stored are left out.
    """
    times = actual(events)
    if times.processes != 1:
        return Learned(calibration)
    configs = _configs(events)
    trained, built = _training(events, configs, precision), _frozen(events, configs, precision, calibration)
    ratios, parts = _Ratios([]), dict[PartKey, PartSpeed]()
    for key, speed in calibration.parts.items():
        taught = trained.get(key)
        train_ratio = ratios.of(taught.train_s if taught else 0.0, speed.train_s, speed.doubtful)
        prefix_ratio = ratios.of(built.get(key, 0.0), speed.prefix_s, speed.doubtful)
        off = not 1 / CONTRADICTED <= train_ratio <= CONTRADICTED
        contradicted = taught is not None and taught.seconds >= MATTERS_S and off
        parts[key] = _corrected(speed, train_ratio, prefix_ratio, speed.doubtful or contradicted)
    in_doubt, started_s = bool(calibration.doubt), calibration.worker_start_s
    started_s *= correction(ratios.of(times.seconds.get("start", 0.0), started_s, in_doubt), in_doubt)
    decoding = _decoding(events, configs) if same_data else {}
    decode_s = {
        name: kept_s * correction(ratios.of(decoding.get(name, 0.0), kept_s, in_doubt), in_doubt)
        for name, kept_s in calibration.decode_s.items()
    }
    if not ratios.changing:
        return Learned(dataclasses.replace(calibration, parts=parts))
    found = dataclasses.replace(calibration, parts=parts, start_s=calibration.driver_s + started_s, decode_s=decode_s)
    return Learned(found, len(ratios.changing), max(max(ratio, 1 / ratio) for ratio in ratios.changing))


@dataclass(frozen=True)
class _Ratios:
    """Record the ratios that change a figure."""

    changing: list[float]

    def of(self, actual_s: float, kept_s: float, in_doubt: bool) -> float:
        """Return actual over kept; 1 if either is unknown."""
        if actual_s <= 0 or kept_s <= 0:
            return 1.0
        ratio = actual_s / kept_s
        if correction(ratio, in_doubt) != 1.0:
            self.changing.append(ratio)
        return ratio


def _corrected(speed: PartSpeed, train_ratio: float, prefix_ratio: float, doubtful: bool) -> PartSpeed:
    """Correct training and prediction by one factor. Slower epochs leave the bare step, which is the device's best."""
    train, prefix = correction(train_ratio, speed.doubtful), correction(prefix_ratio, speed.doubtful)
    return dataclasses.replace(
        speed,
        train_s=speed.train_s * train,
        predict_s=speed.predict_s * train,
        floor_train_s=speed.floor_train_s * min(train, 1.0),
        prefix_s=speed.prefix_s * prefix,
        doubtful=doubtful,
    )


# --- what the sweep's events hold ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trained:
    """``train_s``: median seconds per image; ``seconds``: of all its epochs together."""

    train_s: float
    seconds: float


def _configs(events: Sequence[Event]) -> dict[str, TrialConfig]:
    """Return trial -> configuration for trials whose rows were stored."""
    found = {
        event.trial: TrialConfig(**event.data["config"])
        for event in events
        if event.kind == EventKind.TRIAL and "config" in event.data
    }
    unstored = {
        event.data.get("for") for event in events if event.stage == Stage.PREFILL and not event.data.get("stored", True)
    }
    lost = {PartKey.of(config) for trial, config in found.items() if trial in unstored}
    return {trial: config for trial, config in found.items() if PartKey.of(config) not in lost}


def _training(events: Sequence[Event], configs: Mapping[str, TrialConfig], precision: str) -> dict[PartKey, _Trained]:
    """Return what trials teach of training; those that also draw images in each epoch teach nothing of it."""
    epochs: dict[PartKey, list[tuple[float, float]]] = {}
    fixed = {trial for trial, config in configs.items() if config.draws == "fixed"}
    for event in events:
        if event.kind == EventKind.EPOCH and not event.fold and event.epoch > 1 and event.trial in fixed:
            rate, seconds = event.train_images_per_s, event.seconds
            if rate and seconds and math.isfinite(rate) and rate > 0:
                key = PartKey.of(configs[event.trial], precision)
                epochs.setdefault(key, []).append((1 / rate, seconds))
    return {
        key: _Trained(statistics.median(each for each, _ in rows), sum(seconds for _, seconds in rows))
        for key, rows in epochs.items()
        if len(rows) >= FEWEST_EPOCHS
    }


def _frozen(
    events: Sequence[Event], configs: Mapping[str, TrialConfig], precision: str, calibration: Calibration
) -> dict[PartKey, float]:
    """Return the seconds per row of the frozen part, without tracing, which occurs once per prefill."""
    spent: dict[PartKey, list[tuple[float, int]]] = {}
    for event in _builds(events, configs):
        config = configs[event.data["for"]]
        key = PartKey.of(config, precision)
        if config.warm_head:  # its build runs two frozen parts
            continue
        if event.data["features"] and key in calibration.parts:
            seconds = event.data["prefix_s"] - calibration.parts[key].prefix_trace_s
            spent.setdefault(key, []).append((seconds, event.data["features"]))
    totals = {key: (sum(s for s, _ in rows), sum(n for _, n in rows)) for key, rows in spent.items()}
    return {key: seconds / count for key, (seconds, count) in totals.items() if seconds >= LEAST_BUILD_S}


def _decoding(events: Sequence[Event], configs: Mapping[str, TrialConfig]) -> dict[str, float]:
    """ "view/size" -> seconds a photo, from builds of trials without copies, which are made otherwise."""
    spent: dict[str, list[tuple[float, int]]] = {}
    for event in _builds(events, configs):
        config = configs[event.data["for"]]
        if config.multiplier <= 1 and config.view != "random_crop" and event.data["images"]:
            name = f"{config.framing}/{PartKey.of(config).image_size}"
            spent.setdefault(name, []).append((event.data["decode_s"], event.data["images"]))
    totals = {name: (sum(s for s, _ in rows), sum(n for _, n in rows)) for name, rows in spent.items()}
    return {name: seconds / count for name, (seconds, count) in totals.items() if seconds >= LEAST_BUILD_S}


def _builds(events: Sequence[Event], configs: Mapping[str, TrialConfig]) -> list[Event]:
    return [
        event
        for event in events
        if event.kind == EventKind.STAGE
        and event.stage == Stage.PREFILL
        and event.state == "ENDED"
        and event.data.get("for") in configs
        and {"images", "features", "decode_s", "prefix_s"} <= event.data.keys()
    ]
