"""Any picture Pillow reads comes out as the RGB that a viewer shows; anything else is a sentence."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from trainers.config import VIEWS
from trainers.errors import TrainerError
from trainers.files.plain import Unreadable
from trainers.files.suffixes import PHOTOS
from trainers.images.decode import DecodedPhoto, batch, decode, least_side, reduced, square
from trainers.images.pillow_reader import FORMATS


def photo(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth random colours, as JPEG likes them."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def corner(image: Image.Image) -> tuple[int, ...]:
    """The mean colour of the top left 4 x 4 pixels."""
    return tuple(np.asarray(image)[:4, :4].reshape(-1, 3).mean(axis=0).round().astype(int).tolist())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that undo each orientation
    upright = photo()
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, "PNG", exif=exif)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(upright))
    assert reduced(data, 32)[:2] == (60, 40)


def test_greyscale_and_one_bit_become_grey() -> None:
    assert corner(decode(encoded(Image.new("L", (8, 8), 77), "PNG"))) == (77, 77, 77)
    assert corner(decode(encoded(Image.new("1", (8, 8), 1), "PNG"))) == (255, 255, 255)


def test_palette_with_transparency_lies_on_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert corner(decode(encoded(image, "PNG"))) == (0, 0, 255)
    assert corner(decode(encoded(image, "PNG", transparency=1))) == (255, 255, 255)
    assert corner(decode(encoded(image, "GIF", transparency=1))) == (255, 255, 255)


def test_alpha_is_composited_on_white() -> None:
    assert corner(decode(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), "PNG"))) == (255, 255, 255)
    assert corner(decode(encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 51)), "PNG"))) == (255, 204, 204)
    assert corner(decode(encoded(Image.new("LA", (8, 8), (0, 128)), "PNG"))) == (127, 127, 127)
    assert corner(decode(encoded(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))) == (
        255,
        255,
        255,
    )


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colour(kind: str) -> None:
    red, green, blue = corner(decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind)))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    grey = np.asarray(decode(encoded(Image.fromarray(ramp), kind)))[..., 0]
    assert np.abs(grey.astype(int) - (ramp / 257).round().astype(int)).max() == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-100, 0, 155]], np.int32), [0, 100, 255]),
        (np.array([[0.0, 0.2, 1.0]], np.float32), [0, 51, 255]),
        (np.array([[0.0, 51.0, 255.0]], np.float32), [0, 51, 255]),
        (np.array([[0.0, np.nan, 1e6]], np.float32), [0, 0, 255]),
        (np.array([[5e6, 5e6, 5e6]], np.float32), [0, 0, 0]),
    ],
)
def test_integers_and_floats_are_scaled_by_the_range_that_holds_them(values: np.ndarray, expected: list[int]) -> None:
    assert np.asarray(decode(encoded(Image.fromarray(values), "TIFF")))[0, :, 0].tolist() == expected


def test_animation_gives_its_first_frame() -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(first, "GIF", save_all=True, append_images=[second])
    assert corner(decode(data)) == (255, 0, 0)


def test_truncated_file_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    path.write_bytes(encoded(photo(), "JPEG")[:700])
    for function in (decode, lambda p: square(p, 8, "squash"), lambda p: reduced(p, 32)):
        with pytest.raises(Unreadable, match=r"half\.jpg cannot be read: .*truncated"):
            function(path)


def test_other_unreadable_files_say_why(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.png", tmp_path / "empty.png"
    text.write_text("hello")
    empty.write_bytes(b"")
    with pytest.raises(TrainerError, match=r"text\.png cannot be read: it is not an image of a known format\."):
        decode(text)
    with pytest.raises(TrainerError, match=r"empty\.png cannot be read: the file is empty\."):
        decode(empty)
    with pytest.raises(TrainerError, match=r"none\.png cannot be read: there is no such file\."):
        decode(tmp_path / "none.png")
    with pytest.raises(TrainerError, match=r"the image cannot be read: the file is empty\."):
        decode(b"")


def test_every_ending_of_an_image_has_its_format_and_no_other_is_tried() -> None:
    Image.init()
    known = {Image.EXTENSION[suffix] for suffix in PHOTOS if suffix in Image.EXTENSION}
    assert len(known) >= 8
    assert known <= set(FORMATS)
    seen = 0
    for kind in sorted(known & set(Image.SAVE)):
        assert decode(encoded(photo(), kind)).size == (60, 40)
        seen += 1
    assert seen >= 8
    for kind in ("EPS", "ICO", "PCX"):
        with pytest.raises(Unreadable, match="it is not an image of a known format"):
            decode(encoded(photo(), kind))


def test_several_pictures_of_a_phone_in_one_file_give_the_first() -> None:
    data = encoded(photo(), "MPO", save_all=True, append_images=[photo(seed=1)], quality=95)
    assert b"MPF" in data
    assert corner(decode(data)) == pytest.approx(corner(decode(encoded(photo(), "JPEG", quality=95))), abs=1)


def test_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(
        TrainerError,
        match=r"bomb\.png cannot be read: it has 60,000 x 60,000 pixels, and a PNG may have at most 80 million",
    ):
        decode(path)


def test_unreadable_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Unreadable("a.jpg", "it is torn")))
    assert (str(error), error.reason) == ("a.jpg cannot be read: it is torn.", "it is torn")


@given(cut=st.integers(0, 900), noise=st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_broken_bytes_are_an_image_or_a_sentence(cut: int, noise: bytes) -> None:
    data = encoded(photo(), "JPEG")
    broken = data[:cut] + noise + data[cut + len(noise) :]
    try:
        outcome = decode(broken).mode
    except Unreadable as error:
        outcome = str(error)
    assert outcome == "RGB" or outcome.startswith("the image cannot be read: ")


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(60, 40), (40, 60), (8, 8), (1, 300)])
def test_square_has_the_size_whatever_the_shape(view: str, size: tuple[int, int]) -> None:
    out = square(encoded(photo(*size), "PNG"), 24, view, crop_seed=5)
    assert (out.shape, out.dtype) == ((24, 24, 3), np.uint8)
    assert out.flags.writeable


def test_views_show_what_they_say() -> None:
    stripes = np.zeros((30, 90, 3), np.uint8)
    stripes[:, :30, 0], stripes[:, 30:60, 1], stripes[:, 60:, 2] = 255, 255, 255
    data = encoded(Image.fromarray(stripes), "PNG")
    squashed = square(data, 30, "squash")
    assert squashed[:, :8, 0].min() == squashed[:, 12:18, 1].min() == squashed[:, 22:, 2].min() == 255
    assert np.array_equal(square(data, 30, "centre_crop"), stripes[:, 30:60])
    assert np.array_equal(square(data, 30, "random_crop"), stripes[:, 30:60])


def test_random_crops_are_named_by_their_seed_and_wander() -> None:
    data = encoded(photo(90, 60), "PNG")
    crops = [square(data, 16, "random_crop", seed) for seed in range(20)]
    assert len({crop.tobytes() for crop in crops}) == 20
    assert np.array_equal(crops[3], square(data, 16, "random_crop", 3))


def test_random_crop_side_is_seven_tenths_to_all_of_the_shorter_side() -> None:
    ramp = np.tile(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (100, 1, 3))
    data = encoded(Image.fromarray(ramp), "PNG")
    spans, centres = [], []
    for seed in range(60):
        row = square(data, 50, "random_crop", seed)[25, :, 0].astype(float)
        spans.append((row[-1] - row[0]) * (50 / 49) / 255 * 2)  # in shorter sides
        centres.append(row.mean() / 255)
    assert 0.68 < min(spans) < 0.75
    assert 0.95 < max(spans) < 1.02
    assert min(centres) < 0.3
    assert max(centres) > 0.7


def test_unknown_view_names_the_known_ones() -> None:
    with pytest.raises(TrainerError, match="no view 'crop'; known are squash, centre_crop, random_crop"):
        square(encoded(photo(), "PNG"), 8, "crop")


def test_shrinking_is_antialiased_and_a_large_jpeg_looks_the_same_as_decoded_whole() -> None:
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    grey = square(encoded(Image.fromarray(board.astype(np.uint8)), "PNG"), 16, "squash")
    assert np.abs(grey.astype(int) - 127).max() <= 2
    large = photo(1200, 900)
    quick = square(encoded(large, "JPEG", quality=95), 32, "centre_crop").astype(int)
    whole = square(encoded(large, "PNG"), 32, "centre_crop").astype(int)
    assert np.abs(quick - whole).mean() < 1.5


def test_batch_is_square_of_each(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        photo(seed=i).save(path)
    out = batch(paths, 12, "random_crop", crop_seeds=[7, 8, 9])
    assert out.shape == (3, 12, 12, 3)
    assert np.array_equal(out[1], square(paths[1], 12, "random_crop", 8))
    assert np.array_equal(batch(paths, 12, "squash")[2], square(paths[2], 12, "squash"))


def test_reduced_jpeg_is_close_to_the_whole_picture_reduced() -> None:
    image = photo(1000, 750)
    width, height, small = reduced(encoded(image, "JPEG", quality=95), 32)
    assert (width, height) == (1000, 750)
    assert np.abs(small.astype(int) - reduced(encoded(image, "PNG"), 32)[2].astype(int)).mean() < 1.5


@pytest.mark.parametrize(
    ("framing", "least"),
    [
        ("squash", 640),
        ("centre_crop", 640),
        ("random_crop", 640),
        ("squash+needed", 280),
        ("centre_crop+needed", 280),
        ("random_crop+needed", 400),
    ],
)
def test_a_jpeg_is_asked_only_for_the_pixels_that_its_framing_needs(framing: str, least: int) -> None:
    assert least_side(224, framing) == least
    scales = [scale for scale in (1, 2, 4, 8) if 1500 // scale >= least]
    taken = DecodedPhoto(encoded(photo(2000, 1500), "JPEG", quality=90))
    assert taken.decode(224, framing).size == (-(-2000 // scales[-1]), -(-1500 // scales[-1]))


def test_needed_pixels_change_a_photo_little_and_no_photo_below_twice_the_size() -> None:
    noise = np.random.default_rng(0).normal(0, 8, (768, 1024, 3))
    sharp = np.asarray(photo(1024, 768)) + noise
    data = encoded(Image.fromarray(np.clip(sharp, 0, 255).astype(np.uint8)), "JPEG", quality=90)
    full, needed = (square(data, 300, view).astype(int) for view in ("squash", "squash+needed"))
    difference = np.abs(full - needed)
    assert 0 < difference.mean() < 1.5
    assert difference.max() < 24
    np.testing.assert_array_equal(square(data, 308, "squash+needed"), square(data, 308, "squash"))
    with pytest.raises(TrainerError, match="there is no view 'squash\\+fast'"):
        square(data, 8, "squash+fast")


def test_several_crops_come_from_one_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(600, 400), "JPEG")
    alone = [square(data, 32, "random_crop", seed) for seed in (1, 2, 3)]
    opened = []
    monkeypatch.setattr(
        "PIL.JpegImagePlugin.JpegImageFile.load_prepare", lambda self, own=_prepare: opened.append(1) or own(self)
    )
    together = DecodedPhoto(data).squares(32, "random_crop", [1, 2, 3])
    np.testing.assert_array_equal(together, alone)
    assert len(opened) == 1


_prepare = JpegImageFile.load_prepare
