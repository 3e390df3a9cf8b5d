"""Forms of a model on every image of a split: one row and one time for each, and forms that fail are left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_fits import write_manifest
from trainers.data.manifest import Manifest
from trainers.export.measure import ORIGINAL, Measured, first_line, measure
from trainers.images.crops import cut
from trainers.images.policies import crop_names

SERVED: Any = SimpleNamespace(image_size=16, view="squash", crop_names=crop_names("flip"))
"""What is read of a served model."""


@pytest.fixture
def part(tmp_path: Path) -> Manifest:
    return Manifest.read(write_manifest(tmp_path / "pictures", {"test": 2})).split("test")


def red_green_blue(crops: np.ndarray) -> np.ndarray:
    """Each crop's shares of the three colours."""
    means = crops.mean((1, 2))
    return means / means.sum(1, keepdims=True)


def test_every_image_has_the_mean_over_its_crops(part: Manifest, tmp_path: Path) -> None:
    form = Measured(ORIGINAL, red_green_blue, 1.5)
    assert measure(SERVED, part, [form]) == {}
    form.write(tmp_path / "original.npz")
    with np.load(tmp_path / "original.npz") as stored:
        assert stored["sha256"].tolist() == part.table["sha256"].tolist()
        crops = [cut(path, 16, "squash", ("whole", "whole-mirrored"), "0" * 64) for path in part.paths()]
        expected = np.array([red_green_blue(each).mean(0) for each in crops])
        np.testing.assert_allclose(stored["probabilities"], expected)
    assert len(form.seconds) == len(part.table) == 6
    figures = form.figures()
    assert figures["size_mb"] == 1.5
    assert figures["latency_ms"] == pytest.approx(1000 * np.median(form.seconds))


def test_a_form_that_fails_is_left_out_at_once_and_the_original_must_not(part: Manifest) -> None:
    calls: list[int] = []

    def fail(crops: np.ndarray) -> np.ndarray:
        calls.append(len(crops))
        raise RuntimeError("\n no kernel for int8 \n and more")

    original, broken = Measured(ORIGINAL, red_green_blue, 1.0), Measured("tflite", fail, 1.0)
    failed = measure(SERVED, part, [original, broken])
    assert failed == {"tflite": "tflite was written but could not be run: RuntimeError: no kernel for int8"}
    assert calls == [2]
    assert len(original.rows) == 6
    with pytest.raises(RuntimeError):
        measure(SERVED, part, [Measured(ORIGINAL, fail, 1.0)])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError(), "KeyError"),
        (OSError("x" * 400), f"OSError: {'x' * 300}"),
    ],
)
def test_anothers_error_is_one_line(error: Exception, line: str) -> None:
    assert first_line(error) == line
