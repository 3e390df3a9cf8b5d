"""From a file to pixels: decode what Pillow reads of the usual formats into RGB, and make it square.

Imports without TensorFlow. Every failure names the file and the reason.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from trainers.contract import VIEWS, TrainerError

SMALLEST_CROP = 0.7
"""A random crop's side over the image's shorter side lies between this and 1."""
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF", "JPEG2000", "TGA")
"""What Pillow may take a file for, whatever it is called: the formats of ``trainers.listing.SUFFIXES``.

JPEG brings a phone's MPO with it. No other format of Pillow's is tried: some start programs, as EPS does.
"""


class Unreadable(TrainerError):
    """A picture that cannot be decoded. ``reason`` says why, without the file's name and the full stop."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read: {reason}.")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.name, self.reason)


def decode(source: Path | str | bytes) -> Image.Image:
    """The picture in ``source`` (a path, or a file's bytes) as 8-bit RGB, the way a viewer shows it.

    EXIF orientation is applied, transparency lies on white, an animation gives its first frame. 16-bit greyscale is
    scaled by 255 / 65535; 32-bit integers and floats by the smallest of their usual ranges (1 for floats, 255, 65535)
    that holds them, and stretched from minimum to maximum where none does.
    Raises Unreadable, a TrainerError, with the file and the reason: missing, truncated, no image, a decompression bomb.
    """
    return _load(source, None)


def square(source: Path | str | bytes, size: int, view: str, crop_seed: int | None = None) -> np.ndarray:
    """The picture as uint8 (size, size, 3), resized bilinearly with antialiasing.

    ``view``: "squash" ignores the aspect ratio; "centre_crop" takes the central square; "random_crop" takes the
    square that ``crop_seed`` names, of side 0.7 to 1 times the shorter side, placed uniformly (without a seed: the
    central square). Raises Unreadable as ``decode`` does, and TrainerError for an unknown view.
    """
    return Photo(source).square(size, view, crop_seed)


class Photo:
    """One picture that is made square more than once: decoded once for all sizes that take the same pixels.

    A large JPEG is decoded at a half, quarter or eighth where that still leaves twice the pixels that a size needs.
    """

    def __init__(self, source: Path | str | bytes) -> None:
        self._source = source
        self._decoded: dict[tuple[int, int], Image.Image] = {}

    def decode(self, size: int) -> Image.Image:
        """RGB with the pixels that a square of ``size`` needs. Raises Unreadable."""
        return _load_measured(self._source, int(2 * size / SMALLEST_CROP), self._decoded)[0]

    def square(self, size: int, view: str, crop_seed: int | None = None) -> np.ndarray:
        """See ``trainers.images.square``."""
        if view not in VIEWS:
            raise TrainerError(f"there is no view {view!r}; known are {', '.join(VIEWS)}.")
        image = self.decode(size)
        box = None if view == "squash" else _square_box(image.size, crop_seed if view == "random_crop" else None)
        small = image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
        return np.array(small, np.uint8)


def batch(paths: Sequence[Path], size: int, view: str, crop_seeds: Sequence[int] | None = None) -> np.ndarray:
    """``square`` of each path, uint8 (len(paths), size, size, 3)."""
    out = np.empty((len(paths), size, size, 3), np.uint8)
    for i, path in enumerate(paths):
        out[i] = square(path, size, view, None if crop_seeds is None else int(crop_seeds[i]))
    return out


def thumbnail(source: Path | str | bytes, side: int) -> tuple[int, int, np.ndarray]:
    """(width, height, greyscale uint8 (side, side)); sizes are after EXIF orientation, the aspect ratio is ignored.

    Reads all of the file, so it fails wherever ``decode`` does, with the same Unreadable.
    """
    image, width, height = _load_measured(source, 4 * side)
    grey = image.convert("L").resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return width, height, np.array(grey, np.uint8)


def _square_box(size: tuple[int, int], crop_seed: int | None) -> tuple[float, float, float, float]:
    shorter = min(size)
    side, across, down = float(shorter), 0.5, 0.5
    if crop_seed is not None:
        random = np.random.default_rng(crop_seed)
        side = shorter * random.uniform(SMALLEST_CROP, 1.0)
        across, down = random.uniform(size=2)
    left, top = (size[0] - side) * across, (size[1] - side) * down
    return left, top, min(left + side, size[0]), min(top + side, size[1])


def _load(source: Path | str | bytes, at_least: int | None) -> Image.Image:
    return _load_measured(source, at_least)[0]


def _load_measured(
    source: Path | str | bytes, at_least: int | None, decoded: dict[tuple[int, int], Image.Image] | None = None
) -> tuple[Image.Image, int, int]:
    """RGB image, and the full width and height. ``at_least``: a JPEG may come smaller, with no side below this.

    ``decoded`` keeps the images of one source by the size at which its decoder gave them, and answers from there.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    if isinstance(source, bytes) and not source:
        raise Unreadable(name, "the file is empty")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=_formats()) as opened:
            width, height = opened.size
            if at_least is not None:
                opened.draft(None, (at_least, at_least))
            key = opened.size
            if decoded and key in decoded:
                return decoded[key], width, height
            opened.load()
            if opened.getexif().get(0x0112, 1) in (5, 6, 7, 8):
                width, height = height, width
            image = _rgb(ImageOps.exif_transpose(opened))
            if decoded is not None:
                decoded[key] = image
            return image, width, height
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file
        raise Unreadable(name, _reason(error, source)) from error


def _formats() -> list[str]:
    """Those of FORMATS that are there; HEIF is where somebody registered it with Pillow."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _reason(error: Exception, source: Path | str | bytes) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, UnidentifiedImageError):
        if not isinstance(source, bytes) and Path(source).stat().st_size == 0:
            return "the file is empty"
        return "it is not an image of a known format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it is too large, perhaps a decompression bomb ({error})".replace(".)", ")")
    return (str(error) or type(error).__name__).rstrip(".")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(pixels: np.ndarray, mode: str) -> np.ndarray:
    values = np.nan_to_num(pixels.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    ranges = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(mode, (65535.0,))
    for top in ranges:
        if low >= 0 and high <= top:
            return np.round(values * (255.0 / top)).astype(np.uint8)
    return np.round((values - low) * (255.0 / max(high - low, 1e-12))).astype(np.uint8)
