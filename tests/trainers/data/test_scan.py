"""Scanning photos: sizes, and images that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.support.photos_on_disk import (
    folder_of,
    source,
    warnings_of,
    write_photo,
)
from trainers.data.build import build_manifest, check_data


def test_unreadable_images_are_named_and_left_out(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    (root / "a" / "torn.jpg").write_bytes(b"nothing that is a picture")
    (root / "b" / "empty.png").write_bytes(b"")
    manifest, report = build_manifest(source(root))
    assert len(manifest.table) == report.images == 12
    assert report.unreadable == {
        "a/torn.jpg": "it is not an image of a known format",
        "b/empty.png": "the file is empty",
    }
    assert warnings_of(report) == ("left out, because they cannot be read: 2 images, a/torn.jpg, b/empty.png.",)
    text = "\n".join(report.lines())
    assert "unreadable, left out: 2\n  a/torn.jpg: it is not an image of a known format\n" in text


def test_exif_orientation_counts_for_the_size(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=3, b=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(root / "a" / "000.png") as image:
        image.convert("RGB").save(root / "a" / "000.png", exif=exif)
    manifest, _ = build_manifest(source(root))
    assert manifest.table.loc[0, ["width", "height"]].tolist() == [40, 48]


@pytest.mark.timeout(60)
def test_want_of_memory_for_one_photo_ends_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    resize = Image.Image.resize

    def without_memory(self: Image.Image, *arguments: object, **options: object) -> Image.Image:
        if self.size == (77, 77):
            raise MemoryError
        return resize(self, *arguments, **options)  # type: ignore[arg-type]

    write_photo(root / "a" / "x.png", 5, (77, 77))
    monkeypatch.setattr(Image.Image, "resize", without_memory)
    report = check_data(source(root))
    assert {**report.unreadable} == {"a/x.png": "there is not enough memory to decode it"}
    assert report.images == 12
