"""What is kept of a photo."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import look_at, scene
from trainers.files.plain import Unreadable
from trainers.images.comparison import CHROMA, Preview
from trainers.images.look import look, packed, preview_of


def test_a_file_and_its_pixels_have_one_look() -> None:
    buffer = io.BytesIO()
    scene(0).save(buffer, "PNG")
    one, other = look(buffer.getvalue()), look_at(scene(0))
    assert (one.width, one.height, one.comparable) == (256, 192, True)
    assert one.descriptor == other.descriptor
    assert np.array_equal(one.keypoints, other.keypoints)
    assert preview_of(one.preview).grey.shape == (96, 128)
    assert one.thumbnail.shape == (32, 32)


@pytest.mark.parametrize("size", [(1, 1), (2000, 3), (3, 2000), (31, 31), (40, 32)])
def test_odd_sizes_have_looks(size: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    scene(0).resize(size).save(buffer, "PNG")
    found = look(buffer.getvalue())
    assert (found.width, found.height) == size
    assert len(found.descriptor) == 256
    assert found.comparable == (max(size) >= 32)


def test_flat_and_tiny_images_are_not_comparable() -> None:
    flat = look_at(Image.new("RGB", (200, 100), "grey"))
    assert not flat.comparable
    assert not flat.keypoints["size"].any()
    with pytest.raises(Unreadable):
        look(b"nothing that is a picture")


@pytest.mark.parametrize("shape", [(96, 128), (1, 128), (128, 1), (77, 128)])
def test_a_preview_is_packed_without_loss(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    preview = Preview(random.integers(0, 256, shape, np.uint8), random.integers(0, 256, (CHROMA, CHROMA, 2), np.uint8))
    again = preview_of(packed(preview))
    assert np.array_equal(again.grey, preview.grey)
    assert np.array_equal(again.chroma, preview.chroma)
    assert len(look_at(scene(0)).preview) < 11_000
