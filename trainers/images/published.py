"""Published ways to augment, over Pillow's operations: TrivialAugment, RandAugment, random crops, Random Erasing.

The first two papers' own code uses these very operations of Pillow. The magnitudes are torchvision's readings of the
papers (``TrivialAugmentWide()`` and ``RandAugment(num_ops=2, magnitude=9, num_magnitude_bins=11)``, both bilinear and
with a grey fill), with whose results the tests compare every operation. Imports without TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Picture = Image.Image

GREY = (128, 128, 128)
"""What comes in at the edge, as in RandAugment's code."""
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Magnitudes:
    """The largest magnitude of each kind of operation; every scale is linear and begins at no change.

    ``shear``: tangent of the angle. ``translate``: share of the side. ``rotate_degrees``. ``enhance``: how far the
    factor of brightness, colour, contrast and sharpness goes from 1. ``posterize_bits``: bits dropped, of 8.
    Solarising goes from the threshold 255 (white alone is inverted) to 0 (all is).
    """

    shear: float
    translate: float
    rotate_degrees: float
    enhance: float
    posterize_bits: int

    def of(self, operation: str, strength: float, width: int, height: int) -> float:
        """What ``operation`` takes at ``strength`` (0 to 1): px for a translation, bits kept, a threshold."""
        largest = {
            "shear_x": self.shear,
            "shear_y": self.shear,
            "translate_x": self.translate * width,
            "translate_y": self.translate * height,
            "rotate": self.rotate_degrees,
        }
        if operation == "posterize":
            return 8 - round(strength * self.posterize_bits)
        if operation == "solarize":
            return 255 * (1 - strength)
        if operation in WITHOUT_MAGNITUDE:
            return 0.0
        return strength * largest.get(operation, self.enhance)


def _affine(picture: Picture, matrix: tuple[float, ...]) -> Picture:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, BILINEAR, fillcolor=GREY)


OPERATIONS: dict[str, Callable[[Picture, float], Picture]] = {
    "identity": lambda picture, _: picture,
    "shear_x": lambda picture, m: _affine(picture, (1, m, 0, 0, 1, 0)),
    "shear_y": lambda picture, m: _affine(picture, (1, 0, 0, m, 1, 0)),
    "translate_x": lambda picture, m: _affine(picture, (1, 0, -int(m), 0, 1, 0)),
    "translate_y": lambda picture, m: _affine(picture, (1, 0, 0, 0, 1, -int(m))),
    "rotate": lambda picture, m: picture.rotate(m, BILINEAR, fillcolor=GREY),
    "brightness": lambda picture, m: ImageEnhance.Brightness(picture).enhance(1 + m),
    "colour": lambda picture, m: ImageEnhance.Color(picture).enhance(1 + m),
    "contrast": lambda picture, m: ImageEnhance.Contrast(picture).enhance(1 + m),
    "sharpness": lambda picture, m: ImageEnhance.Sharpness(picture).enhance(1 + m),
    "posterize": lambda picture, m: ImageOps.posterize(picture, int(m)),
    "solarize": lambda picture, m: ImageOps.solarize(picture, m),  # type: ignore[arg-type]  # compares with pixels
    "autocontrast": lambda picture, _: ImageOps.autocontrast(picture),
    "equalize": lambda picture, _: ImageOps.equalize(picture),
}
"""The 14 operations that both papers draw from: (RGB picture, magnitude) -> RGB picture of the same size."""
WITHOUT_MAGNITUDE = ("identity", "autocontrast", "equalize")
ONE_SIDED = (*WITHOUT_MAGNITUDE, "posterize", "solarize")
"""Operations whose magnitude has no sign; that of the others is negative half the time."""

WIDE = Magnitudes(shear=0.99, translate=32 / 224, rotate_degrees=135.0, enhance=0.99, posterize_bits=6)
"""TrivialAugment's wide space. Its 32 px are taken as a share of the paper's 224 px, so that small images keep some."""
WIDE_STEPS = 30
RAND = Magnitudes(shear=0.3, translate=150 / 331, rotate_degrees=30.0, enhance=0.9, posterize_bits=4)
RAND_OPERATIONS, RAND_MAGNITUDE, RAND_STEPS = 2, 9, 10
"""The paper's setting for ResNet-50 on ImageNet: N = 2 operations at magnitude M = 9 of 10."""


