"""From a file to pixels: decode what Pillow reads of the usual formats into RGB, and make it square.

Imports without TensorFlow. Every failure names the file and the reason.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from trainers.config import DECODES, VIEWS, parts_of
from trainers.errors import TrainerError
from trainers.files.plain import Unreadable, read_plain
from trainers.images.pillow_reader import TooLarge, open_photo, upright, without_remarks

SMALLEST_CROP = 0.7
"""Minimum side of a random crop, as a share of the image's shorter side."""
LEAST_PIXELS = 1.25
"""Minimum side of a JPEG that is decoded at a half, quarter or eighth, over the side that the view needs, where
``TrialConfig.decode`` is "needed": so much is left for the antialiasing filter."""
SHORTEST = 8
"""Minimum shorter side, in px, of a reduced image."""
BAND_PIXELS = 2**21
"""Pixels that are converted to RGB at a time, so that a large image takes no third and fourth copy."""


def decode(source: Path | str | bytes) -> Image.Image:
    """The picture in ``source`` (a path, or a file's bytes) as 8-bit RGB, the way a viewer shows it.

    EXIF orientation is applied, transparency becomes white, an animation gives its first frame. 16-bit greyscale is
    scaled by 255 / 65535; 32-bit integers and floats by the smallest of their usual ranges (1 for floats, 255, 65535)
    that holds them, and stretched from minimum to maximum where none does.
    A JPEG with more pixels than ``trainers.images.pillow_reader`` decodes comes at a half, quarter or eighth.
    Raises Unreadable, a TrainerError, with the file and the reason: missing, truncated, no image, too large.
    """
    with _loaded(source, None) as (image, _, _):
        return image


def square(source: Path | str | bytes, size: int, view: str, crop_seed: int | None = None) -> np.ndarray:
    """The picture as uint8 (size, size, 3), resized bilinearly with antialiasing.

    ``view``: "squash" ignores the aspect ratio; "centre_crop" takes the central square; "random_crop" takes the
    square that ``crop_seed`` names, of side 0.7 to 1 times the shorter side, placed uniformly (without a seed: the
    central square). After a plus sign it may hold ``TrialConfig.decode``, see ``least_side``.
    Raises Unreadable as ``decode`` does, and TrainerError for an unknown view.
    """
    return DecodedPhoto(source).square(size, view, crop_seed)


class DecodedPhoto:
    """One picture that is made square more than once: decoded once for all sizes that take the same pixels.

    A large JPEG is decoded at a half, quarter or eighth where that still leaves ``least_side`` pixels.
    """

    def __init__(self, source: Path | str | bytes) -> None:
        self._source = source
        self._decoded: dict[tuple[int, int], Image.Image] = {}

    def decode(self, size: int, view: str = "squash") -> Image.Image:
        """RGB with the pixels that a square of ``size`` needs. Raises Unreadable."""
        with self._loaded(size, view) as image:
            return image

    def square(self, size: int, view: str, crop_seed: int | None = None) -> np.ndarray:
        """See ``trainers.images.square``."""
        return self.squares(size, view, [crop_seed])[0]

    def squares(self, size: int, view: str, crop_seeds: Sequence[int | None]) -> list[np.ndarray]:
        """Return ``square`` for each of ``crop_seeds``, from one decoding; equal squares are one array."""
        kind, decode = parts_of(view)
        if kind not in VIEWS or decode not in DECODES:
            raise TrainerError(f"there is no view {view!r}; known are {', '.join(VIEWS)}.")
        made: dict[tuple[float, float, float, float] | None, np.ndarray] = {}
        with self._loaded(size, view) as image:
            boxes = [None if kind == "squash" else _square_box(image.size, _seed_of(kind, seed)) for seed in crop_seeds]
            for box in dict.fromkeys(boxes):
                small = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
                made[box] = np.array(small, np.uint8)
        return [made[box] for box in boxes]

    @contextlib.contextmanager
    def _loaded(self, size: int, view: str) -> Iterator[Image.Image]:
        with _loaded(self._source, least_side(size, view), self._decoded) as (image, _, _):
            yield image


def least_side(size: int, view: str) -> int:
    """Return the pixels a side that a reduced JPEG has at least, for a square of ``size``.

    "ample": twice what a random crop needs, for every view. "needed": LEAST_PIXELS times what this view needs.
    """
    kind, decode = parts_of(view)
    if decode == "ample":
        return int(2 * size / SMALLEST_CROP)
    return math.ceil(LEAST_PIXELS * size / (SMALLEST_CROP if kind == "random_crop" else 1.0))


