"""Which rows a trial reads, and what a free worker does next."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.next_step import (
    MAX_PREFILL_WORKERS,
    FeatureSet,
    StartPrefill,
    StartTrial,
    WaitingTrial,
    feature_set_of,
    next_step,
    trace_key,
)
from trainers.config import TrialConfig
from trainers.contract import FitJob
from trainers.store.segments import BUCKETS


def job(share: bool = True, splits: tuple[str, ...] = ("train",), dtype: str = "float32", **values: Any) -> FitJob:
    return FitJob("t", TrialConfig(**values), 0, "m", train_splits=splits, share=share, store_dtype=dtype)


SAME = [
    {"learning_rate": 0.1},
    {"head": "cosface", "dropout": 0.5, "hidden": 64},
    {"smoothing": 0.1, "batch_size": 8, "epochs": 99},
    {"image_size": 224},
    {"recipe": "rand"},
]
OTHER = [
    {"backbone": "resnet50"},
    {"unfrozen_layers": 5},
    {"unfrozen_layers": "all"},
    {"image_size": 160},
    {"view": "centre_crop"},
    {"decode": "needed"},
    {"multiplier": 2.0},
    {"output_stride": 16},
    {"feature_fusion": "sum"},
    {"pooling": "max"},
    {"mixup": 0.2},
    {"share": False},
    {"splits": ("train", "validation")},
    {"dtype": "float16"},
    {"unfrozen_layers": 5, "warm_head": 2},
    {"unfrozen_layers": "all", "warm_head": 2},
]


def test_trials_share_what_their_head_does_not_change() -> None:
    assert len({feature_set_of(job(**values)) for values in ({}, *SAME)}) == 1
    assert len({feature_set_of(job(**values)) for values in ({}, *OTHER)}) == 1 + len(OTHER) - 2
    assert feature_set_of(job(multiplier=2.0, recipe="rand")) != feature_set_of(job(multiplier=2.0))


def test_what_freezes_nothing_needs_decoded_images_alone() -> None:
    alone = [{"unfrozen_layers": "all"}, {"mixup": 0.2}, {"cutmix": 1.0, "unfrozen_layers": 5}, {"share": False}]
    needs = {feature_set_of(job(**values)) for values in alone}
    assert needs == {feature_set_of(job(backbone="resnet50", unfrozen_layers="all"))}
    assert needs.pop().prefix == ()


def test_trials_that_draw_in_each_epoch_share_the_originals_alone() -> None:
    deep = {"unfrozen_layers": "all", "draws": "fresh"}
    copied = {feature_set_of(job(**deep, multiplier=m, recipe=r)) for m in (2.0, 3.0) for r in ("rand", "flips")}
    assert copied == {feature_set_of(job(unfrozen_layers="all"))}
    crops = {"view": "random_crop", **deep}
    cropped = {feature_set_of(job(**crops, multiplier=m)) for m in (1.0, 2.0)}
    fixed = [feature_set_of(job(unfrozen_layers="all", view=view)) for view in ("random_crop", "centre_crop")]
    assert len(cropped) == 1
    assert not cropped & set(fixed)
    assert trace_key(job(**deep)) == trace_key(job(unfrozen_layers="all"))


def test_a_warm_step_serves_other_numbers_and_not_another_head() -> None:
    assert trace_key(job(dropout=0.3, learning_rate=0.1, smoothing=0.1)) == trace_key(job())
    for values in ({"head": "normface"}, {"optimizer": "sgd"}, {"hidden": 8}, {"share": False}, {"unfrozen_layers": 1}):
        assert trace_key(job(**values)) != trace_key(job())


A, B, C = (FeatureSet((name,)) for name in "abc")
TABLE = [
    # waiting, settled, building, may build -> what
    ([], set(), {}, True, None),
    ([A], set(), {}, True, StartPrefill(0)),
    ([A], set(), {}, False, None),
    ([A], {A}, {}, False, StartTrial(0)),
    ([A, B], {B}, {}, True, StartTrial(1)),
    ([A, B], set(), {A: 1}, True, StartPrefill(1)),
    ([A, A, B], set(), {A: 1, B: 1}, True, StartPrefill(0)),
    ([A, B], set(), {A: 2, B: 1}, True, StartPrefill(1)),
    ([A, B, C], {C}, {A: 1, B: 1}, True, StartTrial(2)),
    ([A, B, C], set(), {A: 1, B: 1}, True, StartPrefill(2)),
    ([A, B, A], {A}, {B: 1}, True, StartTrial(0)),
    ([A], set(), {A: MAX_PREFILL_WORKERS - 1}, True, StartPrefill(0)),
    ([A], set(), {A: MAX_PREFILL_WORKERS}, True, None),
    ([A, B], set(), {A: MAX_PREFILL_WORKERS, B: MAX_PREFILL_WORKERS - 1}, True, StartPrefill(1)),
    ([A, B], {B}, {A: MAX_PREFILL_WORKERS}, True, StartTrial(1)),
]


@pytest.mark.parametrize(("waiting", "settled", "building", "may_build", "expected"), TABLE)
def test_a_free_worker(
    waiting: list[FeatureSet],
    settled: set[FeatureSet],
    building: dict[FeatureSet, int],
    may_build: bool,
    expected: StartTrial | StartPrefill | None,
) -> None:
    assert next_step([WaitingTrial(need) for need in waiting], settled, building, None, may_build) == expected


def test_as_many_workers_help_as_a_shelf_has_parts() -> None:
    assert MAX_PREFILL_WORKERS == BUCKETS


def test_a_warm_worker_stays_with_its_trace() -> None:
    waiting = [WaitingTrial(A, ("x",)), WaitingTrial(B, ("y",)), WaitingTrial(A, ("y",))]
    assert next_step(waiting, {A}, {}, ("y",)) == StartTrial(2)
    assert next_step(waiting, {A}, {}, ("z",)) == StartTrial(0)
    assert next_step(waiting, set(), {}, ("y",)) == StartPrefill(0)


@given(
    st.lists(st.sampled_from([A, B, C]), max_size=8),
    st.sets(st.sampled_from([A, B, C])),
    st.dictionaries(st.sampled_from([A, B, C]), st.integers(1, MAX_PREFILL_WORKERS)),
)
def test_no_worker_is_idle_that_could_do_something_for_those_that_wait(
    waiting: list[FeatureSet], settled: set[FeatureSet], building: dict[FeatureSet, int]
) -> None:
    step = next_step([WaitingTrial(need) for need in waiting], settled, building)
    full = all(need not in settled and building.get(need) == MAX_PREFILL_WORKERS for need in waiting)
    assert (step is None) == full
    if isinstance(step, StartTrial):
        assert waiting[step.place] in settled
    elif isinstance(step, StartPrefill):
        assert not settled & set(waiting)
