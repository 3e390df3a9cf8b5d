"""Stored rows equal what this code computes: a change of one requires a change of the other.

Rows are found under keys that say what they depend on, but for the code of this package. If you change what a view,
a recipe or a built-in network gives, raise ``trainers.store.segments.FORMAT``, so that stored rows are left, and then
update the figures below. They are means of blocks, so that another processor's rounding does not matter.
"""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from trainers.config import VIEWS, TrialConfig
from trainers.images.augment import RECIPES, augment
from trainers.images.decode import square
from trainers.networks.backbone import build_backbone
from trainers.networks.prefix import Prefix
from trainers.store.segments import FORMAT

WRITTEN_FOR = 2
"""The FORMAT for which the figures below hold."""
# fmt: off
VIEW_MEANS: dict[str, list[int]] = {
    "squash": [61, 60, 125, 185, 60, 127, 61, 185, 126, 185, 185, 127],
    "centre_crop": [82, 60, 119, 165, 60, 134, 82, 185, 123, 165, 185, 131],
    "random_crop": [127, 75, 132, 201, 75, 123, 127, 186, 133, 201, 186, 122],
}
COPY_MEANS: dict[str, list[int]] = {
    "none": [
        61, 60, 125, 186, 60, 127, 61, 185, 126, 186, 185, 127, 61, 60, 125, 186, 60, 127, 61, 185, 126, 186,
        185, 127, 61, 60, 125, 186, 60, 127, 61, 185, 126, 186, 185, 127, 61, 60, 125, 186, 60, 127, 61, 185,
        126, 186, 185, 127,
    ],
    "flips": [
        186, 60, 127, 61, 60, 125, 186, 185, 127, 61, 185, 126, 61, 185, 126, 186, 185, 127, 61, 60, 125, 186,
        60, 127, 186, 185, 127, 61, 185, 126, 186, 60, 127, 61, 60, 125, 204, 60, 123, 84, 60, 125, 204, 185,
        124, 84, 185, 126,
    ],
    "contest": [
        63, 90, 125, 195, 57, 123, 86, 202, 124, 208, 171, 127, 79, 82, 127, 194, 74, 126, 81, 205, 119, 196,
        201, 124, 149, 52, 130, 37, 62, 129, 174, 181, 126, 55, 191, 125, 43, 73, 125, 164, 43, 127, 64, 190,
        127, 190, 158, 129,
    ],
    "colour": [
        218, 78, 157, 74, 73, 149, 225, 224, 166, 83, 221, 160, 224, 61, 155, 63, 63, 154, 222, 221, 152, 60,
        223, 152, 134, 47, 94, 52, 51, 97, 126, 125, 85, 43, 130, 89, 204, 79, 146, 79, 79, 144, 205, 204,
        148, 80, 204, 146,
    ],
    "rich": [
        47, 61, 136, 196, 47, 137, 50, 206, 127, 200, 192, 127, 61, 49, 117, 178, 57, 116, 46, 165, 114, 163,
        173, 112, 63, 76, 129, 177, 93, 128, 46, 189, 129, 158, 206, 141, 33, 57, 106, 112, 48, 116, 47, 139,
        112, 126, 130, 103,
    ],
    "trivial": [
        222, 38, 141, 60, 57, 162, 187, 188, 94, 27, 209, 116, 61, 60, 125, 186, 60, 127, 61, 185, 126, 186,
        185, 127, 48, 46, 110, 168, 46, 112, 48, 168, 111, 168, 168, 112, 184, 59, 126, 60, 59, 124, 184, 184,
        126, 60, 184, 125,
    ],
    "rand": [
        232, 80, 160, 80, 80, 157, 232, 232, 158, 80, 232, 158, 77, 70, 160, 242, 124, 163, 85, 227, 146, 211,
        204, 151, 62, 57, 117, 154, 70, 125, 55, 158, 122, 176, 125, 121, 63, 126, 124, 195, 64, 124, 126,
        238, 125, 237, 195, 125,
    ],
    "crop": [
        194, 78, 126, 84, 78, 124, 194, 160, 130, 84, 160, 132, 84, 84, 127, 178, 84, 128, 84, 177, 125,
        178, 177, 128, 78, 101, 132, 191, 101, 129, 78, 198, 120, 191, 198, 125, 72, 60, 121, 189, 60,
        126, 72, 154, 132, 189, 154, 129,
    ],
    "inception": [
        178, 115, 122, 100, 115, 137, 178, 193, 132, 100, 193, 120, 148, 76, 135, 59, 76, 122, 148, 154,
        116, 59, 154, 137, 66, 76, 125, 188, 76, 127, 66, 169, 128, 188, 169, 128, 121, 37, 142, 180, 37,
        132, 121, 115, 115, 180, 115, 123,
    ],
    "erase": [
        69, 86, 128, 147, 86, 128, 69, 183, 120, 147, 183, 136, 191, 92, 129, 110, 92, 128, 191, 170,
        128, 110, 170, 128, 66, 89, 129, 156, 89, 126, 66, 195, 117, 156, 195, 137, 88, 56, 119, 174, 56,
        132, 88, 173, 127, 174, 173, 128,
    ],
}
FEATURE_MEANS: dict[str, list[float]] = {
    "small_cnn": [0.022, 0.0361, 0.0154],
    "mobilenet_0.25": [0.0225, 0.0351, 0.0248],
    "mobilenet_v2_0.35": [0.026, 0.0386, 0.0258],
    "efficientnet_b0": [0.00215, 0.0388, 0.00218],
}
# fmt: on