def batch(paths: Sequence[Path], size: int, view: str, crop_seeds: Sequence[int] | None = None) -> np.ndarray:
    """``square`` of each path, uint8 (len(paths), size, size, 3)."""
    out = np.empty((len(paths), size, size, 3), np.uint8)
    for i, path in enumerate(paths):
        out[i] = square(path, size, view, None if crop_seeds is None else int(crop_seeds[i]))
    return out


def reduced(source: Path | str | bytes, side: int) -> tuple[int, int, np.ndarray]:
    """(width, height, RGB uint8 (h, w, 3) of a longer side of ``side``); sizes are after EXIF orientation.

    The aspect ratio is kept, but the shorter side has at least ``SHORTEST`` px. Reads the whole file, so it raises
    Unreadable whenever ``decode`` does.
    """
    with _loaded(source, side) as (image, width, height):
        scale = side / max(image.size)
        across, down = (max(round(length * scale), SHORTEST) for length in image.size)
        small = image.resize((across, down), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return width, height, np.array(small, np.uint8)


def _seed_of(view: str, crop_seed: int | None) -> int | None:
    return crop_seed if view == "random_crop" else None


def _square_box(size: tuple[int, int], crop_seed: int | None) -> tuple[float, float, float, float]:
    shorter = min(size)
    side, across, down = float(shorter), 0.5, 0.5
    if crop_seed is not None:
        random = np.random.default_rng(crop_seed)
        side = shorter * random.uniform(SMALLEST_CROP, 1.0)
        across, down = random.uniform(size=2)
    left, top = (size[0] - side) * across, (size[1] - side) * down
    return left, top, min(left + side, size[0]), min(top + side, size[1])


@contextlib.contextmanager
def _loaded(
    source: Path | str | bytes, at_least: int | None, decoded: dict[tuple[int, int], Image.Image] | None = None
) -> Iterator[tuple[Image.Image, int, int]]:
    """RGB image, and the full width and height. ``at_least``: a JPEG may come smaller, with no side below this.

    ``decoded`` keeps the images of one source by the size at which its decoder gave them, and answers from there.
    Errors inside the context are also attributed to this photo.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_plain(source)
    if not data:
        raise Unreadable(name, "the file is empty")
    try:
        with _decoded(data, at_least, {} if decoded is None else decoded) as found:
            yield found
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        raise Unreadable(name, _reason(error)) from error


@contextlib.contextmanager
def _decoded(
    data: bytes, at_least: int | None, decoded: dict[tuple[int, int], Image.Image]
) -> Iterator[tuple[Image.Image, int, int]]:
    with contextlib.ExitStack() as room:
        try:
            found = _decode(room.enter_context(open_photo(data, at_least)), decoded)
        except (TooLarge, MemoryError):
            raise
        except Exception:
            bare = without_remarks(data)
            if bare is None:
                raise
            room.close()
            found = _decode(room.enter_context(open_photo(bare, at_least)), decoded)
        yield found


def _decode(
    photo: tuple[Image.Image, int, int], decoded: dict[tuple[int, int], Image.Image]
) -> tuple[Image.Image, int, int]:
    image, width, height = photo
    key = image.size
    if key not in decoded:
        image.load()
        image, swapped = upright(image)
        width, height = (height, width) if swapped else (width, height)
        decoded[key] = _rgb(image)
    return decoded[key], width, height


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    return (str(error) or type(error).__name__).rstrip(".")


def _rgb(image: Image.Image) -> Image.Image:
    """Band by band, which changes no pixel: each is converted for itself."""
    numbers = image.mode == "F" or image.mode.startswith("I")
    transparent = not numbers and image.has_transparency_data
    if image.mode == "RGB" and not transparent:
        return image
    span = _span(image) if numbers else (0.0, 0.0)
    out = Image.new("RGB", image.size)
    for band in _bands(image):
        part = image.crop(band)
        if numbers:
            part = Image.fromarray(_eight_bits(np.asarray(part), image.mode, *span))
        elif transparent:
            part = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        out.paste(part.convert("RGB"), band)
    return out


def _bands(image: Image.Image) -> list[tuple[int, int, int, int]]:
    rows = max(BAND_PIXELS // max(image.width, 1), 1)
    return [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _span(image: Image.Image) -> tuple[float, float]:
    """Return the minimum and maximum of ``image``; NaN and infinity count as 0."""
    low, high = float("inf"), float("-inf")
    for band in _bands(image):
        values = _finite(np.asarray(image.crop(band)))
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _finite(pixels: np.ndarray) -> np.ndarray:
    return np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _eight_bits(pixels: np.ndarray, mode: str, low: float, high: float) -> np.ndarray:
    values = _finite(pixels)
    ranges = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(mode, (65535.0,))
    for top in ranges:
        if low >= 0 and high <= top:
            return np.round(values * (255.0 / top)).astype(np.uint8)
    return np.round((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
