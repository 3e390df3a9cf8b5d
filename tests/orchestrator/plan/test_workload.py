"""What a fit reads, computes and leaves behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.plan.calibration import Machine
from orchestrator.plan.estimates import Speeds
from orchestrator.plan.workload import FitWork, PhotoCounts, fit_work, judging_s, reads_of
from tests.support.sweep_costs import CALIBRATION, PHOTOS, speed
from trainers.config import TrialConfig
from trainers.contract import FitJob
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.images.policies import POLICIES
from trainers.training.examples import example_sets, keys_by_view

SPEEDS = Speeds(CALIBRATION, Machine(2))
FOLDED = PhotoCounts((60, 40), (0, 0), (15, 15), ((20, 14), (20, 13), (20, 13)))


def work(photos: PhotoCounts = PHOTOS, refit: tuple[str, ...] = (), **values: object) -> FitWork:
    return fit_work(TrialConfig(**values), photos, SPEEDS, refit)  # type: ignore[arg-type]


def test_a_head_reads_features_of_every_image_and_of_its_copies() -> None:
    found = work(multiplier=2.0)
    (shelf,) = {rows.shelf for rows in found.features}
    assert shelf.what == "mobilenet_1.0 at 224 px to conv_pw_13_relu"
    assert {rows.place: rows.count for rows in found.features} == {
        f"{shelf.name}: train": 100,
        f"{shelf.name}: train copies by flips": 100,
        f"{shelf.name}: validation": 20,
    }
    assert [rows.count for rows in found.images] == [rows.count for rows in found.features]
    assert found.epoch_s == pytest.approx(200 * 3e-5 + 20 * 1e-5)
    assert found.live_epoch_s == pytest.approx(found.epoch_s + 220 * 16e-3)
    assert found.bare_epoch_s == pytest.approx(200 * 2.4e-5 + 20 * 1e-5)


def test_where_nothing_is_frozen_only_images_are_read() -> None:
    found = work(unfrozen_layers="all")
    assert found.features == ()
    assert found.live_epoch_s == found.epoch_s == pytest.approx(100 * 50e-3 + 20 * 16e-3)
    assert sum(rows.bytes for rows in found.images) == 120 * 224 * 224 * 3


@pytest.mark.parametrize("change", [{"head": "arcface"}, {"dropout": 0.3}, {"batch_size": 64}, {"optimizer": "sgd"}])
def test_trials_that_differ_above_the_boundary_share_their_rows(change: dict) -> None:
    assert [rows.place for rows in work(**change).features] == [rows.place for rows in work().features]


@pytest.mark.parametrize(
    "change",
    [{"unfrozen_layers": 5}, {"image_size": 160}, {"view": "centre_crop"}, {"pooling": "max"}, {"output_stride": 16}],
)
def test_what_changes_the_frozen_function_or_its_images_shares_nothing(change: dict) -> None:
    assert not {rows.place for rows in work(**change).features} & {rows.place for rows in work().features}


def test_pooling_and_stride_above_the_boundary_are_no_difference() -> None:
    deep = work(unfrozen_layers=13)
    assert [r.place for r in work(unfrozen_layers=13, pooling="max").features] == [r.place for r in deep.features]
    assert [r.place for r in work(unfrozen_layers=20, output_stride=16).features] == [
        r.place for r in work(unfrozen_layers=20).features
    ]


def test_a_refit_trains_on_what_the_search_was_validated_on() -> None:
    reads = reads_of(PHOTOS, "squash", 2.0, "flips", ("train", "validation"))
    assert (reads.train, reads.judged) == (240, 0)
    assert ("squash", "validation", "", 20) in reads.rows


def test_folds_read_every_image_from_rows_that_hold_it_once() -> None:
    reads = reads_of(FOLDED, "squash", 1.0, "flips")
    assert (reads.train, reads.judged) == (200, 100)
    assert reads.rows == (("squash", "train", "", 100),)
    assert work(FOLDED).model_bytes == 3 * work(PhotoCounts((60, 40), (1, 1), (1, 1))).model_bytes


def test_a_random_crop_is_judged_by_the_centre() -> None:
    views = {(view, split) for view, split, *_ in reads_of(PHOTOS, "random_crop", 1.0, "flips").rows}
    assert views == {("random_crop", "train"), ("centre_crop", "validation")}


def test_an_epoch_of_as_many_examples_as_originals_costs_as_much_without_copies() -> None:
    plain, doubled, equal = work(), work(multiplier=2.0), work(multiplier=2.0, steps="originals")
    assert doubled.epoch_s > plain.epoch_s == equal.epoch_s
    assert equal.features == doubled.features


def test_measuring_batch_norms_costs_a_prediction_of_each_original_image() -> None:
    whole, measured = (work(unfrozen_layers="all", multiplier=2.0, batch_norm=b) for b in ("adapted", "measured"))
    assert measured.epoch_s == pytest.approx(whole.epoch_s + 100 * 16e-3)
    assert whole.architecture != measured.architecture


@pytest.mark.parametrize("photos", [PHOTOS, FOLDED], ids=["plain", "folds"])
@pytest.mark.parametrize("refit", [(), ("train", "validation")], ids=["trial", "refit"])
def test_batch_norms_are_measured_on_centre_crops_of_what_is_cropped_at_random(
    photos: PhotoCounts, refit: tuple[str, ...]
) -> None:
    measured, plain = (
        {(r.shelf.view, r.split, r.recipe): r.count for r in work(photos, refit, unfrozen_layers=5, **values).features}
        for values in (
            {"view": "random_crop", "multiplier": 2.0, "batch_norm": "measured"},
            {"view": "random_crop", "multiplier": 2.0},
        )
    )
    trained = [split for split in refit or ("train",) if ("random_crop", split, "") in plain]
    more = {("centre_crop", split, ""): plain["random_crop", split, ""] for split in trained}
    assert more
    assert measured == plain | more
    squares = {"unfrozen_layers": 5, "view": "centre_crop"}
    assert work(photos, refit, **squares, batch_norm="measured").features == work(photos, refit, **squares).features


def test_a_head_that_is_trained_first_reads_the_features_of_the_originals_to_train_on() -> None:
    alone, deep = work(unfrozen_layers=0), work(unfrozen_layers="all", multiplier=2.0, warm_head=4)
    (rows,) = deep.head_features
    assert rows.place in {each.place for each in alone.features}
    assert rows.count == 100
    assert deep.head_features_s == pytest.approx(100 * 16e-3)
    assert deep.head_s == pytest.approx(4 * 100 * alone.speed.train_s + alone.speed.open_s + alone.speed.trace_s)
    assert deep.epoch_s == work(unfrozen_layers="all", multiplier=2.0).epoch_s
    assert work(warm_head=4).head_features == ()  # the head alone
    assert len(work(FOLDED, unfrozen_layers=5, warm_head=4, view="random_crop").head_features) == 1


def test_what_is_drawn_in_each_epoch_is_no_row_and_costs_its_seconds_in_each() -> None:
    deep = {"unfrozen_layers": "all", "multiplier": 3.0, "recipe": "contest"}
    fixed, fresh, plain = work(**deep), work(**deep, draws="fresh"), work(unfrozen_layers="all")
    assert fresh.images == plain.images
    assert fresh.epoch_s == pytest.approx(fixed.epoch_s + 200 * SPEEDS.augment_s("contest", 224))
    assert fresh.bare_epoch_s - fixed.bare_epoch_s == pytest.approx(fresh.epoch_s - fixed.epoch_s)
    equal = work(**deep, draws="fresh", steps="originals")
    assert equal.epoch_s == pytest.approx(plain.epoch_s + 100 * 2 / 3 * SPEEDS.augment_s("contest", 224))
    assert fresh.architecture == fixed.architecture


def test_random_crops_drawn_in_each_epoch_are_decoded_in_each() -> None:
    crops = {"unfrozen_layers": "all", "view": "random_crop"}
    fixed, fresh = work(**crops), work(**crops, draws="fresh")
    decode_s = SPEEDS.decode_s("random_crop", 224)
    assert {(rows.shelf.view, rows.split) for rows in fresh.images} == {("centre_crop", "validation")}
    assert fresh.epoch_s == pytest.approx(fixed.epoch_s + 100 * decode_s)
    measured = work(**crops, draws="fresh", batch_norm="measured")
    assert measured.epoch_s - work(**crops, batch_norm="measured").epoch_s == pytest.approx(100 * decode_s)
    assert {(r.shelf.view, r.split) for r in measured.images} == {("centre_crop", n) for n in ("train", "validation")}
    assert work(**crops, draws="fresh", refit=("train", "validation")).images == ()
    warm = work(**crops, draws="fresh", warm_head=2)  # the head's images are fixed
    assert {(rows.split, rows.shelf.view, rows.recipe) for rows in warm.head_features} <= {
        (rows.split, rows.shelf.view, rows.recipe) for rows in warm.images
    }


def test_copies_spread_otherwise_are_other_rows() -> None:
    even, proportional = ({r.place for r in work(multiplier=1.5, copies=c).images} for c in ("even", "proportional"))
    assert len(even - proportional) == len(proportional - even) == 1


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([1.0, 1.7, 3.0]),
    st.sampled_from(["squash", "random_crop"]),
    st.sampled_from([0, 3]),
    st.booleans(),
    st.sampled_from(["even", "proportional"]),
)
def test_counts_are_those_of_the_keys_that_a_fit_reads(
    multiplier: float, view: str, folds: int, refit: bool, copies: str
) -> None:
    source = DataSource(source="builtin:digits", splits=(0.6, 0.2, 0.2), folds=folds, cache=Path())
    manifest, _ = _digits(source)
    splits = ("train", "validation") if refit and not folds else ("train",)
    config = TrialConfig(backbone="small_cnn", multiplier=multiplier, view=view, copies=copies)
    job = FitJob("x", config, 0, "", train_splits=splits, folds=folds)
    exact = {view: len(keys) for view, keys in keys_by_view(example_sets(job, manifest), "flips").items()}
    whole = splits if refit and not folds else ()
    reads = reads_of(PhotoCounts.of(manifest), view, multiplier, "flips", whole, copies)
    counted: dict[str, int] = {}
    for each, _, _, count in reads.rows:
        counted[each] = counted.get(each, 0) + count
    assert counted.keys() == exact.keys()
    for each, count in exact.items():
        assert counted[each] == pytest.approx(count, rel=0.04 if folds else 1e-9)  # folds go by a hash


_MANIFESTS: dict = {}


def _digits(source: DataSource) -> tuple:
    if source.folds not in _MANIFESTS:
        import tempfile

        _MANIFESTS[source.folds] = build_manifest(dataclasses.replace(source, cache=Path(tempfile.mkdtemp())))
    return _MANIFESTS[source.folds]


@given(st.integers(0, 20_000), st.integers(1, 50), st.sampled_from([0, 5]))
def test_even_photos_add_up(images: int, classes: int, folds: int) -> None:
    photos = PhotoCounts.even(images, classes, folds=folds)
    assert photos.total == images
    assert photos.classes == classes
    assert np.sum(photos.folds, axis=0).tolist() == list(photos.train) if folds else photos.folds == ()


def test_a_leaderboard_shares_crops_and_prefixes_among_models() -> None:
    models = [work(), work(), work()]
    policies = ["whole", "centre", "flip", "ten_crop", "random_5", "pyramid"]
    shared = judging_s(models, SPEEDS, 30, policies, share=True)
    crops = 2 + 10 + 5 + 4  # whole and its mirror image; ten; five; the pyramid's other two scales, mirrored
    assert shared == pytest.approx(30 * (2 * 4e-3 + crops * (16e-3 + 3 * 1e-5)))
    assert judging_s(models, SPEEDS, 30, policies, share=False) > 3 * shared


@given(st.lists(st.sampled_from([*POLICIES, "random_3"]), min_size=1, unique=True), st.integers(1, 4))
def test_sharing_never_makes_a_leaderboard_dearer_but_for_a_second_canvas(policies: list[str], models: int) -> None:
    works = [work() for _ in range(models)]
    shared, alone = (judging_s(works, SPEEDS, 10, policies, share) for share in (True, False))
    assert shared <= alone + 10 * 2 * 4e-3 + 1e-9


def test_what_a_fit_leaves_behind() -> None:
    head = work(optimizer="adam")
    assert head.model_bytes == (1024 + 1) * 2 * 4 - 2 * 4  # without the bias, which is nothing
    assert head.state_bytes == 3 * head.model_bytes
    whole = work(unfrozen_layers="all", optimizer="sgd")
    assert whole.model_bytes == head.model_bytes + 4 * 3_206_976
    assert whole.state_bytes == 2 * whole.model_bytes
    assert whole.memory_bytes > 32 * 10e6 * 4


def test_a_hidden_layer_is_counted_once_whatever_the_classes() -> None:
    plain, wide, wider = (work(hidden=hidden).model_bytes for hidden in (0, 100, 101))
    width, classes = 1024, 2
    assert wide - plain == pytest.approx(4 * (100 * (width + 1 + classes) - width * classes))
    assert wider - wide == pytest.approx(4 * (width + 1 + classes))


def test_a_part_that_was_measured_is_reported_as_it_was() -> None:
    assert SPEEDS.of(work().key) == speed(16e-3, 3e-5, 1e-5)
