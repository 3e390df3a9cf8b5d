"""A cache folder with shelves of an old and of the current format, and other files."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trainers.store.shelf import Shelf


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
