"""Crops of one image: how many, which pixels, always the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.images.crops import Clock, crops, cut
from trainers.images.decode import square
from trainers.images.policies import POLICIES, crop_names, distinct_crops

OWN_CORNERS = [(8, 0, 24, 16), (12, 16, 28, 32)]
"""Left, top, right, bottom of the boxes of ``OWN_POLICY`` on a canvas of 32 px."""
SHA = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
OWN = "tests.support.tiny_fits:OWN_POLICY"
NAMES = [*POLICIES, "random_1", "random_7", OWN]


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("view", ["squash", "centre_crop", "random_crop"])
def test_number_size_and_repeatability(photo, name, view):
    made = crops(photo, 28, view, name, SHA)
    assert made.shape == (len(crop_names(name)), 28, 28, 3)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, crops(photo.read_bytes(), 28, view, name, SHA))
    assert len({crop.tobytes() for crop in made}) == len(made)


@pytest.mark.parametrize("name", NAMES)
def test_only_random_crops_depend_on_the_hash(photo, name):
    same = np.array_equal(crops(photo, 28, "squash", name, SHA), crops(photo, 28, "squash", name, OTHER))
    assert same == (not name.startswith("random"))


@pytest.mark.parametrize("name", NAMES)
def test_views_differ_and_a_random_one_becomes_the_centre(photo, name):
    squash, centre, random = (crops(photo, 28, v, name, SHA) for v in ("squash", "centre_crop", "random_crop"))
    assert not np.array_equal(squash, centre)
    np.testing.assert_array_equal(centre, random)


def test_whole_and_its_mirror_image(photo):
    whole = square(photo, 28, "squash")
    np.testing.assert_array_equal(crops(photo, 28, "squash", "whole", SHA), whole[None])
    np.testing.assert_array_equal(crops(photo, 28, "squash", "flip", SHA), [whole, whole[:, ::-1]])


def test_ten_crops_lie_in_the_corners_and_the_centre(photo):
    canvas = square(photo, 32, "squash")  # 28 / 0.875
    expected = [canvas[:28, :28], canvas[:28, 4:], canvas[4:, :28], canvas[4:, 4:], canvas[2:30, 2:30]]
    made = crops(photo, 28, "squash", "ten_crop", SHA)
    np.testing.assert_array_equal(made[:5], expected)
    np.testing.assert_array_equal(made[5:], [crop[:, ::-1] for crop in expected])
    np.testing.assert_array_equal(crops(photo, 28, "squash", "centre", SHA)[0], expected[4])


def test_the_pyramid_looks_closer_and_closer(photo):
    canvas = Image.fromarray(square(photo, 32, "squash"))
    made = crops(photo, 28, "squash", "pyramid", SHA)
    for crop, mirrored, box in zip(made[:3], made[3:], [(0, 0, 32, 32), (2, 2, 30, 30), (4, 4, 28, 28)], strict=True):
        np.testing.assert_array_equal(crop, canvas.crop(box).resize((28, 28), Image.Resampling.BILINEAR))
        np.testing.assert_array_equal(mirrored, crop[:, ::-1])


def test_fewer_random_crops_are_the_first_of_more(photo):
    many = crops(photo, 28, "squash", "random_7", SHA)
    np.testing.assert_array_equal(crops(photo, 28, "squash", "random_3", SHA), many[:3])


def test_random_crops_stay_inside_and_are_of_seven_tenths_or_more():
    """A picture whose red rises from left to right and green from top to bottom tells where a crop was cut."""
    ramp = np.zeros((256, 256, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(256)[None], np.arange(256)[:, None]
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    made = crops(file.getvalue(), 224, "squash", "random_50", SHA).astype(int)
    for axis, channel in ((2, 0), (1, 1)):
        low, high = made[..., channel].min((1, 2)), made[..., channel].max((1, 2))
        sides = (high - low + 1) / 256
        assert sides.min() > 0.69
        assert sides.max() > 0.95
        assert low.min() < 10
        assert high.max() > 245
        assert (np.diff(made[..., channel], axis=axis) >= 0).all()


def test_boxes_are_cut_where_they_say_and_resized(photo):
    canvas = Image.fromarray(square(photo, 32, "squash"))
    whole, box, mirrored = crops(photo, 28, "squash", OWN, SHA)
    np.testing.assert_array_equal(whole, square(photo, 28, "squash"))
    expected = [canvas.crop(corners).resize((28, 28), Image.Resampling.BILINEAR) for corners in OWN_CORNERS]
    np.testing.assert_array_equal(box, expected[0])
    np.testing.assert_array_equal(mirrored, np.asarray(expected[1])[:, ::-1])


@pytest.mark.parametrize("view", ["squash", "centre_crop"])
def test_crops_of_all_policies_cut_at_once_are_those_of_each(photo, view):
    names = distinct_crops(NAMES)
    assert len(names) == 21 + 2 + 2 == len(set(names))
    together = dict(zip(names, cut(photo, 28, view, names, SHA), strict=True))
    assert len({crop.tobytes() for crop in together.values()}) == len(names), "no two names show the same pixels"
    for name in NAMES:
        np.testing.assert_array_equal(crops(photo, 28, view, name, SHA), [together[n] for n in crop_names(name)])


def test_the_clock_charges_each_policy_what_it_needs(photo):
    clock = Clock()
    names = distinct_crops(["whole", "ten_crop", "random_3"])
    assert not clock.knows(names)
    for _ in range(3):
        with clock.measure("read"):
            pass
        cut(photo, 28, "squash", names, SHA, clock)
    assert clock.knows(names)
    assert not clock.knows(["closer"])
    centre, whole, random = (clock.seconds_an_image(crop_names(p)) for p in ("centre", "whole", "random_3"))
    assert clock.seconds_an_image(names) > random > centre > 0
    assert clock.seconds_an_image(crop_names("ten_crop")) > centre
    assert clock.seconds_an_image(names) < random + whole + clock.seconds_an_image(crop_names("ten_crop"))


def test_a_jpeg_is_decoded_as_the_framing_of_the_training_says() -> None:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).resize((512, 384), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    data = file.getvalue()
    (before,), (today,) = (crops(data, 140, framing, "whole", SHA) for framing in ("random_crop", "random_crop+needed"))
    np.testing.assert_array_equal(before, square(data, 140, "centre_crop"))
    np.testing.assert_array_equal(today, square(data, 140, "centre_crop+needed"))
    assert (before != today).any()
