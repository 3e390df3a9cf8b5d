"""Copies and random crops drawn anew: what each draw depends on, and what is never drawn."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.tiny_fits import picture
from trainers.errors import TrainerError
from trainers.images.augment import RECIPES, Recipe, flips
from trainers.images.decode import square
from trainers.images.decoder import ImageCopy
from trainers.images.fresh_draws import FreshDraws

SIZE = 16


@pytest.fixture
def photo(tmp_path: Path) -> ImageCopy:
    path = tmp_path / "photo.png"
    Image.fromarray(picture(1, 3, (40, 60))).save(path)
    return ImageCopy(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), 1)


def draws(folder: Path, recipe: str = "contest", view: str = "squash", seed: int = 0) -> FreshDraws:
    return FreshDraws(folder, recipe, view, SIZE, seed)


def decoded(folder: Path) -> np.ndarray:
    return square(folder / "photo.png", SIZE, "squash")


@pytest.mark.parametrize("view", ["squash", "random_crop"])
def test_a_draw_depends_on_seed_epoch_image_copy_and_occurrence_alone(
    tmp_path: Path, photo: ImageCopy, view: str
) -> None:
    own, image = draws(tmp_path, view=view), decoded(tmp_path)
    first = own.image(photo, 0, image)
    assert (first.shape, first.dtype) == ((SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(draws(tmp_path, view=view).image(photo, 0, image), first)
    others = [
        own.image(photo, 1, image),
        draws(tmp_path, view=view, seed=1).image(photo, 0, image),
        own.image(dataclasses.replace(photo, copy=2), 0, image),
        own.image(photo, 0, image, occurrence=1),
    ]
    if view == "squash":  # a file has one hash
        others.append(own.image(dataclasses.replace(photo, sha256="0" * 64), 0, image))
    assert not any(np.array_equal(first, other) for other in others)


def test_the_original_is_never_augmented(tmp_path: Path, photo: ImageCopy) -> None:
    image = decoded(tmp_path)
    for epoch in range(3):
        np.testing.assert_array_equal(draws(tmp_path).image(dataclasses.replace(photo, copy=0), epoch, image), image)


def test_a_random_crop_of_the_original_is_another_in_each_epoch(tmp_path: Path, photo: ImageCopy) -> None:
    own, original = draws(tmp_path, view="random_crop"), dataclasses.replace(photo, copy=0)
    seen = {own.image(original, epoch).tobytes() for epoch in range(5)}
    assert len(seen) == 5
    possible = [square(tmp_path / "photo.png", SIZE, "random_crop", seed).mean() for seed in range(200)]
    assert min(possible) <= own.image(original, 0).mean() <= max(possible)


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "none"])
def test_every_recipe_gives_other_copies_in_other_epochs(tmp_path: Path, photo: ImageCopy, recipe: str) -> None:
    own, image = draws(tmp_path, recipe), decoded(tmp_path)
    for copy in (1, 2):
        number = dataclasses.replace(photo, copy=copy)
        assert len({own.image(number, epoch, image).tobytes() for epoch in range(12)}) >= 6


def test_copies_of_flips_keep_their_flip(tmp_path: Path) -> None:
    """A flat half shows whether a copy is mirrored, however it is shifted."""
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[:, : SIZE // 2] = 200
    own = draws(tmp_path, "flips")
    for k, is_mirrored in ((1, True), (2, False), (3, True), (4, False), (5, True)):
        for epoch in range(10):
            drawn = own.image(ImageCopy("", "ab", k), epoch, image)
            assert bool(drawn[:, 0].mean() < 100) is is_mirrored
    assert flips(image, 1, np.random.default_rng(0))[0, 0, 0] == 0


OWN = Recipe("own", lambda image, k, random: np.roll(image, k + int(random.integers(2)), 0))
"""``tests.trainers.images.test_fresh_draws:OWN``."""


def test_a_recipe_of_ones_own_gets_the_copys_number(tmp_path: Path, photo: ImageCopy) -> None:
    own, image = draws(tmp_path, f"{__name__}:OWN"), decoded(tmp_path)
    wanted = {np.roll(image, by, 0).tobytes() for by in (1, 2)}
    assert {own.image(photo, epoch, image).tobytes() for epoch in range(20)} == wanted


def test_a_changed_file_is_named(tmp_path: Path, photo: ImageCopy) -> None:
    own = draws(tmp_path, view="random_crop")
    with pytest.raises(TrainerError, match=r"photo\.png changed since"):
        own.image(dataclasses.replace(photo, sha256="0" * 64), 0)
