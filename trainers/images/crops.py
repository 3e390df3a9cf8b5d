"""Crops of one image, cut as their names say (``trainers.images.policies``). Free of TensorFlow.

``whole`` is the image made square by the configuration's view. All other crops but its mirror image are cut from a
*canvas*: the same square, larger than the network's input by 1 / 0.875. The canvas itself is shown whole, its central
0.75 is ``closer``. What several crops need is made once: the file is decoded once, each square once, and a mirror image
is its crop reversed.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.config import evaluated
from trainers.images.decode import DecodedPhoto
from trainers.images.policies import (
    BOX,
    CANVAS,
    CENTRE,
    CLOSER,
    CORNERS,
    MIRRORED,
    RANDOM,
    WHOLE,
    Box,
    box_named,
    crop_names,
    needs_canvas,
)

ZOOM = 0.875
"""Side of a centre or corner crop over the canvas's side (Krizhevsky et al. 2012: 224 of 256)."""
PYRAMID_SCALES = (1.0, 0.875, 0.75)
"""Sides of the crops ``canvas``, ``centre`` and ``closer`` over the canvas's side."""
SMALLEST_RANDOM_CROP = 0.7
PLACES = dict(zip((*CORNERS, CENTRE), ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5)), strict=True))
"""Position of a crop of the network's size on the canvas: (from the top, from the left), 0 to 1."""
SCALES = {CANVAS: PYRAMID_SCALES[0], CLOSER: PYRAMID_SCALES[2]}
READ, DECODE, CANVAS_SQUARE = "read", "decode", "square of the canvas"
"""Steps that the clock times, in addition to crops. The square of ``whole`` counts as that crop."""


def crops(source: Path | bytes, size: int, view: str, policy: str, sha256: str) -> np.ndarray:
    """Cut the crops of one image under ``policy``, uint8 (crops, size, size, 3), a pure function of its arguments."""
    return cut(source, size, view, crop_names(policy), sha256)


class Clock:
    """Seconds spent on images: reading and decoding, resizing to squares, cutting each crop."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._times: dict[str, int] = defaultdict(int)

    @contextlib.contextmanager
    def measure(self, what: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[what] += time.perf_counter() - started
            self._times[what] += 1

    def knows(self, names: Sequence[str]) -> bool:
        """Whether each of the crops ``names`` was cut at least once."""
        return all(what in self._times for what in _needed(names) if what != READ)

    def seconds_an_image(self, names: Sequence[str]) -> float:
        """Mean seconds per image for the crops ``names`` alone: reading, decoding, squares and cutting.

        A mirror image costs no more than its crop.
        """
        return sum(self._seconds[what] / self._times[what] for what in _needed(names) if what in self._times)


def _needed(names: Sequence[str]) -> set[str]:
    """Return the steps that the crops ``names`` take."""
    originals = {name.removesuffix(MIRRORED) for name in names}
    return {READ, DECODE, *originals, *({CANVAS_SQUARE} if needs_canvas(names) else ())}


def cut(
    source: Path | bytes, size: int, view: str, names: Sequence[str], sha256: str, clock: Clock | None = None
) -> np.ndarray:
    """Cut the crops ``names`` of one image, uint8 (names, size, size, 3); ``clock`` times each step.

    ``sha256`` draws the random crops. A random view becomes the central square. Raises Unreadable.
    """
    view = evaluated(view)
    cutter = _Cutter(DecodedPhoto(source), size, view, sha256, clock or Clock())
    return np.stack([cutter.crop(name) for name in names])


class _Cutter:
    """Cuts crops of one image, and keeps them."""

    def __init__(self, photo: DecodedPhoto, size: int, view: str, sha256: str, clock: Clock) -> None:
        self._photo, self._size, self._view, self._clock = photo, size, view, clock
        self._draw = np.random.default_rng(int(sha256[:16], 16))
        self._drawn: list[tuple[float, tuple[float, float]]] = []
        self._canvas: np.ndarray | None = None
        self._decoded = False
        self._made: dict[str, np.ndarray] = {}

    def crop(self, name: str) -> np.ndarray:
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> np.ndarray:
        if name.endswith(MIRRORED):
            return self.crop(name.removesuffix(MIRRORED))[:, ::-1]
        if name == WHOLE:
            return self._square(self._size, WHOLE)
        if self._canvas is None:
            self._canvas = self._square(round(self._size / ZOOM), CANVAS_SQUARE)
        with self._clock.measure(name):
            if name in PLACES:
                return _part(self._canvas, self._size, PLACES[name])
            if name.startswith(BOX):
                return _box(self._canvas, box_named(name), self._size)
            scale, place = (SCALES[name], PLACES[CENTRE]) if name in SCALES else self._random(name)
            return _zoom(self._canvas, scale, place, self._size)

    def _square(self, side: int, what: str) -> np.ndarray:
        if not self._decoded:  # a second size may need more pixels: a large JPEG's square then holds their decoding
            with self._clock.measure(DECODE):
                self._photo.decode(side, self._view)
            self._decoded = True
        with self._clock.measure(what):
            return self._photo.square(side, self._view)

    def _random(self, name: str) -> tuple[float, tuple[float, float]]:
        """Return scale and position of ``random-K``, this image's draw number K + 1."""
        number = int(name.removeprefix(RANDOM))
        while len(self._drawn) <= number:
            scale = self._draw.uniform(SMALLEST_RANDOM_CROP, 1.0)
            self._drawn.append((scale, (self._draw.random(), self._draw.random())))
        return self._drawn[number]


def _part(canvas: np.ndarray, side: int, place: tuple[float, float]) -> np.ndarray:
    """Return a view of ``canvas``; ``place``: 0 to 1 of the room that a square of ``side`` pixels has to move in."""
    top, left = (round((canvas.shape[0] - side) * p) for p in place)
    return canvas[top : top + side, left : left + side]


def _zoom(canvas: np.ndarray, scale: float, place: tuple[float, float], size: int) -> np.ndarray:
    return _resize(_part(canvas, max(round(canvas.shape[0] * scale), 1), place), size)


def _box(canvas: np.ndarray, box: Box, size: int) -> np.ndarray:
    edge = canvas.shape[0]
    side = max(round(edge * box.side), 1)
    top, left = (min(round(edge * start), edge - side) for start in (box.top, box.left))
    return _resize(canvas[top : top + side, left : left + side], size)


def _resize(square: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
