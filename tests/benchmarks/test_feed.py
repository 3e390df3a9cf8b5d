"""What benchmarks.feed counts, and that each side delivers every image of the same small photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.feed import keras_folder, numpy_take, ours, tf_data
from benchmarks.feed.cases import (
    CACHE,
    FEATURES,
    FILES,
    KERAS,
    LARGE,
    MAPS,
    NUMPY,
    OURS,
    SMALL,
    TF_DATA,
    VARIANTS,
    Case,
    against,
    cases,
    feeds,
    largest_ratio,
    mark_of,
)
from benchmarks.feed.photos import hashed, link_small, make_large


def test_every_kind_of_source_size_and_recipe_is_measured_with_one_and_two_threads() -> None:
    found = cases((224, 600), (1, 2))
    assert len(found) == len({case.name for case in found}) == 24
    assert {(case.source, case.threads) for case in found} == {
        (source, threads) for source in (FILES, CACHE, FEATURES, MAPS) for threads in (1, 2)
    }
    marks = [mark_of(case) for case in found]
    assert {mark for mark in marks if mark} == {
        ("feed", 1.0),
        ("feed_large", 1.5),
        ("feed_copies", 1.5),
        ("feed_stored", 0.8),
    }
    assert marks.count(None) == 4  # the decoded cache


def test_the_ratio_is_the_largest_that_leaves_the_pixels_needed() -> None:
    ratios = {(photos, size): largest_ratio(photos, size) for photos in (SMALL, LARGE) for size in (64, 224, 600)}
    assert ratios == {
        **{(SMALL, 64): 4, (SMALL, 224): 1, (SMALL, 600): 1},
        **{(LARGE, 64): 8, (LARGE, 224): 8, (LARGE, 600): 4},
    }


def test_our_median_counts_against_the_better_peer_that_does_the_same_work() -> None:
    case = Case(FILES, SMALL, 224, 1)
    rates = {OURS: [90.0, 120.0, 100.0], TF_DATA: [50.0, 50.0, 50.0], KERAS: [40.0, 80.0, 80.0], "(less)": [900.0]}
    assert against(case, rates) == (pytest.approx(1.25), KERAS)
    stored = {OURS: [90.0], NUMPY: [100.0], TF_DATA: [10.0]}
    assert against(Case(FEATURES, "", 0, 1), stored) == (pytest.approx(0.9), NUMPY)


def test_a_rate_is_compared_with_published_ones_scaled_by_area() -> None:
    assert feeds(400, 224) == "feeds no V100 16 GB, float32 with ResNet50"
    assert feeds(1300, 224) == "feeds ResNet50 on a V100 16 GB, mixed"
    assert feeds(400 / 4, 448) == feeds(400, 224)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feed")
    rows = ["path,label,split"]
    for number in range(8):
        label = ("glass", "paper")[number % 2]
        place = folder / "source" / label / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(pixels).resize((80, 60)).save(place)
        rows.append(f"{label}/{place.name},{label},train")
    table = folder / "source" / "split.csv"
    table.write_text("\n".join(rows))
    link_small(table, folder / "small", 6)
    return folder


def test_large_photos_are_made_from_the_small_ones(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.feed.photos.LARGE", (400, 300))
    make_large(photos / "small", photos / "large", 3)
    found = hashed(photos / "large")
    assert len(found) == len({sha for _, sha in found}) == 3
    with Image.open(photos / "large" / found[0][0]) as image:
        assert image.size == (400, 300)


@pytest.mark.parametrize("recipe", ["flips", "colour"])
@pytest.mark.parametrize("copies", [1, 5])
def test_every_side_delivers_every_image_from_files(photos: Path, recipe: str, copies: int) -> None:
    task = Case(FILES, SMALL, 32, 2, copies, recipe).to_dict() | {"ratio": 1, "folder": str(photos / "small")}
    task |= {"passes": 1, "seed": 0, "interpolation": "area"}
    assert ours.deliver(task, 2)[0] == 6 * copies
    for variant in VARIANTS:
        assert tf_data.deliver({**task, **variant}, 2)[0] == 6 * copies
    if copies == 1:
        assert keras_folder.deliver(task, 2)[0] == 6


def test_every_side_delivers_what_is_stored(photos: Path) -> None:
    task = Case(CACHE, SMALL, 32, 1).to_dict() | {"folder": str(photos / "small"), "passes": 2, "seed": 1}
    task |= {**VARIANTS[0], "ratio": 1, "interpolation": "area"}
    assert [side.deliver(task, 1)[0] for side in (ours, tf_data, keras_folder)] == [12, 12, 12]
    values = np.random.default_rng(0).random((70, 4), np.float32)
    np.save(photos / "features.npy", values)
    rows = {**task, "source": FEATURES, "folder": str(photos / "features.npy")}
    assert [side.deliver(rows, 1)[0] for side in (ours, tf_data, numpy_take)] == [140, 140, 140]
    np.testing.assert_array_equal(ours._features(rows["folder"]).take(np.arange(70)), values)


def test_copies_of_the_peer_are_those_of_our_recipes() -> None:
    import tensorflow as tf

    from trainers.images.augment import augment

    square = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    for k in (1, 2, 3):
        np.testing.assert_array_equal(tf_data.flips(tf.constant(square), k), augment(square, "a" * 64, k, "flips", 0))
    shifted = tf_data.flips(tf.constant(square), 4).numpy()
    assert any(np.array_equal(shifted[:, far:], square[:, :-far]) for far in (1, 2))
    changed = tf_data.colour(tf.constant(square), 1)
    assert (changed.dtype, changed.shape) == (tf.uint8, square.shape)
