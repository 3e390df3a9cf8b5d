"""The published recipes: operation by operation torchvision's, drawn as their papers say."""

from __future__ import annotations

import runpy
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tests.support.places import FIXTURES
from trainers.images import published
from trainers.images.published import (
    CROP_AREA,
    INCEPTION_AREA,
    ONE_SIDED,
    OPERATIONS,
    RAND,
    RAND_STEPS,
    WIDE,
    WIDE_STEPS,
    crop,
    crop_box,
    erase,
    inception,
    rand,
    trivial,
)

TORCHVISION = FIXTURES / "torchvision_augmentation.npz"
"""What torchvision 0.28 makes of one picture (bilinear, fill 128), and its magnitudes at 224 pixels."""
SPACES = {"trivial": (WIDE, WIDE_STEPS), "rand": (RAND, RAND_STEPS)}
IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))


def test_every_operation_makes_the_picture_that_torchvision_makes() -> None:
    seen: Counter[str] = Counter()
    with np.load(TORCHVISION) as stored:
        picture = Image.fromarray(stored["image"])
        for key in (key for key in stored.files if key.startswith("copy:")):
            _, operation, magnitude = key.split(":")
            copy = np.asarray(OPERATIONS[operation](picture, float(magnitude)))
            assert np.abs(copy.astype(int) - stored[key]).max() <= 2, key  # equal with the Pillow that made them
            seen[operation] += 1
    assert seen.keys() == OPERATIONS.keys()
    assert sum(seen.values()) == 59


@pytest.mark.parametrize("name", sorted(SPACES))
def test_magnitudes_and_signs_are_torchvisions(name: str) -> None:
    space, steps = SPACES[name]
    compared = 0
    with np.load(TORCHVISION) as stored:
        for operation in OPERATIONS:
            theirs = stored[f"magnitudes:{name}:{operation}"]
            ours = [space.of(operation, i / steps, 224, 224) for i in range(steps + 1)]
            assert np.allclose(ours, theirs, atol=1e-4), operation
            assert bool(stored[f"signed:{name}:{operation}"]) == (operation not in ONE_SIDED)
            compared += 1
    assert compared == 14


def test_translations_are_a_share_of_the_side_that_they_go_along() -> None:
    assert RAND.of("translate_x", 1.0, width=331, height=100) == pytest.approx(150)
    assert RAND.of("translate_y", 1.0, width=331, height=662) == pytest.approx(300)
    assert WIDE.of("translate_x", 1.0, width=56, height=8) == pytest.approx(8)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """(operation, magnitude) of everything applied from here on; pictures stay as they are."""
    applied: list[tuple[str, float]] = []
    for name in OPERATIONS:

        def record(picture: Image.Image, magnitude: float, name: str = name) -> Image.Image:
            applied.append((name, magnitude))
            return picture

        monkeypatch.setitem(published.OPERATIONS, name, record)
    return applied


def test_trivial_draws_operations_magnitudes_and_signs_evenly(drawn: list[tuple[str, float]]) -> None:
    random = np.random.default_rng(0)
    image = np.zeros((224, 224, 3), np.uint8)
    for k in range(1, 4201):
        trivial(image, k, random)
    counts = Counter(name for name, _ in drawn)
    assert len(drawn) == 4200
    assert set(counts) == set(OPERATIONS)
    assert all(abs(count - 300) < 5 * 17 for count in counts.values())  # 300 expected, standard deviation 17
    rotations = np.array([m for name, m in drawn if name == "rotate"])
    assert set(np.round(np.abs(rotations) / 4.5, 6)) <= set(range(31))  # multiples of 135 / 30 degrees
    assert np.abs(rotations).max() > 120
    assert 0.35 < (rotations[rotations != 0] < 0).mean() < 0.65
    assert {m for name, m in drawn if name == "posterize"} == {2, 3, 4, 5, 6, 7, 8}
    assert all(0 <= m <= 255 for name, m in drawn if name == "solarize")


def test_rand_applies_two_operations_at_nine_tenths(drawn: list[tuple[str, float]]) -> None:
    random = np.random.default_rng(0)
    image = np.zeros((100, 200, 3), np.uint8)
    for k in range(1, 701):
        rand(image, k, random)
    assert len(drawn) == 1400
    magnitudes = {name: {round(abs(m), 9) for other, m in drawn if other == name} for name in OPERATIONS}
    full = {"shear_x": 0.3, "shear_y": 0.3, "rotate": 30, "brightness": 0.9, "colour": 0.9, "contrast": 0.9}
    assert all(magnitudes[name] == {round(0.9 * most, 9)} for name, most in full.items())
    assert magnitudes["translate_x"] == {round(0.9 * 200 * 150 / 331, 9)}
    assert (magnitudes["posterize"], magnitudes["solarize"]) == ({4}, {25.5})
    assert {m > 0 for name, m in drawn if name == "rotate"} == {True, False}


