"""How many augmented copies each training image gets, and what copy k looks like.

Copy k of an image is a pure function of (sha256, k, recipe, data seed), never of a trial's seed: what one trial
computed serves every other. Imports without TensorFlow.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from trainers.dotted import lookup
from trainers.errors import TrainerError
from trainers.images.published import crop, erase, inception, rand, trivial

Generator = np.random.Generator


def plan_copies(labels: np.ndarray, multiplier: float, spread: str = "even") -> np.ndarray:
    """Copies per image, int64 of ``labels``' shape (0 = the original alone); the sum is round(multiplier * n) - n.

    even: the smallest classes are raised first, until the class totals are as even as they can be without dropping an
    original. proportional: every class grows by the same factor, within an image or so. In both the copies of a class
    differ by one at most. Elementwise monotone in ``multiplier``: the copies of 2 are among those of 5. Raises
    TrainerError for a multiplier below 1.
    """
    if not (math.isfinite(multiplier) and multiplier >= 1):
        raise TrainerError(f"the multiplier is {multiplier}; it must be at least 1, for no original is ever dropped.")
    labels = np.asarray(labels)
    copies = np.zeros(len(labels), np.int64)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    extra = round(multiplier * len(labels)) - len(labels)
    if spread == "proportional":
        return _in_proportion(inverse, counts, extra)
    added = _fill(counts, extra)
    for number, (count, extra) in enumerate(zip(counts, added, strict=True)):
        each, rest = divmod(int(extra), int(count))
        copies[inverse == number] = each + (np.arange(count) < rest)
    return copies


def _in_proportion(inverse: np.ndarray, counts: np.ndarray, extra: int) -> np.ndarray:
    """Copies per image: all get the same number, and the images first in turn, class by class in proportion, one more.

    An image's turn is its place within its class over the class's size.
    """
    if not len(inverse):
        return np.zeros(0, np.int64)
    within = np.zeros(len(inverse), np.int64)
    for number in range(len(counts)):
        within[inverse == number] = np.arange(counts[number])
    order = np.lexsort((inverse, (within + 0.5) / counts[inverse]))
    each, rest = divmod(extra, len(inverse))
    copies = np.full(len(inverse), each, np.int64)
    copies[order[:rest]] += 1
    return copies


def _fill(counts: np.ndarray, extra: int) -> np.ndarray:
    """What each class gets when ``extra`` units go, one by one, to the class that is smallest then (ties: first)."""
    if extra == 0 or len(counts) == 0:
        return np.zeros(len(counts), np.int64)
    ascending = np.sort(counts)
    # cost[i]: units that raise the i smallest classes to the size of the next one.
    cost = ascending * np.arange(len(counts)) - (np.cumsum(ascending) - ascending)
    raised = int(np.searchsorted(cost, extra, side="right"))
    level = (extra + int(ascending[:raised].sum())) // raised
    added = np.maximum(level - counts, 0)
    rest = extra - int(added.sum())
    added[np.flatnonzero(counts <= level)[:rest]] += 1
    return added


@dataclass(frozen=True)
class Recipe:
    """One way to augment.

    ``apply``: (image uint8 (h, w, 3), k = 1, 2, ..., random generator of this copy) -> uint8 of the same shape.
    Where copies are drawn anew in each epoch the generator is of this copy and epoch. ``fresh``: the same function for
    such copies; None: ``apply``, whose copy k then differs between epochs in what it takes from the generator. Both may
    be called by several threads at once.
    """

    name: str
    apply: Callable[[np.ndarray, int, Generator], np.ndarray]
    fresh: Callable[[np.ndarray, int, Generator], np.ndarray] | None = None

    def draw(self, image: np.ndarray, k: int, random: Generator) -> np.ndarray:
        """Copy ``k`` of ``image`` as drawn in one epoch."""
        return np.ascontiguousarray((self.fresh or self.apply)(image, k, random))


def augment(image: np.ndarray, sha256: str, k: int, recipe: str, seed: int) -> np.ndarray:
    """Copy ``k`` of ``image`` (uint8 (h, w, 3)), of the same shape; k = 0 is the image itself.

    ``seed`` is the data's. ``recipe`` is a name of ``RECIPES`` or a dotted "module:attribute" of a ``Recipe``.
    Raises TrainerError for an unknown recipe.
    """
    chosen = find_recipe(recipe)
    if k == 0:
        return image
    if k < 0:
        raise TrainerError(f"copy {k} of an image was asked for; copies are counted from 1, and 0 is the original.")
    digest = hashlib.sha256(f"{sha256}:{k}:{recipe}:{seed}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    return np.ascontiguousarray(chosen.apply(image, k, random))


def find_recipe(name: str) -> Recipe:
    """The recipe called ``name``, or the ``Recipe`` at a dotted "module:attribute". Raises TrainerError."""
    return lookup(name, RECIPES, Recipe)


FLIPS_SHIFTS = 8
"""Directions in which ``flips`` shifts."""


def repeat(image: np.ndarray, k: int, random: Generator) -> np.ndarray:
    """Every copy is the image again: balances the classes and changes nothing else."""
    return image


def flips(image: np.ndarray, k: int, random: Generator) -> np.ndarray:
    """Copy 1 is mirrored left to right, 2 upside down, 3 both; further copies are also shifted by up to a tenth.

    Copies 4 to 7 are the original and the three flips shifted one way, 8 to 11 another, through eight directions;
    how far is random. What comes in at the edge is the image reflected.
    """
    flipped = _mirrored(image) if k % 4 in (1, 3) else image
    flipped = flipped[::-1] if k % 4 in (2, 3) else flipped
    if k < 4:
        return flipped
    height, width = image.shape[:2]
    far = [int(random.integers(1, max(1, round(side / 10)) + 1)) for side in (height, width)]
    way = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))[(k // 4 - 1) % FLIPS_SHIFTS]
    down, right = way[0] * far[0], way[1] * far[1]
    return _shifted(_shifted(flipped, down).transpose(1, 0, 2), right).transpose(1, 0, 2)


def fresh_flips(image: np.ndarray, k: int, random: Generator) -> np.ndarray:
    """``flips`` drawn anew: copy k keeps its flip (k modulo 4); the shift is none or one of the eight, each alike."""
    return flips(image, k % 4 + 4 * int(random.integers(FLIPS_SHIFTS + 1)), random)


def contest(image: np.ndarray, k: int, random: Generator) -> np.ndarray:
    """What the contest's teams took from Keras' ImageDataGenerator, as one warp.

    Rotation up to 20 degrees, shifts up to 0.1 of the sides, shear up to 0.1, zoom 0.9 to 1.1 on either axis, each
    flip with probability 1/2. What comes in at the edge is the image reflected.
    """
    return _warp(
        image,
        degrees=random.uniform(-20, 20),
        zoom=np.array(random.uniform(0.9, 1.1, 2)) * random.choice([-1.0, 1.0], 2),
        shear=random.uniform(-0.1, 0.1),
        shift=random.uniform(-0.1, 0.1, 2),
    )


def colour(image: np.ndarray, k: int, random: Generator) -> np.ndarray:
    """Left to right with probability 1/2; brightness, contrast and saturation times 0.7 to 1.3 each."""
    flipped = _mirrored(image) if random.random() < 0.5 else image
    return _jitter(flipped, 0.3, random)


def rich(image: np.ndarray, k: int, random: Generator) -> np.ndarray:
    """A crop of 0.7 to 1 of the sides, mirrored half the time, turned up to 10 degrees, colours times 0.8 to 1.2."""
    side = random.uniform(0.7, 1.0)
    warped = _warp(
        image,
        degrees=random.uniform(-10, 10),
        zoom=np.array([1 / side * random.choice([-1.0, 1.0]), 1 / side]),
        shear=0.0,
        shift=random.uniform(-0.5, 0.5, 2) * (1 - side) / side,
    )
    return _jitter(warped, 0.2, random)


RECIPES: dict[str, Recipe] = {
    row.name: row
    for row in (
        Recipe("none", repeat),
        Recipe("flips", flips, fresh_flips),
        Recipe("contest", contest),
        Recipe("colour", colour),
        Recipe("rich", rich),
        Recipe("trivial", trivial),
        Recipe("rand", rand),
        Recipe("crop", crop),
        Recipe("inception", inception),
        Recipe("erase", erase),
    )
}


def _mirrored(image: np.ndarray) -> np.ndarray:
    """Left to right; Pillow takes a quarter of the time of a copy of numpy's reversed view."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def _shifted(image: np.ndarray, by: int) -> np.ndarray:
    """Move the rows down by ``by`` (up where it is negative); what comes in is the image reflected at its edge."""
    if by == 0:
        return image
    if by < 0:
        return _shifted(image[::-1], -by)[::-1]
    return np.concatenate([image[:by][::-1], image[: len(image) - by]])


def _warp(image: np.ndarray, degrees: float, zoom: np.ndarray, shear: float, shift: np.ndarray) -> np.ndarray:
    """The image turned, sheared, zoomed (x, y; above 1 enlarges, negative flips) about its centre, then shifted.

    ``shift`` is a share of width and height. Bilinear; outside the image lies its reflection.
    """
    height, width = image.shape[:2]
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = np.diag(zoom) @ turn @ np.array([[1.0, shear], [0.0, 1.0]])
    back = np.linalg.inv(forward)  # Pillow asks where an output pixel comes from
    centre = np.array([width / 2, height / 2])
    pad = math.ceil(0.5 * max(width, height))
    offset = centre - back @ (centre + shift * (width, height)) + pad
    padded = Image.fromarray(np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="symmetric"))
    matrix = (*back[0], offset[0], *back[1], offset[1])
    out = padded.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(out)


def _jitter(image: np.ndarray, strength: float, random: Generator) -> np.ndarray:
    """Brightness, contrast and saturation, in a random order, each times a factor within 1 +- ``strength``."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    factors = random.uniform(1 - strength, 1 + strength, 3)
    for number in random.permutation(3):
        picture = enhancers[number](picture).enhance(float(factors[number]))
    return np.asarray(picture)
