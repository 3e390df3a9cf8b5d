"""What a machine's speed is known to be: there and back, the nearest known figure, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.calibration import Calibration, PartKey, PartSpeed
from trainers.contract import TrialConfig

SPEED = PartSpeed(3e-3, 1e-3, 5e-4, 8e-4, 2.0, 1.5, 200_704)
KEY = PartKey("mobilenet_0.5", 160, 5)
CALIBRATION = Calibration(
    machine="a machine",
    workers=2,
    start_s=12.0,
    decode_s={"squash/160": 2e-3, "squash/224": 3e-3, "random_crop/160": 4e-3},
    augment_s={"flips/160": 1e-4, "rich/160": 2e-3},
    parts={KEY: SPEED, dataclasses.replace(KEY, unfrozen_layers="all"): SPEED},
    worker_bytes=900_000_000,
    measured_at=1.7e9,
)


def test_there_and_back_through_json() -> None:
    assert Calibration.from_dict(json.loads(json.dumps(CALIBRATION.to_dict()))) == CALIBRATION


seconds = st.floats(0, 1e6)
keys = st.builds(PartKey, st.sampled_from(["resnet50", "my.module:NET"]), st.integers(8, 600), st.just("all"))
speeds = st.builds(PartSpeed, *[seconds] * 6, st.integers(0, 10**9), seconds, st.booleans())


@given(st.dictionaries(keys, speeds, max_size=4), st.dictionaries(st.just("squash/32"), seconds), seconds)
def test_any_calibration_survives_json(parts: dict, decode_s: dict, start_s: float) -> None:
    made = Calibration("m", 3, start_s, decode_s, {}, parts)
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def _without(name: str) -> dict[str, Any]:
    return {key: value for key, value in CALIBRATION.to_dict().items() if key != name}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "this is no calibration: 'schema'"),
        (_without("parts"), "this is no calibration: 'parts'"),
        ({**CALIBRATION.to_dict(), "schema": 0}, "this calibration is of schema 0, not 1"),
        ({**CALIBRATION.to_dict(), "start_s": -1.0}, "this is no calibration: start_s is -1.0"),
        ({**CALIBRATION.to_dict(), "decode_s": {"squash/8": float("nan")}}, "this is no calibration: squash/8 is nan"),
        ({**CALIBRATION.to_dict(), "workers": 0}, "it names no machine or no worker"),
        ({**CALIBRATION.to_dict(), "parts": [{"backbone": "resnet50"}]}, "this is no calibration: 'prefix_s'"),
        ([], "this is no calibration"),
    ],
)
def test_what_is_no_calibration_is_refused(values: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Calibration.from_dict(values)


@pytest.mark.parametrize(
    ("view", "size", "expected"),
    [
        ("squash", 160, 2e-3),  # measured
        ("squash", 150, 2e-3),  # the nearest size
        ("squash", 300, 3e-3),
        ("centre_crop", 160, 4e-3),  # an unknown view: the dearest
    ],
)
def test_decoding_takes_the_nearest_known_figure(view: str, size: int, expected: float) -> None:
    assert CALIBRATION.decode(view, size) == expected


def test_a_copy_of_another_size_costs_by_its_area() -> None:
    assert CALIBRATION.augment("rich", 160) == 2e-3
    assert CALIBRATION.augment("rich", 320) == pytest.approx(8e-3)
    assert CALIBRATION.augment("unknown", 160) == 2e-3
    assert Calibration("m", 1, 0.0).augment("rich", 160) == 0.0


def test_a_newer_calibration_is_laid_over_an_older_one() -> None:
    other = dataclasses.replace(KEY, image_size=224)
    newer = dataclasses.replace(CALIBRATION, decode_s={"squash/160": 5e-3}, parts={other: SPEED}, start_s=9.0)
    merged = CALIBRATION.merged(newer)
    assert merged.decode_s == {**CALIBRATION.decode_s, "squash/160": 5e-3}
    assert set(merged.parts) == {*CALIBRATION.parts, other}
    assert merged.start_s == 9.0


@pytest.mark.parametrize(
    ("config", "size", "mixes"),
    [(TrialConfig(), 224, False), (TrialConfig(image_size=96), 96, False), (TrialConfig(mixup=0.2), 224, True)],
)
def test_a_part_is_told_by_what_decides_its_speed(config: TrialConfig, size: int, mixes: bool) -> None:
    key = PartKey.of(config)
    assert (key.backbone, key.image_size, key.mixes) == ("mobilenet_1.0", size, mixes)
    assert PartKey.of(dataclasses.replace(config, dropout=0.5, head="arcface", learning_rate=0.1)) == key


@pytest.mark.parametrize(("ours", "bare", "better"), [(1.0, 2.0, 1.0), (2.0, 1.0, 1.0), (2.0, 0.0, 2.0)])
def test_the_floor_takes_the_better_of_two_steps(ours: float, bare: float, better: float) -> None:
    assert dataclasses.replace(SPEED, train_s=ours, floor_train_s=bare).bare_train_s == better
