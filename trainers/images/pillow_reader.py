"""From a photo's bytes to Pillow's image, in bounded memory, with Pillow's warnings silenced.

The memory that decoding will take is estimated from the header and compared with a limit before anything is decoded. Of
an animation only the first frame is decoded. Imports without TensorFlow.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from trainers.files.suffixes import PHOTOS
from trainers.images import heif

FORMATS = tuple(dict.fromkeys(PHOTOS.values()))
"""What Pillow may take a file for, whatever it is called: the formats of ``trainers.files.suffixes.PHOTOS``.

JPEG brings a phone's MPO with it. No other format of Pillow's is tried: some start programs, as EPS does.
"""
DECODING_BYTES = 640 * 10**6
"""Maximum bytes that decoding one photo may take, and all photos that a process decodes at the same time."""
PIXEL_BYTES = {"TIFF": 12, "WEBP": 18, "AVIF": 13, "HEIF": 13, "JPEG2000": 26}
"""Bytes a pixel that Pillow and the format's library take at their peak (measured); OTHER_PIXEL_BYTES for the rest."""
OTHER_PIXEL_BYTES = 8
"""Bytes a pixel: the image as it is stored, and as RGB (or turned), four each."""
COEFFICIENT_BYTES = 2
"""Bytes that libjpeg keeps of each sample of a JPEG in several scans, at whatever scale it is decoded."""
SCALES = (1, 2, 4, 8)
"""A JPEG can be decoded at one over these."""
SHOWING_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND")
"""The chunks of a PNG that decide what a viewer shows."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PILLOW_MODULES = r"PIL\."
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the image upright."""


class TooLarge(Exception):
    """A photo with more pixels than are decoded. Its text is the reason."""


class Room:
    """Holds back threads that together would take more than ``size`` bytes; one alone always gets in."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + amount <= self._size)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()


_DECODING = Room(DECODING_BYTES)


@contextlib.contextmanager
def open_photo(data: bytes, at_least: int | None) -> Iterator[tuple[ImageFile.ImageFile, int, int]]:
    """The photo in ``data``, not decoded yet, and its full width and height; room in memory is held while inside.

    ``at_least``: a JPEG may come smaller, with no side below this. A JPEG that is too large at its full size comes as
    large as the limit allows. Raises TooLarge, UnidentifiedImageError, and whatever Pillow raises on a broken header.
    """
    _silence()
    opened = _identify(data)
    width, height = opened.size
    needed = _draft(opened, data, at_least) if opened.format in ("JPEG", "MPO") else _bytes_of(opened)
    with _DECODING.taken(needed):
        yield opened, width, height


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """``image`` the way a viewer shows it, and whether its sides changed places. Broken EXIF counts as none."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # Pillow's parser raises nearly anything on broken EXIF
        orientation = 1
    turn = TURNS.get(orientation)
    return (image, False) if turn is None else (image.transpose(turn), orientation >= 5)


def without_remarks(data: bytes) -> bytes | None:
    """Drop a PNG's chunks that change no pixel but may fail to parse (text, profiles); None if it has none."""
    if not data.startswith(PNG_SIGNATURE):
        return None
    kept, at = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] in SHOWING_CHUNKS:
            kept.append(data[at:end])
        at = end
    bare = b"".join(kept)
    return bare if len(bare) < len(data) else None


def _identify(data: bytes) -> ImageFile.ImageFile:
    """As ``Image.open`` does, which warns of large images and refuses a phone's JPEG of 200 megapixels.

    Raises HeifUnsupported for HEIC without the package that reads it.
    """
    Image.init()
    if heif.is_heic(data) and (why := heif.register()):
        raise heif.HeifUnsupported(why)
    for name in FORMATS:
        if name not in Image.OPEN:  # HEIF is registered at the first such photo
            continue
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(data[:16]) is not True:
            continue
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            return factory(io.BytesIO(data), "")
    raise UnidentifiedImageError("it is not an image of a known format")


