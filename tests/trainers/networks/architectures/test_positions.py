"""Resizing of position tables against Pillow, whose bicubic filter PyTorch's antialiasing copies."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from trainers.networks.architectures.positions import resize_matrix, resized


@pytest.mark.parametrize(("old", "new"), [(14, 10), (14, 18), (37, 16), (37, 5), (16, 37), (2, 9), (9, 2)])
def test_a_table_is_resized_as_pillow_resizes_an_image(old, new):
    table = np.random.default_rng(old).normal(size=(old * old, 3)).astype(np.float32)
    channels = [Image.fromarray(table[:, k].reshape(old, old)) for k in range(3)]
    expected = [np.asarray(each.resize((new, new), Image.Resampling.BICUBIC)).ravel() for each in channels]
    assert np.abs(table).max() > 1
    np.testing.assert_allclose(resized(table, new), np.stack(expected, 1), atol=2e-6)


def test_the_same_grid_changes_nothing():
    table = np.random.default_rng(0).normal(size=(25, 2)).astype(np.float32)
    assert resized(table, 5) is table
    np.testing.assert_array_equal(resize_matrix(5, 5), np.eye(5))


@pytest.mark.parametrize(("old", "new"), [(14, 10), (10, 14)])
def test_constants_stay_and_both_directions_are_alike(old, new):
    matrix = resize_matrix(old, new)
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)