def picture() -> Image.Image:
    """96 by 64 pixels in which every place is another colour."""
    down, right = np.mgrid[0:64, 0:96]
    waves = 60 * np.sin(down / 7) * np.cos(right / 9)
    return Image.fromarray(np.stack([right * 2.6, down * 3.9, 128 + waves], axis=-1).astype(np.uint8))


def means(pixels: np.ndarray) -> list[int]:
    """Of four blocks in each of three channels."""
    side = pixels.shape[0] // 2
    return [round(float(v)) for v in pixels.reshape(2, side, 2, side, 3).mean(axis=(1, 3)).ravel()]


def view_means(view: str) -> list[int]:
    file = io.BytesIO()
    picture().save(file, "PNG")
    return means(square(file.getvalue(), 32, view, 7))


def copy_means(recipe: str) -> list[int]:
    image = np.asarray(picture().resize((32, 32)))
    return [m for k in (1, 2, 3, 5) for m in means(augment(image, "a" * 64, k, recipe, 3))]


def feature_means(backbone: str) -> list[float]:
    """Of the network's output, its weights replaced by ones that only depend on their shapes."""
    model = build_backbone(backbone, "none", 32)
    config = TrialConfig(backbone=backbone, image_size=32, unfrozen_layers=0)
    for place, weight in enumerate(model.weights):
        spread = np.random.default_rng(place).normal(0, 0.05, weight.shape)
        weight.assign(np.abs(spread) + 0.5 if "gamma" in weight.path or "variance" in weight.path else spread)
    prefix = Prefix(config.prefix_key("none"), model)
    rows = np.asarray(prefix(np.asarray(picture().resize((32, 32)))[None]), np.float64)
    return [float(f"{v:.3g}") for v in (rows.mean(), rows.std(), rows.ravel()[::7].mean())]


AGAIN = "stored rows are no longer those of this code: raise FORMAT and update the figures"


def test_the_figures_are_those_of_the_format() -> None:
    assert FORMAT == WRITTEN_FOR, "update the figures of this file"
    assert set(VIEW_MEANS) == set(VIEWS)
    assert set(COPY_MEANS) == set(RECIPES)


@pytest.mark.parametrize("view", VIEW_MEANS)
def test_views(view: str) -> None:
    np.testing.assert_allclose(view_means(view), VIEW_MEANS[view], atol=1, err_msg=AGAIN)


@pytest.mark.parametrize("recipe", COPY_MEANS)
def test_recipes(recipe: str) -> None:
    np.testing.assert_allclose(copy_means(recipe), COPY_MEANS[recipe], atol=1, err_msg=AGAIN)


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=pytest.mark.slow if name == "efficientnet_b0" else ()) for name in FEATURE_MEANS],
)
def test_networks(backbone: str) -> None:
    np.testing.assert_allclose(feature_means(backbone), FEATURE_MEANS[backbone], rtol=0.01, err_msg=AGAIN)
