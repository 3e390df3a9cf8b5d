"""The photos of the benchmark: some of TrashNet as they are, and phone-like ones of 12 megapixels made from them."""

from __future__ import annotations

import csv
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

LARGE = (4000, 3000)
"""Width and height of a phone's photo of 12 megapixels."""
NOISE = 6.0
"""Standard deviation of the noise of a sensor, in levels of 255."""
QUALITY = 90


def link_small(table: Path, folder: Path, count: int) -> None:
    """Link ``count`` photos of ``table``, spread over it, into one folder for each class."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    for row in rows[:: max(len(rows) // count, 1)][:count]:
        place = folder / row["label"] / Path(row["path"]).name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(table.parent / row["path"], place)


def make_large(small: Path, folder: Path, count: int) -> None:
    """Enlarge ``count`` photos of ``small`` to LARGE, add noise and save them as JPEG, so that a file is a phone's."""
    sources = sorted(small.rglob("*.jpg"))

    def make(number: int) -> None:
        source = sources[number * len(sources) // count]
        with Image.open(source) as photo:
            pixels = np.asarray(photo.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC), np.float32)
        noise = np.random.default_rng(number).standard_normal(pixels.shape, np.float32)
        place = folder / source.parent.name / source.name
        place.parent.mkdir(parents=True, exist_ok=True)
        noisy = np.clip(pixels + NOISE * noise, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(place, "JPEG", quality=QUALITY)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(make, range(count)))


def hashed(folder: Path) -> list[tuple[str, str]]:
    """(path relative to ``folder``, sha256) of every photo, sorted; reads all of them, so that they are in memory."""
    files = sorted(path for path in folder.rglob("*.jpg"))
    return [(str(path.relative_to(folder)), hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
