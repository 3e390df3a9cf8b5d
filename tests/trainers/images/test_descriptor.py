"""Descriptors recognise a photo that was exported again, and nothing else."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.pictures import look_at, scene, tile
from trainers.images.descriptor import CELLS, same_descriptors


def exported(image: Image.Image, quality: int, factor: float) -> Image.Image:
    buffer = io.BytesIO()
    size = (round(image.width * factor), round(image.height * factor))
    image.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(("quality", "factor"), [(95, 1.0), (60, 0.5), (30, 1.0), (75, 1.7), (50, 0.5)])
def test_exported_again_at_another_size_or_quality(quality: int, factor: float) -> None:
    known = [look_at(scene(s)).descriptor for s in range(40)]
    asked = [look_at(exported(scene(s), quality, factor)).descriptor for s in range(40)]
    assert same_descriptors(asked, known).tolist() == list(range(40))


def test_others_mirrored_flat_and_missing_ones_are_not_recognised() -> None:
    known = [look_at(scene(0)).descriptor, None, bytes(256), look_at(tile(0)).descriptor]
    asked = [
        look_at(ImageOps.mirror(scene(0))).descriptor,
        None,
        bytes(256),
        look_at(tile(0, (100, 100))).descriptor,
        b"",
    ]
    assert same_descriptors(asked, known).tolist() == [-1] * 5
    assert same_descriptors([], known).tolist() == []
    assert same_descriptors(known, []).tolist() == [-1] * 4


def test_a_thousand_are_sought_among_a_hundred_thousand_in_seconds() -> None:
    random = np.random.default_rng(0)
    known = random.integers(0, 256, (100_000, CELLS * CELLS), np.uint8)
    places = random.permutation(len(known))[:1000]
    asked = np.clip(known[places].astype(int) + random.integers(-1, 2, (1000, CELLS * CELLS)), 0, 255).astype(np.uint8)
    begin = time.process_time()
    found = same_descriptors([row.tobytes() for row in asked], [row.tobytes() for row in known])
    assert time.process_time() - begin < 15
    assert np.array_equal(found, places)
