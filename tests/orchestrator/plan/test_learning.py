"""What a sweep's own times change in a calibration: by hand, as a table, and what must never happen."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from orchestrator.ledger.segments import Event, EventKind
from orchestrator.plan.calibration import Calibration, PartKey
from orchestrator.plan.learning import LARGEST, LARGEST_IN_DOUBT, Learned, correction, learn
from tests.support.sweep_costs import CALIBRATION
from trainers.config import TrialConfig

KEY = PartKey("mobilenet_1.0", 224, 5)
CONFIG = TrialConfig(backbone="mobilenet_1.0", unfrozen_layers=5)
OTHERS = {key: speed for key, speed in CALIBRATION.parts.items() if key != KEY}


@pytest.mark.parametrize(
    ("ratio", "in_doubt", "expected"),
    [
        (1.0, False, 1.0),
        (1.2, False, 1.0),
        (0.82, False, 1.0),
        (1.44, False, 1.2),
        (0.64, False, 0.8),
        (4.0, False, LARGEST),
        (0.01, False, 1 / LARGEST),
        (1.2, True, 1.2),
        (0.2, True, 0.2),
        (1e6, True, LARGEST_IN_DOUBT),
        (1e-6, True, 1 / LARGEST_IN_DOUBT),
        (0.0, False, 1.0),
        (-1.0, True, 1.0),
        (math.nan, True, 1.0),
        (math.inf, False, 1.0),
    ],
)
def test_how_far_a_figure_moves(ratio: float, in_doubt: bool, expected: float) -> None:
    assert correction(ratio, in_doubt) == pytest.approx(expected)


def events(
    train_s: float, epochs: int = 4, seconds: float = 5.0, start_s: float = 8.0, built: Any = None, processes: int = 1
) -> list[Event]:
    """A sweep of one trial: its first worker begins after ``start_s``, its first epoch is slow."""
    made: list[Event] = []

    def add(time_s: float, kind: EventKind, **values: Any) -> None:
        made.append(Event(seq=len(made) + 1, time_s=time_s, kind=str(kind), **values))

    for process in range(processes):
        add(float(process), EventKind.SWEEP, state="RUNNING")
    add(float(processes - 1), EventKind.STAGE, stage="search", state="BEGUN")
    config = _json({"config": CONFIG.to_dict(), "number": 1})
    now_s = processes - 1 + start_s
    if built:
        now_s += built["seconds"]
        add(now_s, EventKind.STAGE, stage="prefill", state="ENDED", payload=_json({"for": "t", **built}))
    add(now_s, EventKind.TRIAL, trial="t", stage="search", state="RUNNING", payload=config)
    for epoch in range(1, epochs + 1):
        now_s += seconds
        each_s = train_s * (10 if epoch == 1 else 1)
        figures = {"seconds": seconds, "train_images_per_s": 1 / each_s}
        add(now_s, EventKind.EPOCH, trial="t", stage="search", epoch=epoch, **figures)
    add(now_s, EventKind.STAGE, stage="search", state="ENDED")
    return made


def _json(values: dict[str, Any]) -> str:
    import json

    return json.dumps(values)


def taught(calibration: Calibration = CALIBRATION, **values: Any) -> Learned:
    return learn(calibration, events(**values), "float32")


def test_a_sweep_as_it_was_planned_changes_nothing() -> None:
    assert taught(train_s=1.2 * CALIBRATION.parts[KEY].train_s) == Learned(CALIBRATION)


def test_slower_training_is_learnt_for_that_part_alone() -> None:
    before = CALIBRATION.parts[KEY]
    found = taught(train_s=1.69 * before.train_s)
    after = found.calibration.parts[KEY]
    assert after.train_s == pytest.approx(1.3 * before.train_s)
    assert after.predict_s == pytest.approx(1.3 * before.predict_s)
    assert (after.floor_train_s, after.prefix_s, after.doubtful) == (before.floor_train_s, before.prefix_s, False)
    assert {key: speed for key, speed in found.calibration.parts.items() if key != KEY} == OTHERS
    assert (found.changed, found.largest) == (1, pytest.approx(1.69))


def test_faster_training_lowers_the_bound_too() -> None:
    before = CALIBRATION.parts[KEY]
    after = taught(train_s=0.64 * before.train_s).calibration.parts[KEY]
    assert after.train_s == pytest.approx(0.8 * before.train_s)
    assert after.floor_train_s == pytest.approx(0.8 * before.floor_train_s)


def test_one_odd_sweep_spoils_nothing_and_several_alike_correct_it() -> None:
    true_s = CALIBRATION.parts[KEY].train_s
    odd = taught(train_s=50 * true_s).calibration
    assert odd.parts[KEY].train_s == pytest.approx(LARGEST * true_s)
    assert taught(odd, train_s=true_s).calibration.parts[KEY].train_s < 1.25 * true_s
    found = CALIBRATION
    for _ in range(4):
        found = taught(found, train_s=3 * true_s).calibration
    assert found.parts[KEY].train_s == pytest.approx(3 * true_s, rel=0.25)


@pytest.mark.parametrize(
    ("ratio", "seconds", "doubtful"), [(2.5, 30.0, True), (0.3, 30.0, True), (2.5, 5.0, False), (1.9, 30.0, False)]
)
def test_what_a_long_sweep_contradicts_is_measured_again(ratio: float, seconds: float, doubtful: bool) -> None:
    found = taught(train_s=ratio * CALIBRATION.parts[KEY].train_s, seconds=seconds).calibration
    assert found.parts[KEY].doubtful == doubtful
    assert bool(found.doubts([KEY])) == doubtful


def test_figures_of_a_busy_machine_are_corrected_at_once_and_stay_in_doubt() -> None:
    true_s = CALIBRATION.parts[KEY].train_s
    slow = dataclasses.replace(CALIBRATION.parts[KEY], train_s=5 * true_s, doubtful=True)
    busy = dataclasses.replace(
        CALIBRATION, parts={**CALIBRATION.parts, KEY: slow}, start_s=4.0 + 5 * 8.0, doubt="The machine was busy."
    )
    found = taught(busy, train_s=true_s).calibration
    assert found.parts[KEY].train_s == pytest.approx(true_s)
    assert found.worker_start_s == pytest.approx(8.0)
    assert found.doubts([KEY]) == ["The machine was busy."]


def test_the_start_of_the_workers_is_learnt() -> None:
    assert CALIBRATION.worker_start_s == 8.0
    found = taught(train_s=CALIBRATION.parts[KEY].train_s, start_s=18.0).calibration
    assert found.worker_start_s == pytest.approx(8.0 * 1.5)
    assert found.driver_s == CALIBRATION.driver_s


def test_frozen_layers_and_decoding_are_learnt_from_filling_the_store() -> None:
    before = CALIBRATION.parts[KEY]
    built = {"what": "w", "images": 4000, "features": 4000, "stored": True, "seconds": 240.0}
    built |= {"decode_s": 4000 * 4e-3 * 1.69, "prefix_s": 4000 * before.prefix_s * 1.96 + before.prefix_trace_s}
    found = taught(train_s=before.train_s, built=built).calibration
    assert found.parts[KEY].prefix_s == pytest.approx(1.4 * before.prefix_s)
    assert found.decode_s["squash/224"] == pytest.approx(1.3 * 4e-3)
    others = learn(CALIBRATION, events(before.train_s, built=built), "float32", same_data=False).calibration
    assert others.decode_s == CALIBRATION.decode_s


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 3},  # two besides the first
        {"processes": 2},
        {
            "built": {
                "what": "w",
                "images": 9,
                "features": 9,
                "stored": False,
                "seconds": 1.0,
                "decode_s": 1,
                "prefix_s": 1,
            }
        },
    ],
)
def test_what_teaches_nothing(values: dict[str, Any]) -> None:
    assert taught(train_s=10 * CALIBRATION.parts[KEY].train_s, **values) == Learned(CALIBRATION)


def test_another_precision_is_another_part() -> None:
    found = learn(CALIBRATION, events(10 * CALIBRATION.parts[KEY].train_s), "mixed_float16")
    assert found == Learned(CALIBRATION)
