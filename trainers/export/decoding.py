"""Decode an encoded photo inside a TensorFlow graph, and make it square, as ``trainers.images.decode`` does.

JPEG (CMYK too) and PNG become the same pixels as by Pillow, apart from 16-bit PNG (at most one level of 255) and from
JPEG that Pillow decodes at a reduced scale. What else differs from Pillow stands in LIMITS.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

LIMITS = (
    "It ignores orientation that is stored as XMP or text alone and the transparency of a GIF, does not reduce a large "
    "photo before it resizes it, and decodes no TIFF, HEIC, AVIF or JPEG 2000"
)
"""Where ``serve_bytes`` differs from ``predict``, apart from the crop policy and from rounding when it resizes."""
JPEG, PNG, BMP, EXIF = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"Exif\x00\x00"
START_OF_SCAN = 0xFFDA
"""A JPEG's marker before the compressed pixels; metadata ends there."""
ORIENTATION = 0x0112
FIELD_BYTES = 12
"""Bytes of an entry of a TIFF directory: tag 2, type 2, count 4, value 4."""
TIFF_SIZES = {1: 1, 3: 2, 4: 4}
"""Type of an integer in a TIFF directory (byte, short, long) -> its bytes."""
CHUNKS = 10_000
"""Maximum chunks of a file that are searched, so that a file of empty chunks cannot hold up a server."""
PADDING = 16
"""Zero bytes after a file, so that a number can be read at its end."""

Look = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(bytes, position of a chunk) -> (position of the content, if it is the one wanted, else 0; of the next chunk)."""


def rgb(photo: tf.Tensor) -> tf.Tensor:
    """Decode one photo, a scalar string, to upright RGB, uint8 (height, width, 3). Transparency is laid on white.

    Running the graph raises InvalidArgumentError for a file that TensorFlow does not decode.
    """
    raw = tf.concat([tf.io.decode_raw(photo, tf.uint8), tf.zeros(PADDING, tf.uint8)], 0)
    image = tf.case(
        [
            (_starts(raw, JPEG), lambda: _decode_jpeg(photo)),
            (_starts(raw, PNG), lambda: _decode_png(photo, raw)),
            (_starts(raw, BMP), lambda: _decode_bmp(photo, raw)),
        ],
        default=lambda: _decode_other(photo),
    )
    image.set_shape((None, None, 3))
    return turned(image, orientation(raw))


def resized_square(image: tf.Tensor, size: int, squash: bool) -> tf.Tensor:
    """Make uint8 (height, width, 3) a square of ``size``, as ``trainers.images.decode.square`` does without a seed.

    Bilinear with antialiasing, horizontally and then vertically, rounded after each as Pillow does. Ties may be rounded
    the other way: one or two values of a photo in a hundred differ by one level, of tiny images more.
    ``squash``: ignore the aspect ratio; else take the central square, which may begin at
    half a pixel.
    """
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    taken = sides if squash else tf.fill((2,), tf.reduce_min(sides))
    scale, start = size / taken, (sides - taken) / 2
    pixels = tf.cast(image, tf.float32)[None]
    for vertical, horizontal in ((0.0, 1.0), (1.0, 0.0)):
        axes = tf.constant([vertical, horizontal])
        pixels = tf.raw_ops.ScaleAndTranslate(
            images=pixels,
            size=tf.where(axes > 0, size, tf.shape(pixels)[1:3]),
            scale=tf.where(axes > 0, scale, 1.0),
            translation=tf.where(axes > 0, -start * scale, 0.0),
            kernel_type="triangle",
            antialias=True,
        )
        pixels = tf.clip_by_value(tf.round(pixels), 0, 255)
    return tf.ensure_shape(tf.cast(pixels[0], tf.uint8), (size, size, 3))


def turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn ``image`` (height, width, channels) upright; ``orientation``: EXIF, 1 to 8, others count as 1."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(_among(orientation, 2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(_among(orientation, 3, 4, 7, 8), lambda: image[::-1], lambda: image)


def orientation(raw: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation, 1 to 8, of a JPEG, PNG or WebP; 1 without one. ``raw``: uint8, padded at its end."""
    size = tf.size(raw, tf.int64)
    tiff = tf.case(
        [
            (_starts(raw, JPEG), lambda: _search(raw, 2, _segment)),
            (_starts(raw, PNG), lambda: _search(raw, len(PNG), _png_chunk(b"eXIf"))),
            (_starts(raw, b"RIFF"), lambda: _search(raw, 12, _riff_chunk)),
        ],
        default=lambda: size,
    )
    return tf.cond(tiff < size, lambda: _read_orientation(raw[tiff:]), lambda: tf.constant(1, tf.int64))


def _decode_jpeg(photo: tf.Tensor) -> tf.Tensor:
    # libjpeg's accurate transform is Pillow's; TensorFlow's default differs by up to 7 levels of 255.
    return tf.io.decode_jpeg(photo, channels=3, dct_method="INTEGER_ACCURATE")


def _decode_png(photo: tf.Tensor, raw: tf.Tensor) -> tf.Tensor:
    # Not always with four channels: of fewer than 8 bits, TensorFlow makes opaque pixels nearly transparent.
    transparent = (raw[25] & 4 > 0) | (_search(raw, len(PNG), _png_chunk(b"tRNS")) < tf.size(raw, tf.int64))
    return tf.cond(
        transparent,
        lambda: _on_white(tf.io.decode_png(photo, channels=4)),
        lambda: tf.io.decode_png(photo, channels=3),
    )


