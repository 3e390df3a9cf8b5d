"""Maps from one picture to the other: where a point goes is known from the edit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.pictures import look_at, scene
from trainers.images.alignment import SYMMETRIES, map_of_keypoints, may_be_layout, symmetric, symmetric_map


@pytest.mark.parametrize(("quarters", "mirror"), SYMMETRIES)
def test_a_symmetry_takes_each_pixel_where_it_went(quarters: int, mirror: bool) -> None:
    grey = np.zeros((30, 50), np.uint8)
    grey[4, 11] = 255
    turned = symmetric(grey, quarters, mirror)
    matrix = symmetric_map(quarters, mirror, grey.shape, turned.shape)
    x, y = matrix @ [(11 + 0.5) / 50, (4 + 0.5) / 50, 1] * max(turned.shape) - 0.5
    assert np.argwhere(turned == 255).tolist() == [[round(y), round(x)]]


def test_a_symmetry_may_also_change_the_aspect_ratio() -> None:
    matrix = symmetric_map(0, False, (30, 50), (40, 40))
    assert np.allclose(matrix @ [1, 30 / 50, 1], [1, 1])


def test_a_crop_and_a_turn_are_found_to_a_pixel() -> None:
    whole = scene(0)
    crop = whole.crop((30, 20, 230, 170))
    matrix = map_of_keypoints(look_at(whole).keypoints, look_at(crop).keypoints, mirror=False)
    assert matrix is not None
    corner = matrix @ [30 / 256, 20 / 256, 1]
    assert np.abs(corner).max() < 1.5 / 256
    turned = whole.rotate(10, Image.Resampling.BICUBIC)
    matrix = map_of_keypoints(look_at(whole).keypoints, look_at(turned).keypoints, mirror=False)
    assert matrix is not None
    assert np.allclose(matrix @ [0.5, 0.375, 1], [0.5, 0.375], atol=1.5 / 256)
    assert np.rad2deg(np.arctan2(matrix[0, 1], matrix[0, 0])) == pytest.approx(10, abs=0.5)


def test_a_mirrored_picture_has_a_map_that_mirrors_and_another_picture_has_none() -> None:
    one, mirror = look_at(scene(0)).keypoints, look_at(ImageOps.mirror(scene(0))).keypoints
    matrix = map_of_keypoints(one, mirror, mirror=True)
    assert matrix is not None
    assert np.linalg.det(matrix[:, :2]) == pytest.approx(-1, abs=0.03)
    assert map_of_keypoints(one, look_at(scene(1)).keypoints, mirror=False) is None
    assert map_of_keypoints(one, np.zeros_like(one), mirror=False) is None


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0]], False),
        ([[1, 0, 0.05], [0, 1, 0.03]], False),  # a small correction
        ([[1, 0, 0.2], [0, 1, 0]], True),  # a shift by a cell
        ([[0.985, 0.174, -0.06], [-0.174, 0.985, 0.09]], False),  # turned by 10 degrees about the middle
        ([[0.866, 0.5, -0.12], [-0.5, 0.866, 0.3]], True),  # turned by 30: a cap with a scratch elsewhere
        ([[-1, 0, 1], [0, 1, 0]], True),  # mirrored
        ([[-1, 0, 1], [0, -1, 0.75]], True),  # turned by 180 degrees
        ([[1.25, 0, -0.2], [0, 1.25, -0.1]], False),  # a crop
        ([[-1.25, 0, 1.2], [0, 1.25, -0.1]], False),  # a mirrored crop
    ],
)
def test_maps_that_may_take_a_layout_to_itself(matrix: list[list[float]], expected: bool) -> None:
    assert may_be_layout(np.array(matrix, float), (96, 128), (96, 128)) == expected
