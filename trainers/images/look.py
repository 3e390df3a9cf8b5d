"""What is kept of a photo to find its copies: thumbnail, preview, keypoints and descriptor. Free of TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainers.images.comparison import CHROMA, PREVIEW, Preview
from trainers.images.decode import reduced
from trainers.images.descriptor import describe
from trainers.images.keypoints import SIDE, keypoints

THUMBNAIL = 32
"""Side of the thumbnails, and of the smallest image that can have near duplicates.

Of an image below it on both sides (scanned digits), only exact duplicates count: so few pixels are often alike.
"""
FLAT = 4.0
"""Standard deviation (of 0 to 255) of a thumbnail below which an image is too flat to be compared."""
PREVIEW_ROW = np.dtype(
    [("height", "u1"), ("width", "u1"), ("grey", "u1", (PREVIEW, PREVIEW)), ("chroma", "u1", (CHROMA, CHROMA, 2))]
)
"""A ``Preview``, its greyscale image in the upper left corner of ``grey``."""


@dataclass(frozen=True, eq=False)
class Look:
    """One photo, ``width`` x ``height`` px after EXIF orientation.

    ``thumbnail``: grey uint8 (32, 32), the aspect ratio ignored. ``preview``: PREVIEW_ROW (). ``keypoints``: see
    ``trainers.images.keypoints``. ``descriptor``: see ``trainers.images.descriptor``. ``comparable``: whether it is
    large and varied enough to have near duplicates; without it there are no keypoints.
    """

    width: int
    height: int
    thumbnail: np.ndarray
    preview: np.ndarray
    keypoints: np.ndarray
    descriptor: bytes
    comparable: bool


def look(source: Path | str | bytes) -> Look:
    """Decode a photo and keep what its copies are found by. Raises Unreadable."""
    width, height, rgb = reduced(source, SIDE)
    return look_of(rgb, width, height)


def look_of(rgb: np.ndarray, width: int, height: int) -> Look:
    """As ``look``, of an image that was decoded: uint8 (h, w, 3) with a longer side of ``SIDE``."""
    colour = Image.fromarray(rgb)
    image = colour.convert("L")
    grey = np.asarray(image)
    small = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))
    across, down = (max(round(side * PREVIEW / SIDE), 1) for side in image.size)
    preview = np.zeros((), PREVIEW_ROW)
    preview["height"], preview["width"] = down, across
    preview["grey"][:down, :across] = np.asarray(image.resize((across, down), Image.Resampling.BOX))
    cells = colour.resize((CHROMA, CHROMA), Image.Resampling.BOX).convert("YCbCr")
    preview["chroma"] = np.asarray(cells)[..., 1:]
    comparable = max(width, height) >= THUMBNAIL and bool(small.std() >= FLAT)
    points = keypoints(grey) if comparable else keypoints(grey[:0])
    return Look(width, height, small, preview, points, describe(image), comparable)


def preview_of(row: np.ndarray) -> Preview:
    """The preview in a PREVIEW_ROW."""
    return Preview(row["grey"][: row["height"], : row["width"]], row["chroma"])
