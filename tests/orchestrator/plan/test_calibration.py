"""What a machine's speed is known to be: there and back, the nearest known figure, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.calibration import Calibration, PartKey, PartSpeed, busy_words
from trainers.config import TrialConfig
from trainers.training.load import Load, mean

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


OLD = """{"machine": "a machine", "workers": 2, "start_s": 12.0, "decode_s": {"squash/160": 0.002},
"augment_s": {"flips/160": 0.0001}, "worker_bytes": 900000000, "trial_s": 0.05, "driver_s": 4.0, "measured_at": 1.7e9,
"schema": 1, "parts": [{"backbone": "mobilenet_0.5", "image_size": 160, "unfrozen_layers": 5, "output_stride": 32,
"feature_fusion": "none", "pooling": "average", "batch_size": 32, "precision": "float32", "mixes": false,
"prefix_s": 0.003, "train_s": 0.001, "predict_s": 0.0005, "floor_train_s": 0.0008, "open_s": 2.0, "trace_s": 1.5,
"row_bytes": 200704, "prefix_trace_s": 0.0, "exact": true}]}"""
"""As 42b062d wrote it."""


def test_what_was_written_before_there_were_doubts_is_read_and_believed() -> None:
    found = Calibration.from_dict(json.loads(OLD))
    assert found.parts == {KEY: SPEED}
    assert (found.start_s, found.driver_s, found.doubt, found.doubts([KEY])) == (12.0, 4.0, "", [])


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
def test_a_part_is_reported_by_what_decides_its_speed(config: TrialConfig, size: int, mixes: bool) -> None:
    key = PartKey.of(config)
    assert (key.backbone, key.image_size, key.mixes) == ("mobilenet_1.0", size, mixes)
    assert PartKey.of(dataclasses.replace(config, dropout=0.5, head="arcface", learning_rate=0.1)) == key


@pytest.mark.parametrize(("ours", "bare", "better"), [(1.0, 2.0, 1.0), (2.0, 1.0, 1.0), (2.0, 0.0, 2.0)])
def test_the_floor_takes_the_better_of_two_steps(ours: float, bare: float, better: float) -> None:
    assert dataclasses.replace(SPEED, train_s=ours, floor_train_s=bare).bare_train_s == better


# doubts


BUSY = "The machine was busy."


@pytest.mark.parametrize(
    ("share", "others", "cores", "wanted", "busy"),
    [
        (1.0, 0.0, 2, 2.0, False),
        (0.97, 0.2, 2, 2.0, False),
        (0.7, 0.6, 2, 2.0, True),
        (0.2, 1.9, 2, 2.0, True),  # load 8 on two cores
        (1.0, 1.0, 2, 1.0, False),  # on the core that is left free
        (0.5, 1.5, 2, 1.0, True),
        (0.4, 0.0, 2, 2.0, False),  # a container's limit: no other program, and the sweep will have it too
        (1.0, 6.0, 64, 64.0, False),
        (0.8, 20.0, 64, 64.0, True),
        (1.0, 20.0, 64, 32.0, False),
        (0.3, 1.8, 2, 0.0, True),
        (0.5, float("nan"), 2, 2.0, True),  # the system shows nothing of others
        (0.9, float("nan"), 2, 2.0, False),
    ],
)
def test_a_busy_machine(share: float, others: float, cores: int, wanted: float, busy: bool) -> None:
    words = busy_words(Load(share, others, cores), wanted)
    assert bool(words) == busy
    assert not busy or (f"{100 * share:.0f} % of a core" in words and "busy" in words)


def test_nothing_sampled_is_no_load() -> None:
    assert mean([]) is None
    assert busy_words(None, 2.0) == ""
    assert mean([Load(1.0, 0.5, 2), Load(0.5, 1.5, 2)]) == Load(0.75, 1.0, 2)


def test_what_is_in_doubt_is_left_out_to_be_measured_again() -> None:
    other = dataclasses.replace(KEY, image_size=224)
    doubtful = dataclasses.replace(SPEED, doubtful=True)
    mixed = dataclasses.replace(CALIBRATION, parts={KEY: SPEED, other: doubtful})
    assert mixed.doubts([KEY]) == []
    assert "1 of 2 kinds" in mixed.doubts([KEY, other])[0]
    assert mixed.trusted() == dataclasses.replace(mixed, parts={KEY: SPEED})
    busy = dataclasses.replace(mixed, doubt=BUSY)
    assert busy.doubts([]) == [BUSY]
    assert (busy.trusted().decode_s, busy.trusted().augment_s, busy.trusted().doubt) == ({}, {}, "")
    assert Calibration.from_dict(json.loads(json.dumps(busy.to_dict()))) == busy


def test_a_busy_measurement_replaces_nothing_that_is_not_in_doubt() -> None:
    other = dataclasses.replace(KEY, image_size=224)
    doubtful = dataclasses.replace(SPEED, doubtful=True)
    values = {"start_s": 99.0, "decode_s": {"squash/160": 1.0}, "augment_s": {}, "parts": {other: doubtful}}
    busy = dataclasses.replace(CALIBRATION, doubt=BUSY, **values)
    merged = CALIBRATION.merged(busy)
    assert (merged.start_s, merged.decode_s, merged.doubt) == (12.0, CALIBRATION.decode_s, "")
    assert merged.parts == {**CALIBRATION.parts, other: doubtful}
    new = CALIBRATION.merged(dataclasses.replace(busy, decode_s={"squash/96": 1.0}))
    assert (new.start_s, new.decode_s["squash/96"], new.doubt) == (12.0, 1.0, BUSY)
    assert busy.trusted().merged(CALIBRATION).doubt == ""
