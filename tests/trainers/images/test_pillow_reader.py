"""Memory is bounded whatever the photo, and Pillow's warnings stay off the terminal."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.places import ROOT
from trainers.files.plain import Unreadable
from trainers.images import pillow_reader
from trainers.images.decode import DecodedPhoto, decode, reduced, square
from trainers.images.pillow_reader import Room, open_photo

BROKEN_EXIF = b"Exif\0\0II*\0\x08\0\0\0\xff\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0"
PEAK = """
import pathlib, sys
from trainers.images.decode import reduced
for name in sys.argv[1:]:
    try:
        reduced(pathlib.Path(name), 32)
    except Exception as error:
        print(error)
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")))
"""
"""Prints MB, the peak so far, after each file."""


def run(program: str, *arguments: str) -> list[str]:
    """The lines that ``program`` prints; nothing comes on stderr."""
    command = [sys.executable, "-W", "default", "-c", program, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.splitlines()


def photo(width: int = 60, height: int = 40) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def black_png(width: int, height: int) -> bytes:
    """A grey PNG, made row by row."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(1)
    body = b"".join([packer.compress(bytes(width + 1)) for _ in range(height)] + [packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return pillow_reader.PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """``jpeg`` with another size in its header: decoding breaks off, looking at the header does not."""
    at = next(at for at in range(len(jpeg)) if jpeg[at : at + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


@pytest.mark.timeout(60)
def test_a_png_of_thirteen_thousand_squared_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(black_png(13_000, 13_000))
    reason, peak_mb = run(PEAK, str(tmp_path / "x.png"))
    assert "13,000 x 13,000 pixels, and a PNG may have at most 80 million" in reason
    assert int(peak_mb) < 200


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_a_deep_animation_one_frame_is_decoded(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (500, 500), (shade, 0, 0)) for shade in range(0, 250, 5)]
    fast = {"AVIF": {"speed": 10}, "TIFF": {"compression": "tiff_deflate"}}.get(kind, {})
    (tmp_path / "flat").write_bytes(encoded(frames[0], kind, **fast))
    (tmp_path / "deep").write_bytes(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **fast))
    flat_mb, deep_mb = map(int, run(PEAK, str(tmp_path / "flat"), str(tmp_path / "deep")))
    assert deep_mb - flat_mb < 15  # all frames would take 50


@pytest.mark.parametrize(
    ("kind", "options", "million"),
    [("PNG", {}, 80), ("TIFF", {}, 53), ("WEBP", {}, 36), ("AVIF", {}, 49), ("JPEG2000", {}, 25)],
)
def test_the_limit_follows_the_format(
    kind: str, options: dict[str, object], million: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(photo(100, 100), kind, **options)
    decode(data)
    monkeypatch.setattr(
        pillow_reader, "DECODING_BYTES", pillow_reader.DECODING_BYTES * 10_000 // (million * 10**6 + 10**6)
    )
    with pytest.raises(Unreadable, match=f"100 x 100 pixels, and a {kind} may have at most"):
        decode(data)
    monkeypatch.undo()
    monkeypatch.setattr(
        pillow_reader, "DECODING_BYTES", pillow_reader.DECODING_BYTES * 10_000 // (million * 10**6 - 10**6)
    )
    decode(data)


def test_a_jpeg_of_two_hundred_megapixels_is_taken_at_the_scale_that_fits() -> None:
    data = resized(encoded(photo(), "JPEG"), 16_320, 12_240)
    with open_photo(data, None) as (opened, width, height):
        assert (width, height, opened.size) == (16_320, 12_240, (8160, 6120))
    with open_photo(data, 640) as (opened, width, height):
        assert (width, height, opened.size) == (16_320, 12_240, (2040, 1530))
    with open_photo(resized(data, 60_000, 60_000), 30_000) as (opened, width, height):
        assert opened.size == (7500, 7500)
    with open_photo(encoded(photo(), "JPEG"), None) as (opened, _, _):
        assert opened.size == (60, 40)


def test_a_progressive_jpeg_is_kept_whole_while_it_is_decoded_and_counts_so() -> None:
    coarse = encoded(photo(), "JPEG", progressive=True)
    fine = encoded(photo(), "JPEG", progressive=True, subsampling=0)
    with open_photo(resized(coarse, 16_320, 12_240), 128) as (opened, _, _):
        assert opened.size == (2040, 1530)
    with pytest.raises(Unreadable, match=r"16,320 x 12,240 pixels, and a JPEG in several scans \(progressive\) may"):
        reduced(resized(fine, 16_320, 12_240), 32)


def test_a_jpeg_too_large_at_its_full_size_is_read_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo(1200, 900), "JPEG", quality=95)
    whole = square(data, 900, "centre_crop")
    monkeypatch.setattr(pillow_reader, "DECODING_BYTES", 1200 * 900 * 8 // 3)
    assert decode(data).size == (600, 450)
    assert reduced(data, 32)[:2] == (1200, 900)
    assert np.abs(square(data, 900, "centre_crop").astype(int) - whole).mean() < 2


def test_the_same_pixels_come_of_bands_as_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainers.images import decode as images

    random = np.random.default_rng(1)
    layers = Image.fromarray(random.integers(0, 256, (40, 60, 4), np.uint8))
    floats = Image.fromarray(random.normal(0, 100, (40, 60)).astype(np.float32))
    palette = photo().convert("P")
    given = [
        encoded(layers, "PNG"),
        encoded(layers.convert("LA"), "PNG"),
        encoded(palette, "PNG", transparency=3),
        encoded(floats, "TIFF"),
        encoded(Image.fromarray(random.integers(0, 65536, (40, 60), np.uint16)), "PNG"),
        encoded(photo().convert("CMYK"), "TIFF"),
    ]
    whole = [np.asarray(decode(data)) for data in given]
    monkeypatch.setattr(images, "BAND_PIXELS", 60 * 7)
    for data, expected in zip(given, whole, strict=True):
        assert np.array_equal(np.asarray(decode(data)), expected)


def test_too_little_memory_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(Unreadable, match="not enough memory"):
        decode(encoded(photo(), "PNG"))


def test_broken_exif_counts_as_none() -> None:
    for kind in ("JPEG", "PNG", "WEBP"):
        data = encoded(photo(), kind, exif=BROKEN_EXIF)
        assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(encoded(photo(), kind))))
    exif = b"Exif\0\0MM\0*" + b"\xff" * 30
    assert decode(encoded(photo(), "JPEG", exif=exif)).size == (60, 40)


def test_a_png_with_a_large_text_or_a_broken_remark_is_read() -> None:
    text = PngInfo()
    text.add_text("comment", "x" * 3_000_000, zip=True)
    plain = encoded(photo(), "PNG")
    profile = plain[:33] + struct.pack(">I", 4) + b"iCCP" + b"\0\xff\0\0" + b"wrong sum"[:4] + plain[33:]
    late = plain[:-12] + struct.pack(">I", 4) + b"zTXt" + b"abcd" + b"\0\0\0\0" + plain[-12:]
    for data in (encoded(photo(), "PNG", pnginfo=text), profile, late):
        assert np.array_equal(np.asarray(decode(data)), np.asarray(photo()))
    with pytest.raises(Unreadable):
        decode(encoded(photo(300, 300), "PNG", pnginfo=text)[:-2000])


def test_nothing_of_pillow_or_its_libraries_reaches_the_terminal(tmp_path: Path) -> None:
    tiff = encoded(photo(200, 200).convert("1"), "TIFF", compression="group4")
    files = {
        "exif.jpg": encoded(photo(), "JPEG", exif=BROKEN_EXIF),
        "large.png": black_png(9_500, 9_500),  # Pillow warns of it
        "bytes.gif": encoded(photo().convert("P"), "GIF", transparency=1),
        "broken.tif": tiff[:20] + b"\xff\0\xff\0\x55" * 8 + tiff[60:],
        "cut.tif": encoded(photo(200, 200), "TIFF", compression="tiff_lzw")[:-4000],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    program = """
import pathlib, sys
from trainers.files.plain import Unreadable
from trainers.images.decode import decode
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    try:
        print(path.name, decode(path.read_bytes()).mode)
    except Unreadable as error:
        print(path.name, error.reason)
"""
    lines = run(program, str(tmp_path))
    assert len(lines) == len(files)
    assert {"bytes.gif RGB", "exif.jpg RGB"} < set(lines)


@pytest.mark.timeout(20)
def test_room_lets_in_what_fits_and_one_that_is_too_large_alone() -> None:
    room, together, most = Room(10), [0], [0]
    lock = threading.Lock()

    def work(amount: int) -> None:
        for _ in range(50):
            with room.taken(amount):
                with lock:
                    together[0] += amount
                    most[0] = max(most[0], together[0])
                with lock:
                    together[0] -= amount

    threads = [threading.Thread(target=work, args=(amount,)) for amount in (3, 4, 5, 6, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 25


def test_a_photo_made_square_twice_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = DecodedPhoto(encoded(photo(1200, 900), "JPEG", exif=_turned()))
    first = taken.square(32, "squash")
    monkeypatch.setattr("PIL.JpegImagePlugin.JpegImageFile.load", lambda self: pytest.fail("decoded again"))
    assert np.array_equal(taken.square(32, "squash"), first)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[pillow_reader.ORIENTATION] = 6
    return exif
