"""Photos decoded inside a graph: the pixels are those of ``trainers.images.decode``, whatever the photo's form."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from trainers.export.decoding import JPEG, LIMITS, PADDING, PNG, TIFF_SIZES, orientation, resized_square, rgb, turned
from trainers.images.decode import decode, square
from trainers.images.pillow_reader import ORIENTATION, TURNS

ORIENTATIONS = tuple(range(1, 9))
DRAW = np.random.default_rng(0)
NOISE = DRAW.integers(0, 256, (40, 50, 4)).astype(np.uint8)
COLOURS, GREY = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE[..., 0])
SMOOTH = COLOURS.resize((48, 36)).filter(ImageFilter.GaussianBlur(3))
SMOOTH.paste("red", (0, 0, 24, 12))
PALETTE = COLOURS.quantize(30)


@pytest.fixture(scope="module")
def decoded() -> Callable[[bytes], np.ndarray]:
    """The function as a graph, as a SavedModel holds it."""
    graph = tf.function(rgb, input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    return lambda data: graph(tf.constant(data)).numpy()


@pytest.fixture(scope="module")
def found() -> Callable[[bytes], int]:
    signature = [tf.TensorSpec((None,), tf.uint8)]
    graph = tf.function(orientation, input_signature=signature, autograph=False)
    return lambda data: int(graph(np.frombuffer(data + bytes(PADDING), np.uint8)))


def encoded(image: Image.Image, kind: str, **values: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **values)
    return out.getvalue()


def exif(value: int, endian: str) -> bytes:
    tags = Image.Exif()
    tags.endian = endian
    tags[0x010F], tags[ORIENTATION] = "maker", value
    return tags.tobytes()


def sixteen_bits(kind: int, channels: int) -> bytes:
    """A PNG that Pillow does not write. ``kind``: its colour type."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pixels = DRAW.integers(0, 65536, (9, 7, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 7, 9, 16, kind, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def same(decoded: Callable[[bytes], np.ndarray], data: bytes, levels: int = 0) -> bool:
    expected, pixels = np.asarray(decode(data)), decoded(data)
    assert pixels.dtype == np.uint8
    return pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).max() <= levels


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("value", ORIENTATIONS)
def test_exif_orientation_is_applied(decoded: Callable[[bytes], np.ndarray], value: int, endian: str) -> None:
    plain = np.asarray(SMOOTH)
    for kind, more in (("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(SMOOTH, kind, exif=exif(value, endian), **more)
        assert same(decoded, data), kind
        is_turned = plain.shape != decoded(data).shape or np.abs(plain.astype(int) - decoded(data)).mean() > 8
        assert is_turned == (value > 1), kind


@given(sides=st.tuples(st.integers(1, 90), st.integers(1, 90)), size=st.integers(8, 40), squash=st.booleans())
@settings(max_examples=50, deadline=None)
def test_squares_are_those_of_predict(sides: tuple[int, int], size: int, squash: bool) -> None:
    """But for ties: enlarged, reduced, and with a central square that begins at half a pixel."""
    pixels = np.random.default_rng(sides).integers(0, 256, (*sides, 3)).astype(np.uint8)
    expected = square(encoded(Image.fromarray(pixels), "PNG"), size, "squash" if squash else "centre_crop")
    assume(max(sides) < 6 * size)  # larger ones are reduced by whole factors first, see LIMITS
    found = resized_square(tf.constant(pixels), size, squash).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.4


@pytest.mark.parametrize("sides", [(341, 256), (256, 341), (300, 301)])
def test_a_photos_square_differs_by_a_level_in_few_places(sides: tuple[int, int]) -> None:
    photo = COLOURS.resize(sides, Image.Resampling.BICUBIC)
    expected = square(encoded(photo, "PNG"), 96, "centre_crop")
    difference = np.abs(resized_square(tf.constant(np.asarray(photo)), 96, squash=False).numpy().astype(int) - expected)
    assert difference.max() <= 1
    assert difference.mean() < 0.03


TRANSPARENT = {
    "RGBA": encoded(Image.fromarray(NOISE), "PNG"),
    "grey and alpha": encoded(Image.fromarray(NOISE[..., :2], "LA"), "PNG"),
    "palette": encoded(PALETTE, "PNG", transparency=bytes(range(0, 240, 8))),
    "one colour of a palette": encoded(PALETTE, "PNG", transparency=3),
    "one colour": encoded(Image.fromarray(NOISE[..., :3] // 128 * 128), "PNG", transparency=(128, 128, 0)),
    "one grey": encoded(Image.fromarray(NOISE[..., 0] // 64 * 64), "PNG", transparency=64),
    "one of two": encoded(GREY.convert("1"), "PNG", transparency=0),
    "WebP": encoded(Image.fromarray(NOISE), "WEBP", lossless=True, exact=True),
    "16 bits": sixteen_bits(6, 4),
    "16 bits grey": sixteen_bits(4, 2),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_transparency_is_laid_on_white(decoded: Callable[[bytes], np.ndarray], kind: str) -> None:
    assert same(decoded, TRANSPARENT[kind])


def test_every_blend_is_rounded_as_pillow_rounds(decoded: Callable[[bytes], np.ndarray]) -> None:
    level, alpha = np.meshgrid(np.arange(256), np.arange(256))
    data = encoded(Image.fromarray(np.stack([level, level, level, alpha], -1).astype(np.uint8)), "PNG")
    assert same(decoded, data)


OPAQUE = {
    "1 bit": (encoded(GREY.convert("1"), "PNG"), 0),
    "1 bit black": (encoded(Image.new("1", (9, 9)), "PNG"), 0),
    "palette of 3": (encoded(COLOURS.quantize(3), "PNG"), 0),
    "palette": (encoded(PALETTE, "PNG"), 0),
    "grey": (encoded(GREY, "PNG"), 0),
    "16 bits": (sixteen_bits(2, 3), 0),
    "16 bits grey": (sixteen_bits(0, 1), 1),
    "progressive": (encoded(SMOOTH, "JPEG", progressive=True), 0),
    "half colour": (encoded(SMOOTH, "JPEG", subsampling=2, quality=60), 0),
    "CMYK": (encoded(SMOOTH.convert("CMYK"), "JPEG"), 0),
    "grey JPEG": (encoded(GREY, "JPEG"), 0),
    "GIF": (encoded(PALETTE, "GIF"), 0),
    "BMP": (encoded(SMOOTH, "BMP"), 0),
    "BMP palette": (encoded(PALETTE, "BMP"), 0),
    "BMP grey": (encoded(GREY, "BMP"), 0),
    "BMP alpha": (encoded(Image.fromarray(NOISE), "BMP"), 0),
}
"""Photo, and the levels of 255 by which it may differ."""


@pytest.mark.parametrize("kind", OPAQUE)
def test_other_photos_have_pillows_pixels(decoded: Callable[[bytes], np.ndarray], kind: str) -> None:
    assert same(decoded, *OPAQUE[kind])


@pytest.mark.parametrize(
    "data",
    [b"", b"B", JPEG, PNG, PNG + bytes(40), b"RIFF", encoded(SMOOTH, "JPEG")[:400], encoded(SMOOTH, "TIFF"), b"x" * 99],
    ids=["empty", "B", "JPEG", "PNG", "zeros", "RIFF", "truncated", "TIFF", "text"],
)
def test_what_is_no_photo_is_an_error_of_its_own(decoded: Callable[[bytes], np.ndarray], data: bytes) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(data)


def test_the_limits_are_as_said(decoded: Callable[[bytes], np.ndarray]) -> None:
    assert "the transparency of a GIF" in LIMITS
    assert not same(decoded, encoded(PALETTE, "GIF", transparency=3))


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(value: int) -> None:
    image = tf.constant(NOISE)
    np.testing.assert_array_equal(turned(image, tf.constant(1, tf.int64)), NOISE)
    upright = turned(image, tf.constant(value if value < 1 else 1, tf.int64))
    np.testing.assert_array_equal(upright, NOISE)
    assert set(TURNS) | {1} == set(ORIENTATIONS)


# --- EXIF that is odd or broken -----------------------------------------------------------------------------------


def with_exif(tiff: bytes, before: bytes = b"") -> bytes:
    """The start of a JPEG, ``before`` its EXIF."""
    body = b"Exif\0\0" + tiff
    return b"\xff\xd8" + before + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + b"\xff\xda\0\2"


@given(
    little=st.booleans(),
    gap=st.integers(0, 20),
    tags=st.lists(st.integers(0, 0x0111), max_size=12),
    at=st.integers(0, 12),
    kind=st.sampled_from(list(TIFF_SIZES)),
    value=st.integers(0, 255),
)
@settings(max_examples=60, deadline=None)
def test_the_tag_is_found_wherever_it_stands(
    found: Callable[[bytes], int], little: bool, gap: int, tags: list[int], at: int, kind: int, value: int
) -> None:
    order = "<" if little else ">"
    number = {1: "B", 3: "H", 4: "I"}[kind]
    rows = [struct.pack(f"{order}HHI4s", tag, 7, 4, b"abcd") for tag in tags]
    field = struct.pack(f"{order}{number}", value).ljust(4, b"\0")
    rows.insert(at, struct.pack(f"{order}HHI4s", ORIENTATION, kind, 1, field))
    head = (b"II*\0" if little else b"MM\0*") + struct.pack(f"{order}I", 8 + gap)
    tiff = head + bytes(gap) + struct.pack(f"{order}H", len(rows)) + b"".join(rows)
    before = b"\xff\xe0\0\x06JFIF\xff\xff\xff\xe1\0\x0ahttp://n"
    assert found(with_exif(tiff, before)) == (value if 1 <= value <= 8 else 1)


@given(st.binary(max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_bytes_have_some_orientation(found: Callable[[bytes], int], data: bytes) -> None:
    for whole in (data, JPEG + data, PNG + data, b"RIFF0000" + data, with_exif(data), with_exif(b"II*\0" + data)):
        assert found(whole) in ORIENTATIONS


def test_a_file_of_empty_chunks_ends(found: Callable[[bytes], int]) -> None:
    chunk = struct.pack(">I", 0) + b"none" + bytes(4)
    late = struct.pack(">I", 0) + b"eXIf" + bytes(4)
    assert found(PNG + chunk * 20_000 + late) == 1