def _on_white(pixels: tf.Tensor) -> tf.Tensor:
    """Composite uint8 (height, width, 4) on white -> uint8 (height, width, 3), rounded as Pillow rounds."""
    codes = tf.cast(pixels, tf.int32)
    alpha = codes[..., 3:]
    return tf.cast((codes[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)


def _decode_bmp(photo: tf.Tensor, raw: tf.Tensor) -> tf.Tensor:
    """TensorFlow returns the codes of a palette as grey; the palette follows the header: blue, green, red, 0 each."""
    pixels = tf.io.decode_bmp(photo)

    def looked_up() -> tf.Tensor:
        start = 14 + _number(raw, 14, 4, little=True)
        palette = tf.reshape(tf.concat([raw[start : start + 1024], tf.zeros(1024, tf.uint8)], 0)[:1024], (256, 4))
        return tf.gather(palette[:, 2::-1], tf.cast(pixels[..., 0], tf.int32))

    return tf.cond(tf.shape(pixels)[-1] == 1, looked_up, lambda: pixels[..., :3])


def _decode_other(photo: tf.Tensor) -> tf.Tensor:
    pixels = tf.io.decode_image(photo, expand_animations=False)
    return tf.cond(tf.shape(pixels)[-1] == 4, lambda: _on_white(pixels), lambda: pixels[..., :3])


def _search(raw: tf.Tensor, start: int, look: Look) -> tf.Tensor:
    """Return the position of what ``look`` finds, behind a prefix "Exif", in a file's chunks; the size without it."""
    size = tf.size(raw, tf.int64)

    def step(at: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        here, following = look(raw, at)
        return following, here

    first = tf.constant(start, tf.int64), tf.zeros((), tf.int64)
    _, found = tf.while_loop(
        lambda at, found: (found == 0) & (at < size - PADDING), step, first, maximum_iterations=CHUNKS
    )
    found = tf.where(_starts(raw[found:], EXIF), found + len(EXIF), found)
    return tf.where(found == 0, size, found)


def _segment(raw: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    marker, length = _number(raw, at, 2), _number(raw, at + 2, 2)
    exif = (marker == 0xFFE1) & _starts(raw[at + 4 :], EXIF)
    ends = (marker < 0xFF00) | (marker == START_OF_SCAN)
    following = tf.where(marker == 0xFFFF, at + 1, at + 2 + length)  # FF may be repeated before a marker
    return tf.where(exif, at + 4, 0), tf.where(ends, tf.size(raw, tf.int64), following)


def _png_chunk(kind: bytes) -> Look:
    def look(raw: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.where(_starts(raw[at + 4 :], kind), at + 8, 0), at + 12 + _number(raw, at, 4)

    return look


def _riff_chunk(raw: tf.Tensor, at: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    length = _number(raw, at + 4, 4, little=True)
    return tf.where(_starts(raw[at:], b"EXIF"), at + 8, 0), at + 8 + length + length % 2


def _read_orientation(tiff: tf.Tensor) -> tf.Tensor:
    """Read tag 0x0112 of the first directory (TIFF 6.0, section 2). ``tiff``: bytes from the byte order on."""
    little = _starts(tiff, b"II")
    start = _number(tiff, 4, 4, little=little)
    fields = _number(tiff, start, 2, little=little)
    table = tiff[start + 2 : start + 2 + fields * FIELD_BYTES]
    rows = tf.reshape(table[: tf.size(table) // FIELD_BYTES * FIELD_BYTES], (-1, FIELD_BYTES))
    tags, types = _column(rows[:, :2], little), _column(rows[:, 2:4], little)
    found = tf.zeros(tf.shape(tags), tf.int64)
    for kind, size in TIFF_SIZES.items():
        found = tf.where((tags == ORIENTATION) & (types == kind), _column(rows[:, 8 : 8 + size], little), found)
    value = tf.reduce_max(tf.concat([found, [0]], 0))
    known = (_starts(tiff, b"II") | _starts(tiff, b"MM")) & (value >= 1) & (value <= 8)
    return tf.where(known, value, 1)


def _number(raw: tf.Tensor, at: tf.Tensor | int, count: int, little: tf.Tensor | bool = False) -> tf.Tensor:
    """Read an unsigned integer of ``count`` bytes as int64; bytes beyond the end are 0."""
    part = tf.ensure_shape(tf.concat([raw[at : at + count], tf.zeros(count, tf.uint8)], 0)[:count], (count,))
    return _column(part[None], little)[0]


def _column(rows: tf.Tensor, little: tf.Tensor | bool) -> tf.Tensor:
    """Read each row of bytes as one unsigned integer, int64 (rows,)."""
    ordered = tf.where(little, rows[:, ::-1], rows)
    weights = tf.constant([256**place for place in reversed(range(rows.shape[1]))], tf.int64)
    return tf.reduce_sum(tf.cast(ordered, tf.int64) * weights, 1)


def _starts(raw: tf.Tensor, prefix: bytes) -> tf.Tensor:
    head = tf.concat([raw[: len(prefix)], tf.zeros(len(prefix), tf.uint8)], 0)[: len(prefix)]
    return tf.reduce_all(head == tf.constant(list(prefix), tf.uint8))


def _among(value: tf.Tensor, *choices: int) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(choices, tf.int64))