def _bytes_of(opened: ImageFile.ImageFile) -> int:
    """Bytes that decoding takes at its peak. Raises TooLarge."""
    each = PIXEL_BYTES.get(opened.format or "", OTHER_PIXEL_BYTES)
    pixels = opened.width * opened.height
    tags = getattr(opened, "tag_v2", {})
    tile = int(tags.get(322, 0)) * int(tags.get(323, 0))  # a TIFF's tiles may be larger than the image
    if each * max(pixels, tile) > DECODING_BYTES:
        raise _too_large(opened, opened.format or "file", DECODING_BYTES / each, tile if tile > pixels else 0)
    return each * max(pixels, tile)


def _draft(opened: ImageFile.ImageFile, data: bytes, at_least: int | None) -> int:
    """Choose the scale at which the JPEG ``opened`` is decoded -> bytes that this takes. Raises TooLarge."""
    width, height = opened.size
    kept = 0 if _has_one_scan(opened, data) else round(COEFFICIENT_BYTES * width * height * _samples_a_pixel(opened))
    scales = [scale for scale in SCALES if kept + _scaled_bytes(width, height, scale) <= DECODING_BYTES]
    if not scales:
        each = kept / (width * height) + OTHER_PIXEL_BYTES / SCALES[-1] ** 2
        raise _too_large(opened, "JPEG in several scans (progressive)" if kept else "JPEG", DECODING_BYTES / each)
    if at_least is not None or scales[0] > 1:
        largest = width // scales[0], height // scales[0]
        opened.draft(None, largest if at_least is None else (min(at_least, largest[0]), min(at_least, largest[1])))
    return kept + OTHER_PIXEL_BYTES * opened.width * opened.height


def _scaled_bytes(width: int, height: int, scale: int) -> int:
    return OTHER_PIXEL_BYTES * -(-width // scale) * -(-height // scale)


def _samples_a_pixel(opened: ImageFile.ImageFile) -> float:
    """3 for full colour, 1.5 where colour has half the resolution both ways."""
    sampling = [across * down for _, across, down, _ in opened.layer]  # type: ignore[attr-defined]
    widest = max(across for _, across, _, _ in opened.layer) * max(down for _, _, down, _ in opened.layer)  # type: ignore[attr-defined]
    return sum(sampling) / max(widest, 1)


def _has_one_scan(opened: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether the first scan holds every component, so that libjpeg decodes line by line."""
    if opened.info.get("progressive"):
        return False
    at = 2
    while at + 4 < len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:
            at += 1
        elif data[at + 1] == 0xDA:
            return data[at + 4] == len(opened.layer)  # type: ignore[attr-defined]
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


def _too_large(opened: ImageFile.ImageFile, kind: str, most: float, tile: int = 0) -> TooLarge:
    other = "" if "JPEG " in kind else ", or as JPEG"
    has = f"tiles of {tile:,}" if tile else f"{opened.width:,} x {opened.height:,}"
    return TooLarge(
        f"it has {has} pixels, and a {kind} may have at most {most / 10**6:,.0f} million; save it smaller{other}"
    )


def _silence() -> None:
    """Keep Pillow's warnings and log from the terminal: they name no file, and what matters becomes a reason.

    Not with ``warnings.catch_warnings``, which is not safe in threads.
    """
    if not any(kept[0] == "ignore" and getattr(kept[3], "pattern", "") == PILLOW_MODULES for kept in warnings.filters):
        warnings.filterwarnings("ignore", module=PILLOW_MODULES)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    _silence_libtiff()


@functools.cache
def _silence_libtiff() -> None:
    """Stop libtiff from writing to file descriptor 2, for which Pillow has no switch. Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        loaded = {
            line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libtiff" in line
        }
        for library in loaded:
            ctypes.CDLL(library).TIFFSetErrorHandler(None)
            ctypes.CDLL(library).TIFFSetWarningHandler(None)
