"""The steps from a photo to a network's input, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trainers.calibration import Calibration
from trainers.export.describe import how_to_cut, size_mb
from trainers.images.policies import POLICIES, crop_names

WORDS = {
    "whole": "the only crop",
    "centre": "one crop: the central 224 x 224",
    "flip": "two crops",
    "ten_crop": "ten crops: 224 x 224 in each corner",
    "pyramid": "six crops",
    "random_5": "5 crops at random places",
}


def served(size: int, view: str, policy: str, temperature: float = 1.0) -> Any:
    """What the description reads of a served model."""
    names, calibration = crop_names(policy), Calibration(temperature)
    return SimpleNamespace(image_size=size, view=view, policy=policy, crop_names=names, calibration=calibration)


def test_a_temperature_is_the_last_step() -> None:
    steps = how_to_cut(served(224, "squash", "flip", 0.25))
    assert steps[:-1] == how_to_cut(served(224, "squash", "flip"))
    assert steps[-1] == "calibrate: each probability to the power of 1 / 0.25, then divided by their sum"


def test_every_policy_is_described() -> None:
    assert set(POLICIES) <= set(WORDS)


@pytest.mark.parametrize("name", WORDS)
def test_the_steps_name_the_crops_and_their_mean(name: str) -> None:
    steps = how_to_cut(served(224, "squash", name))
    assert any(WORDS[name] in step for step in steps)
    assert ("mean" in steps[-1]) == (len(crop_names(name)) > 1)
    assert ("resize to 224 x 224" in steps[1]) == (name in ("whole", "flip"))


@pytest.mark.parametrize(("view", "square"), [("squash", False), ("centre_crop", True), ("random_crop", True)])
def test_a_view_that_crops_takes_the_central_square(view: str, square: bool) -> None:
    steps = how_to_cut(served(96, view, "whole"))
    assert ("central square" in steps[1]) == square


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a").write_bytes(b"x" * 1000)
    (tmp_path / "b").write_bytes(b"x" * 500)
    assert size_mb(tmp_path) == pytest.approx(0.0015)
    assert size_mb(tmp_path / "b") == pytest.approx(0.0005)