CROP_AREA, INCEPTION_AREA = (0.35, 1.0), (0.08, 1.0)
"""Shares of the image that a crop covers: fastai's usual choice for fine-tuning, and the paper's for ImageNet."""
CROP_RATIO = (3 / 4, 4 / 3)
"""Width over height of a crop."""
ERASED_AREA, ERASED_RATIO = (0.02, 0.4), (0.3, 1 / 0.3)
"""Share of the image that an erased rectangle covers, and its height over its width."""
ATTEMPTS = {"crop": 10, "erase": 100}
"""Maximum draws of a box until one lies in the image, as in torchvision and in Random Erasing's code."""


def trivial(image: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """Mirrored half the time, then one operation, drawn evenly, at one of 31 magnitudes, drawn evenly; no setting.

    TrivialAugment (Wide), Mueller & Hutter 2021, algorithm 1; the mirroring is of its setting for ImageNet.
    """
    picture = _mirrored_half_the_time(image, random)
    return np.asarray(_draw(picture, WIDE, int(random.integers(WIDE_STEPS + 1)) / WIDE_STEPS, random))


def rand(image: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """Mirrored half the time, then two operations, drawn evenly with replacement, each at 0.9 of the full magnitude.

    RandAugment, Cubuk et al. 2020, with its N = 2 and M = 9 of 10; the mirroring is of its setting for ImageNet.
    """
    picture = _mirrored_half_the_time(image, random)
    for _ in range(RAND_OPERATIONS):
        picture = _draw(picture, RAND, RAND_MAGNITUDE / RAND_STEPS, random)
    return np.asarray(picture)


def _mirrored_half_the_time(image: np.ndarray, random: np.random.Generator) -> Picture:
    return Image.fromarray(np.ascontiguousarray(image[:, ::-1] if random.random() < 0.5 else image))


def _draw(picture: Picture, space: Magnitudes, strength: float, random: np.random.Generator) -> Picture:
    names = tuple(OPERATIONS)
    name = names[int(random.integers(len(names)))]
    sign = -1.0 if random.random() < 0.5 and name not in ONE_SIDED else 1.0
    return OPERATIONS[name](picture, sign * space.of(name, strength, *picture.size))


def crop(image: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """A crop of 0.35 to 1 of the area and of proportions 3:4 to 4:3, enlarged; mirrored half the time.

    A random resized crop, milder than the recipe inception, as is usual for fine-tuning.
    """
    return np.asarray(_resized_crop(_mirrored_half_the_time(image, random), CROP_AREA, random))


def inception(image: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """A crop of 0.08 to 1 of the area and of proportions 3:4 to 4:3, enlarged; mirrored half the time.

    Szegedy et al. 2015, section 6, as torchvision's ``RandomResizedCrop()`` reads it.
    """
    return np.asarray(_resized_crop(_mirrored_half_the_time(image, random), INCEPTION_AREA, random))


def erase(image: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """As ``crop``; then, half the time, a rectangle of 0.02 to 0.4 of the area becomes noise.

    Random Erasing, Zhong et al. 2020, algorithm 1, with random values.
    """
    cropped = crop(image, k, random).copy()
    height, width = cropped.shape[:2]
    if random.random() < 0.5:
        return cropped
    for _ in range(ATTEMPTS["erase"]):
        area, ratio = height * width * random.uniform(*ERASED_AREA), random.uniform(*ERASED_RATIO)
        down, across = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < down < height and 0 < across < width:
            top, left = int(random.integers(height - down + 1)), int(random.integers(width - across + 1))
            noise = random.integers(0, 256, (down, across, 3), np.uint8)
            cropped[top : top + down, left : left + across] = noise
            break
    return cropped


def crop_box(
    width: int, height: int, area: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw (left, top, right, bottom) in px of a random resized crop: its share of the area uniform, the logarithm of
    its proportions uniform. The largest central box of allowed proportions if no draw lies in the image."""
    for _ in range(ATTEMPTS["crop"]):
        pixels = width * height * random.uniform(*area)
        ratio = math.exp(random.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
        across, down = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < across <= width and 0 < down <= height:
            left, top = int(random.integers(width - across + 1)), int(random.integers(height - down + 1))
            return left, top, left + across, top + down
    ratio = min(max(width / height, CROP_RATIO[0]), CROP_RATIO[1])
    across, down = min(width, max(round(height * ratio), 1)), min(height, max(round(width / ratio), 1))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def _resized_crop(picture: Picture, area: tuple[float, float], random: np.random.Generator) -> Picture:
    box = crop_box(*picture.size, area, random)
    return picture.resize(picture.size, BILINEAR, box=box)
