"""The largest local difference tells a copy from a look-alike."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from tests.support.pictures import look_at, scene, tile
from trainers.images.alignment import symmetric_map
from trainers.images.comparison import ALIKE, CHROMA, SAME, Comparison, Preview, ambiguous, compare, verdict
from trainers.images.look import preview_of


def compared(first: Image.Image, second: Image.Image) -> Comparison | None:
    one, other = (preview_of(look_at(each).preview) for each in (first, second))
    return compare(one, other, symmetric_map(0, False, one.grey.shape, other.grey.shape))


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_start_that_is_off_by_some_pixels_is_refined(shift: int) -> None:
    whole = scene(0, (300, 240))
    found = compared(whole.crop((0, 0, 256, 200)), whole.crop((2 * shift, shift, 256 + 2 * shift, 200 + shift)))
    assert verdict(found)[0] == SAME
    assert found is not None
    assert found.correlation > 0.99


def test_brightness_and_contrast_are_no_difference() -> None:
    one = scene(0)
    for edited in (ImageEnhance.Brightness(one).enhance(0.6), ImageEnhance.Contrast(one).enhance(0.6)):
        assert verdict(compared(one, edited))[0] == SAME
        assert verdict(compared(edited, one))[0] == SAME
    assert verdict(compared(one, Image.fromarray(255 - np.asarray(one))))[0] == ""


@pytest.mark.parametrize("spot", [(30, 30), (128, 128), (220, 70)])
def test_a_spot_of_three_percent_is_a_difference_and_a_large_one_makes_another_picture(spot: tuple[int, int]) -> None:
    assert verdict(compared(tile(1), tile(1, spot)))[0] == ALIKE
    assert verdict(compared(tile(1, spot), tile(1)))[0] == ALIKE
    other = tile(1)
    other.paste(tile(2).crop((0, 0, 128, 256)), (0, 0))
    assert verdict(compared(tile(1), other))[0] == ""


@pytest.mark.parametrize("spot", [(0, 90), (255, 90), (90, 2), (90, 255), (1, 1)])
def test_a_spot_at_the_very_edge_is_a_difference(spot: tuple[int, int]) -> None:
    for one, other in ((tile(1), tile(1, spot)), (tile(1, spot), tile(1)), (tile(1), ImageOps.mirror(tile(1, spot)))):
        pictures = [preview_of(look_at(each).preview) for each in (one, other)]
        found = [
            compare(*pictures, symmetric_map(0, mirror, *(each.grey.shape for each in pictures)))
            for mirror in (False, True)
        ]
        assert sorted(verdict(each)[0] for each in found) == ["", ALIKE]


def test_pictures_without_overlap_or_content_are_not_compared() -> None:
    one = preview_of(look_at(scene(0)).preview)
    away = np.array([[1.0, 0, 2.0], [0, 1, 0]])
    assert compare(one, one, away) is None
    assert verdict(None) == ("", 255.0)
    white = look_at(Image.new("RGB", (256, 192), "white"))
    assert (white.comparable, white.preview) == (False, b"")
    plain = Preview(np.full((96, 128), 255, np.uint8), np.full((CHROMA, CHROMA, 2), 128, np.uint8))
    assert verdict(compare(one, plain, np.eye(3)[:2]))[0] == ""


@pytest.mark.parametrize("factor", [1.15, 1.2])
def test_a_saturated_colour_that_is_clipped_when_brightened_is_no_difference(factor: float) -> None:
    colours = np.asarray(scene(3)).astype(float)
    colours[60:140, 80:180] = colours[60:140, 80:180] * 0.1 + [215, 40, 30]  # red: its grey is far from white
    one = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    brighter = ImageEnhance.Brightness(one).enhance(factor)
    assert (np.asarray(brighter)[..., 0] == 255).mean() > 0.15
    for found in (compared(one, brighter), compared(brighter, one)):
        assert verdict(found)[0] == SAME
    spotted = brighter.copy()
    spotted.paste((120, 40, 30), (120, 95, 130, 105))
    assert verdict(compared(one, spotted))[0] != SAME


def test_a_mirrored_copy_is_ambiguous_where_the_layout_is_symmetric() -> None:
    one = scene(0)
    assert not ambiguous(compared(one, ImageOps.mirror(one)))
    half = np.asarray(tile(3, spot=(60, 90)))
    other_half = np.asarray(tile(3))[:, :128][:, ::-1]
    symmetric = Image.fromarray(np.concatenate([half[:, :128], other_half], axis=1))
    assert ambiguous(compared(symmetric, ImageOps.mirror(symmetric)))
    assert not ambiguous(None)
