"""Parts that were not measured, from those that were."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.calibration import Calibration, Machine, PartKey
from orchestrator.plan.estimates import GPU_STEP_S, UNKNOWN_RATE, Speeds, cost_of, family, unknown_backbones
from tests.support.sweep_costs import CALIBRATION, speed
from trainers.backbones import BACKBONES

HEAD = PartKey("mobilenet_1.0", 224, 0)
WHOLE = PartKey("mobilenet_1.0", 224, "all")
EMPTY = Calibration("m", 1, 0.0)


def speeds(calibration: Calibration = CALIBRATION, **machine: object) -> Speeds:
    return Speeds(calibration, Machine(**({"workers": 2} | machine)))  # type: ignore[arg-type]


def test_what_was_measured_is_not_estimated() -> None:
    known = speeds()
    assert known.of(HEAD) == CALIBRATION.parts[HEAD]
    assert known.estimated == set()


def test_another_batch_size_of_the_same_part_has_its_speed() -> None:
    known, key = speeds(), dataclasses.replace(HEAD, batch_size=64)
    assert known.of(key) == dataclasses.replace(CALIBRATION.parts[HEAD], exact=False)
    assert known.estimated == {key}


def test_another_depth_takes_the_speed_of_its_own_backbone() -> None:
    key = PartKey("mobilenet_1.0", 224, 40)
    found, cost, near = speeds().of(key), cost_of(key), cost_of(WHOLE)
    rates = [cost_of(k).prefix_work / s.prefix_s for k, s in CALIBRATION.parts.items() if s.prefix_s]
    assert min(rates) * 0.99 < cost.prefix_work / found.prefix_s < max(rates) * 1.01
    assert CALIBRATION.parts[PartKey("mobilenet_1.0", 224, 13)].train_s < found.train_s < 50e-3
    assert found.row_bytes == cost.row_bytes()
    assert near.prefix_work == 0


def test_a_relative_of_the_family_comes_before_one_of_like_size() -> None:
    parts = {HEAD: speed(16e-3, 3e-5, 1e-5), PartKey("vgg16", 224, 0): speed(0.5, 3e-5, 1e-5)}
    known = speeds(dataclasses.replace(EMPTY, parts=parts))
    mobile, vgg = (known.of(PartKey(name, 224, 0)) for name in ("mobilenet_v2", "vgg19"))
    work = {name: cost_of(PartKey(name, 224, 0)).prefix_work for name in ("mobilenet_v2", "vgg19", "vgg16")}
    assert mobile.prefix_s == pytest.approx(16e-3 * work["mobilenet_v2"] / cost_of(HEAD).prefix_work)
    assert vgg.prefix_s == pytest.approx(0.5 * work["vgg19"] / work["vgg16"])
    assert mobile.train_s == pytest.approx(3e-5)  # a head costs its step alone


def test_without_any_measurement_a_plain_core_is_assumed() -> None:
    found = speeds(EMPTY).of(HEAD)
    assert found.prefix_s == pytest.approx(cost_of(HEAD).prefix_work / UNKNOWN_RATE)
    assert not found.exact


def test_a_backbone_of_the_users_own_stands_for_another() -> None:
    own = PartKey("my.module:NET", 224, 0)
    assert speeds().of(own).prefix_s == pytest.approx(speeds().of(PartKey("resnet50", 224, 0)).prefix_s, rel=1e-6)
    assert unknown_backbones([own, HEAD, own]) == ["my.module:NET"]


def test_a_faster_machine_is_faster_but_for_the_launch_of_a_step() -> None:
    fast = speeds(network_factor=100.0, gpus=2.0)
    found = fast.of(WHOLE)
    assert found.train_s == pytest.approx(50e-3 / 100)
    assert fast.of(HEAD).train_s == GPU_STEP_S / 32
    assert fast.of(HEAD).prefix_s == pytest.approx(16e-5)
    assert fast.decode_s("squash", 224) == pytest.approx(4e-3)
    assert fast.augment_s("rich", 224) == pytest.approx(2e-3)
    assert not found.exact


@given(st.sampled_from(sorted(BACKBONES)), st.one_of(st.integers(0, 200), st.just("all")), st.sampled_from([8, 32, 64]))
def test_every_part_has_a_speed(name: str, unfrozen: int | str, batch: int) -> None:
    key = PartKey(name, BACKBONES[name].native_size, unfrozen, batch_size=batch)
    found = speeds().of(key)
    assert found.train_s > 0
    assert found.predict_s > 0
    assert (found.prefix_s == 0) == cost_of(key).is_identity
    assert 0 < found.bare_train_s <= found.train_s
    assert min(found.open_s, found.trace_s, found.prefix_trace_s) > 0


@given(st.sampled_from(sorted(BACKBONES)), st.integers(0, 300), st.integers(0, 300))
def test_training_more_layers_is_never_quicker(name: str, some: int, more: int) -> None:
    size = BACKBONES[name].native_size
    # One relative: with several the nearest may change on the way.
    known = speeds(dataclasses.replace(EMPTY, parts={WHOLE: CALIBRATION.parts[WHOLE]}))
    few, many = (known.of(PartKey(name, size, n)) for n in sorted((some, more)))
    assert few.train_s <= many.train_s * (1 + 1e-9)
    assert few.prefix_s >= many.prefix_s * (1 - 1e-9)


@pytest.mark.parametrize(
    ("name", "expected"), [("mobilenet_v2_1.4", "mobilenet"), ("resnet101v2", "resnet"), ("vgg16", "vgg")]
)
def test_families(name: str, expected: str) -> None:
    assert family(name) == expected
