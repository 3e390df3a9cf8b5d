"""A cache folder with shelves of an old and of the current format, and other files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from trainers.store.shelf import Shelf

FEATURES = {
    "backbone": "mobilenet_1.0",
    "weights": "0123",
    "image_size": 224,
    "layer": "conv_pw_11_relu",
    "pooling": "average",
    "precision": "float32",
    "view": "squash",
}
"""Description of a shelf of a network's rows."""


def fill(cache: Path, kind: str = "images", size: int = 1, count: int = 40) -> Shelf:
    """A shelf of ``count`` rows of a kilobyte."""

    def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
        yield np.zeros((len(positions), 256), np.float32)

    shelf = Shelf(cache, kind, {"size": size})
    shelf.rows([f"k{i}" for i in range(count)], compute)
    return shelf


def last_used(shelf: Shelf, days_ago: float) -> None:
    when = time.time() - days_ago * 86_400
    for names in shelf.folder.glob("*.keys"):
        os.utime(names, (when, when))


def write_old_format(cache: Path) -> Path:
    """A shelf as it was written before rows had checksums."""
    folder = cache / "images" / "dc052978c02e5dc8"
    folder.mkdir(parents=True)
    np.save(folder / "0164f8940d1f74a8.npy", np.zeros((2, 256), np.float32))
    (folder / "0164f8940d1f74a8.keys").write_text("k0\nk1")
    (folder / "description.json").write_text('{"size": 1}')
    return folder


def write_photo(cache: Path, name: str = "archives") -> Path:
    photo = cache / name / "0123456789abcdef" / "cat" / "1.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"x" * 5000)
    return photo


def write_described(cache: Path, kind: str, description: dict[str, object], count: int = 40) -> Shelf:
    """A shelf of that description, ``count`` rows of a kilobyte."""

    def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
        yield np.zeros((len(positions), 1024), np.uint8)

    shelf = Shelf(cache, kind, description)
    shelf.rows([f"k{i}" for i in range(count)], compute)
    return shelf


def write_cache(folder: Path) -> Path:
    """Photos, features last used five days ago, a calibration and a shelf of an older version; returns ``folder``."""
    write_described(folder, "images", {"size": 224, "view": "squash"}, 100)
    last_used(write_described(folder, "features", FEATURES), 5.5)
    (folder / "calibration").mkdir()
    (folder / "calibration" / "machine.json").write_text("{}")
    old = folder / "images" / "dc052978c02e5dc8"
    old.mkdir()
    (old / "01.npy").write_bytes(b"x" * 20_000)
    (old / "01.keys").write_text("k0")
    return folder


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the cache into ``folder`` and name it as orch's, of at most 2 GB, on a terminal of 160 columns."""
    monkeypatch.setenv("ORCH_CACHE", str(folder))
    monkeypatch.setenv("ORCH_CACHE_GB", "2")
    monkeypatch.setenv("COLUMNS", "160")
    return write_cache(folder)
