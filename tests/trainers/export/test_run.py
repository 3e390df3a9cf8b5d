"""The codes of a quantised network's input and output."""

from __future__ import annotations

import numpy as np
import pytest

from trainers.export.run import _from_codes, _to_codes

PIXELS = np.array([0, 1, 127, 255], np.float32)


@pytest.mark.parametrize(("scale", "zero_point"), [(0.0, 0), (1.0, 0)])
def test_pixels_stay_if_they_are_the_codes(scale: float, zero_point: int) -> None:
    assert _to_codes(PIXELS, scale, zero_point) is PIXELS


def test_pixels_become_the_nearest_codes() -> None:
    assert _to_codes(PIXELS, 2.0, 3).tolist() == [3, 3, 67, 131]  # 63.5 rounds to even
    assert _to_codes(PIXELS, 0.5, 0).tolist() == [0, 2, 254, 255]
    assert _to_codes(PIXELS, 0.5, 0).dtype == np.uint8


def test_codes_become_values() -> None:
    codes = np.array([0, 128, 255], np.uint8)
    np.testing.assert_allclose(_from_codes(codes, 1 / 256, 0), [0, 0.5, 255 / 256])
    np.testing.assert_allclose(_from_codes(codes, 0.5, 128), [-64, 0, 63.5])
    floats = np.array([0.25, 0.75], np.float32)
    assert _from_codes(floats, 0.0, 0) is floats
