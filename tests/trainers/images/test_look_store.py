"""Looks in the row store: equal to those made anew, made once, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainers.data import scan as scanning
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.images import look_store
from trainers.images.look import Look, look
from trainers.images.look_store import LOOKS, LookStore, from_row, to_row


def write_photos(root: Path, count: int, begin: int = 0) -> None:
    for label in ("a", "b"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(begin, begin + count):
            random = np.random.default_rng((ord(label), i))
            pixels = np.kron(random.integers(0, 256, (9, 7, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{i}.png")


def fields(seen: Look) -> tuple[object, ...]:
    arrays = (seen.thumbnail.tobytes(), seen.keypoints.tobytes())
    return (seen.width, seen.height, seen.descriptor, seen.preview, seen.comparable, *arrays)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for each photo that is decoded for its look."""
    calls: list[int] = []

    def counted(source: Path | str | bytes) -> Look:
        calls.append(1)
        return look(source)

    monkeypatch.setattr(scanning, "look", counted)
    return calls


@pytest.mark.parametrize("size", [(72, 56), (8, 8), (300, 300)])
def test_a_look_comes_back_as_it_was(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    seen = look(tmp_path / "p.png")
    assert fields(from_row(to_row(seen))) == fields(seen)


def test_an_old_photo_is_not_decoded_again_and_the_manifest_is_the_same(tmp_path: Path, decoded: list[int]) -> None:
    root = tmp_path / "photos"
    write_photos(root, 20)
    (root / "a" / "copy.png").write_bytes((root / "a" / "0.png").read_bytes())
    (root / "a" / "broken.png").write_bytes(b"no picture")
    source = DataSource(str(root), (0.6, 0.2, 0.2), tmp_path / "cache")
    build_manifest(source)
    assert len(decoded) == 42
    write_photos(root, 2, begin=20)
    warm, report = build_manifest(source)
    assert len(decoded) == 42 + 4 + 1  # four new ones, and the one that cannot be read
    cold, anew = build_manifest(DataSource(str(root), (0.6, 0.2, 0.2), tmp_path / "other"))
    assert warm.table.equals(cold.table)
    assert report.lines() == anew.lines()


def test_a_damaged_row_is_made_again(tmp_path: Path, decoded: list[int]) -> None:
    root, cache = tmp_path / "photos", tmp_path / "cache"
    write_photos(root, 20)
    source = DataSource(str(root), (0.6, 0.2, 0.2), cache)
    before, _ = build_manifest(source)
    damage(cache)
    after, _ = build_manifest(source)
    assert len(decoded) > 40
    assert after.table.equals(before.table)


def damage(cache: Path) -> None:
    for file in (cache / LOOKS).rglob("*.npy"):
        content = bytearray(file.read_bytes())
        for place in range(512, len(content), 512):
            content[place] ^= 1
        file.write_bytes(bytes(content))


def test_a_photo_that_goes_away_meanwhile_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cache = tmp_path / "photos", tmp_path / "cache"
    write_photos(root, 10)
    source = DataSource(str(root), (0.6, 0.2, 0.2), cache)
    build_manifest(source)
    damage(cache)

    def vanishing(source: Path | str | bytes) -> Look:
        if isinstance(source, Path):  # its row is damaged
            (root / "a" / "3.png").unlink(missing_ok=True)
        return look(source)

    monkeypatch.setattr(scanning, "look", vanishing)
    after, report = build_manifest(source)
    assert len(after.table) == 19
    assert any("3.png" in line for line in report.lines())


def test_tiny_photos_are_decoded_each_time(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "p.png")
    store = LookStore(tmp_path / "cache")
    store.add("f" * 64, look(tmp_path / "p.png"))
    store.flush()
    assert "f" * 64 not in LookStore(tmp_path / "cache")


def test_looks_of_other_code_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "photos", 3)
    seen = look(tmp_path / "photos" / "a" / "0.png")
    store = LookStore(tmp_path / "cache")
    store.add("f" * 64, seen)
    store.flush()
    assert "f" * 64 in LookStore(tmp_path / "cache")
    monkeypatch.setattr(look_store, "code", lambda: "other")
    assert "f" * 64 not in LookStore(tmp_path / "cache")


@pytest.mark.parametrize("cache", [None, Path("/dev/null/cache")])
def test_without_a_store_nothing_fails(tmp_path: Path, cache: Path | None) -> None:
    write_photos(tmp_path / "photos", 3)
    store, seen = LookStore(cache), look(tmp_path / "photos" / "a" / "0.png")
    store.add("f" * 64, seen)
    store.flush()
    assert "f" * 64 not in store
    assert [fields(each) for each in store.looks(["f" * 64], lambda i: seen)] == [fields(seen)]
