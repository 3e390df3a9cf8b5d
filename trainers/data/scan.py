"""Read every photo of a listing once: hash, size and thumbnail. Memory is independent of the photos' sizes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.data.duplicates import THUMBNAIL, Thumbnails
from trainers.data.listing import REASON, Listing
from trainers.files.plain import LARGEST_FILE, Unreadable, open_plain, read_plain
from trainers.images.decode import thumbnail
from trainers.images.pillow_reader import Room

READ_AT_ONCE = 512
MOST_THREADS = 16
_READING = Room(LARGEST_FILE)
"""Limit on the bytes of files that are in memory at the same time."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True, slots=True)
class ScannedPhoto:
    """One image as found: ``reason`` is why it cannot be read, or empty. Sizes in px, after EXIF orientation."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def scan(listing: Listing, thumbnails: Thumbnails, progress: Progress | None = None) -> list[ScannedPhoto]:
    """Scan the images of ``listing`` in order; add the thumbnails of readable ones to ``thumbnails``."""
    paths, reasons = listing.rows["path"].tolist(), listing.rows[REASON].tolist()
    done: list[ScannedPhoto] = []
    # Pillow decodes outside Python's lock, so threads help.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        for start in range(0, len(paths), READ_AT_ONCE):
            files = [listing.root / path for path in paths[start : start + READ_AT_ONCE]]
            for photo, small in pool.map(_look, files, reasons[start : start + READ_AT_ONCE]):
                done.append(photo)
                if small is not None:
                    thumbnails.add(small)
                if progress is not None:
                    progress(len(done), len(paths))
    return done


def _look(path: Path, reason: str | None) -> tuple[ScannedPhoto, np.ndarray | None]:
    """Scan one file; with a ``reason`` it is not opened."""
    if reason:
        return ScannedPhoto(reason=reason), None
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
        with _READING.taken(size):
            data = read_plain(path)
            width, height, small = thumbnail(data, THUMBNAIL)
            return ScannedPhoto(hashlib.sha256(data).hexdigest(), width, height), small
    except Unreadable as error:
        return ScannedPhoto(reason=error.reason), None