@pytest.mark.parametrize("recipe", [trivial, rand])
def test_half_the_copies_are_mirrored(recipe: object, drawn: list[tuple[str, float]]) -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    random = np.random.default_rng(0)
    copies = [recipe(image, k, random) for k in range(400)]  # type: ignore[operator]
    mirrored = sum(np.array_equal(copy, image[:, ::-1]) for copy in copies)
    assert mirrored + sum(np.array_equal(copy, image) for copy in copies) == 400
    assert 150 < mirrored < 250


@given(IMAGES, st.integers(0, 2**32), st.sampled_from([trivial, rand, crop, inception, erase]))
@settings(max_examples=150, deadline=None)
def test_any_image_keeps_its_shape_and_type(image: np.ndarray, seed: int, recipe: object) -> None:
    before = image.copy()
    copy = recipe(image, 1, np.random.default_rng(seed))  # type: ignore[operator]
    assert (copy.shape, copy.dtype) == (image.shape, np.uint8)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("area", [CROP_AREA, INCEPTION_AREA])
def test_a_crops_area_and_proportions_are_drawn_evenly(area: tuple[float, float]) -> None:
    """Those of torchvision's RandomResizedCrop; a large crop that is not square is drawn again, so it is rarer."""
    random = np.random.default_rng(0)
    boxes = np.array([crop_box(224, 224, area, random) for _ in range(3000)])
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= 224).all()
    share, ratio = across * down / 224**2, across / down
    assert area[0] - 0.01 < share.min() < area[0] + 0.01
    assert share.max() > 0.95
    assert 0.73 < ratio.min() < 0.77 < 1.29 < ratio.max() < 1.36
    small = share < 0.7  # each of these fits
    assert abs(np.log(ratio[small]).mean()) < 0.02
    assert np.median(share[small]) == pytest.approx((area[0] + 0.7) / 2, abs=0.02)
    assert (boxes[:, 0] == 0).any()
    assert (boxes[:, 3] == 224).any()


def test_where_no_draw_lies_in_the_image_the_crop_is_central() -> None:
    assert crop_box(100, 10, (1.0, 1.0), np.random.default_rng(0)) == (43, 0, 56, 10)
    assert crop_box(10, 100, (1.0, 1.0), np.random.default_rng(0)) == (0, 43, 10, 56)
    assert crop_box(1, 1, CROP_AREA, np.random.default_rng(0)) == (0, 0, 1, 1)


@pytest.mark.parametrize("recipe", [crop, inception])
def test_a_crop_is_a_part_of_the_image_enlarged_and_half_the_time_mirrored(recipe: object) -> None:
    """In a picture whose colours rise to the right and downwards, every crop's do, but for the mirrored ones."""
    right, down = np.meshgrid(np.arange(64), np.arange(64))
    image = np.stack([3 * right, 3 * down, 0 * down], -1).astype(np.uint8)
    random, mirrored = np.random.default_rng(0), 0
    for k in range(200):
        copy = recipe(image, k, random).astype(int)  # type: ignore[operator]
        rises = copy[0, -1, 0] > copy[0, 0, 0]
        mirrored += not rises
        assert copy[-1, 0, 1] > copy[0, 0, 1]
        assert abs(copy[0, -1, 0] - copy[0, 0, 0]) < 3 * 64
    assert 75 < mirrored < 125


def test_half_the_copies_have_a_rectangle_of_noise_of_up_to_two_fifths() -> None:
    image, random = np.full((100, 100, 3), 7, np.uint8), np.random.default_rng(0)
    shares = []
    for k in range(600):
        noise = (erase(image, k, random) != 7).any(-1)
        rows, columns = np.flatnonzero(noise.any(1)), np.flatnonzero(noise.any(0))
        if noise.any():
            assert noise.sum() > 0.99 * len(rows) * len(columns)
            shares.append(noise.mean())
    assert 250 < len(shares) < 350
    assert 0.015 < min(shares) < 0.05
    assert 0.36 < max(shares) < 0.41
    assert np.mean(shares) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parity
def test_the_stored_pictures_are_what_torchvision_makes_today() -> None:
    try:
        import torchvision.transforms.autoaugment  # noqa: F401
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        pytest.skip(f"torchvision cannot be imported: {error}")
    path = TORCHVISION.with_name("make_torchvision_augmentation.py")
    made = runpy.run_path(str(path))["make"]()
    with np.load(TORCHVISION) as stored:
        assert sorted(made) == sorted(stored.files)
        assert max(np.abs(made[key].astype(float) - stored[key]).max() for key in stored.files) <= 2
