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


@dataclass(frozen=True, eq=False)
class Look:
    """One photo, ``width`` x ``height`` px after EXIF orientation.

    ``thumbnail``: grey uint8 (32, 32), the aspect ratio ignored. ``preview``: a ``Preview`` as ``packed``.
    ``keypoints``: see ``trainers.images.keypoints``. ``descriptor``: see ``trainers.images.descriptor``.
    ``comparable``: whether it is large and varied enough to have near duplicates; without it there are no keypoints and
    no preview.
    """

    width: int
    height: int
    thumbnail: np.ndarray
    preview: bytes
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
    if max(width, height) < THUMBNAIL or small.std() < FLAT:
        return Look(width, height, small, b"", keypoints(grey[:0]), describe(image), comparable=False)
    across, down = (max(round(side * PREVIEW / SIDE), 1) for side in image.size)
    small_grey = np.asarray(image.resize((across, down), Image.Resampling.BOX))
    cells = colour.resize((CHROMA, CHROMA), Image.Resampling.BOX).convert("YCbCr")
    preview = packed(Preview(small_grey, np.asarray(cells)[..., 1:]))
    return Look(width, height, small, preview, keypoints(grey), describe(image), comparable=True)


def packed(preview: Preview) -> bytes:
    """A preview without loss in half of its bytes or fewer, for ``preview_of``: 4 bytes of length, and two PNGs."""
    import cv2  # `orch --help` does without

    parts = preview.grey, preview.chroma.reshape(CHROMA, 2 * CHROMA)
    grey, chroma = (cv2.imencode(".png", each, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes() for each in parts)
    return len(grey).to_bytes(4, "little") + grey + chroma


def preview_of(content: bytes) -> Preview:
    """The preview that was ``packed``."""
    import cv2

    end = 4 + int.from_bytes(content[:4], "little")
    pngs = (np.frombuffer(part, np.uint8) for part in (content[4:end], content[end:]))
    grey, chroma = (cv2.imdecode(png, cv2.IMREAD_GRAYSCALE) for png in pngs)
    return Preview(np.asarray(grey), np.asarray(chroma).reshape(CHROMA, CHROMA, 2))
