"""HEIC, as phones write it: upright, the primary image of several, within the limits, and a sentence without it."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.places import ROOT
from trainers.files.plain import Unreadable
from trainers.images import heif, pillow_reader
from trainers.images.decode import decode, reduced, square

pillow_heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")


def photo(width: int = 96, height: int = 64, seed: int = 0, mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, len(mode)), np.uint8)
    return Image.fromarray(small, mode).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=95, chroma=444, **options)
    return out.getvalue()


def far(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two images of one size, in grey levels."""
    assert one.size == other.size
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.fixture
def fresh() -> Iterator[None]:
    """The plugin is looked for anew, and again after the test."""
    heif.register.cache_clear()
    yield
    heif.register.cache_clear()


def test_a_heic_photo_is_read_as_its_pixels() -> None:
    assert decode(encoded(photo())).mode == "RGB"
    assert far(decode(encoded(photo())), photo()) < 3
    assert reduced(encoded(photo()), 16)[:2] == (96, 64)
    assert square(encoded(photo()), 32, "centre_crop").shape == (32, 32, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_phone_gives_an_upright_photo(orientation: int) -> None:
    """The turn stands in the container and in the EXIF data; it must act once."""
    exif = Image.Exif()
    exif[pillow_reader.ORIENTATION] = orientation
    turn = pillow_reader.TURNS.get(orientation)
    expected = photo() if turn is None else photo().transpose(turn)
    read = decode(encoded(photo(), exif=exif.tobytes()))
    assert read.size == ((64, 96) if orientation >= 5 else (96, 64))
    assert far(read, expected) < 3


@pytest.mark.parametrize("primary", [0, 1, 2])
def test_of_a_burst_the_primary_image_is_read(primary: int) -> None:
    several = pillow_heif.HeifFile()
    for seed in range(3):
        several.add_from_pillow(photo(96 + 16 * seed, 64, seed))
    out = io.BytesIO()
    several.save(out, quality=95, chroma=444, primary_index=primary)
    assert far(decode(out.getvalue()), photo(96 + 16 * primary, 64, primary)) < 3


def test_transparency_is_white_as_in_every_format() -> None:
    clear = photo(mode="RGBA")
    clear.putalpha(0)
    assert np.asarray(decode(encoded(clear))).min() > 250


def test_ten_bits_a_colour_are_eight() -> None:
    pixels = (np.asarray(photo(), np.uint16) << 8).tobytes()
    out = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (96, 64), pixels).save(out, quality=95, chroma=444)
    assert far(decode(out.getvalue()), photo()) < 4


def test_a_file_of_the_general_brand_is_told_from_avif() -> None:
    """Android writes ``mif1``, which AVIF files may begin with as well."""
    data = encoded(photo())
    general = data[:8] + b"mif1" + data[12:]
    assert far(decode(general), photo()) < 3
    out = io.BytesIO()
    photo().save(out, "AVIF", quality=95)
    assert not heif.is_heic(out.getvalue())
    assert far(decode(out.getvalue()), photo()) < 4
    general = out.getvalue()[:8] + b"mif1" + out.getvalue()[12:]
    assert not heif.is_heic(general)
    assert decode(general).size == (96, 64)


def test_the_limit_on_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_reader, "DECODING_BYTES", 13 * 96 * 64 - 1)
    with pytest.raises(Unreadable, match=r"it has 96 x 64 pixels, and a HEIF may have at most 0 million"):
        decode(encoded(photo()))


@given(cut=st.integers(0, 2000), at=st.integers(0, 2000), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=60)
def test_a_damaged_photo_is_read_or_refused_with_a_reason(cut: int, at: int, byte: int) -> None:
    data = bytearray(encoded(photo()))
    data[at % len(data)] = byte
    with contextlib.suppress(Unreadable):
        assert decode(bytes(data[: len(data) - cut % len(data)])).mode == "RGB"


@given(data=st.binary(max_size=64))
def test_any_bytes_are_heic_or_not(data: bytes) -> None:
    assert heif.is_heic(data) in (True, False)
    assert not heif.is_heic(b"\xff\xd8" + data)


MISSING = """
import sys
sys.modules["pillow_heif"] = None
from pathlib import Path
from trainers.images.decode import decode
try:
    decode(Path(sys.argv[1]))
except Exception as error:
    print(error)
"""


def test_without_the_package_a_sentence_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(encoded(photo()))
    command = [sys.executable, "-c", MISSING, str(tmp_path / "a.heic")]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert said == (
        f"{tmp_path / 'a.heic'} cannot be read: it is a HEIC photo, and the package pillow-heif, which reads these, "
        "is not installed; `pip install pillow-heif`."
    )


def test_a_package_that_does_not_load_is_said_to_be_so(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise ImportError("libheif.so.1: cannot open shared object file")

    monkeypatch.setattr(pillow_heif, "register_heif_opener", refuse)
    with pytest.raises(Unreadable, match=r"pillow-heif, .* does not work here \(libheif\.so\.1: cannot open"):
        decode(encoded(photo()))
