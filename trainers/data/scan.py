"""Read every photo of a listing once: hash, size, and what its copies are found by.

Memory is independent of the photos' sizes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from trainers.data.duplicates import Looks
from trainers.data.listing import REASON, Listing
from trainers.files.plain import LARGEST_FILE, Unreadable, open_plain, read_plain
from trainers.images.look import Look, look
from trainers.images.pillow_reader import Room

READ_AT_ONCE = 512
MOST_THREADS = 16
_READING = Room(LARGEST_FILE)
"""Limit on the bytes of files that are in memory at the same time."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True, slots=True)
class ScannedPhoto:
    """One image as found: ``reason`` is why it cannot be read, or empty. Sizes in px, after EXIF orientation.

    ``descriptor``: see ``trainers.images.descriptor``.
    """

    sha256: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""
    descriptor: bytes = b""


def scan(listing: Listing, looks: Looks, progress: Progress | None = None) -> list[ScannedPhoto]:
    """Scan the images of ``listing`` in order; add the looks of readable ones to ``looks``."""
    paths, reasons = listing.rows["path"].tolist(), listing.rows[REASON].tolist()
    done: list[ScannedPhoto] = []
    # Pillow decodes outside Python's lock, so threads help.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        for start in range(0, len(paths), READ_AT_ONCE):
            files = [listing.root / path for path in paths[start : start + READ_AT_ONCE]]
            for photo, seen in pool.map(_look, files, reasons[start : start + READ_AT_ONCE]):
                done.append(photo)
                if seen is not None:
                    looks.add(seen)
                if progress is not None:
                    progress(len(done), len(paths))
    return done


def _look(path: Path, reason: str | None) -> tuple[ScannedPhoto, Look | None]:
    """Scan one file; with a ``reason`` it is not opened."""
    if reason:
        return ScannedPhoto(reason=reason), None
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
        with _READING.taken(size):
            data = read_plain(path)
            seen = look(data)
            sha256 = hashlib.sha256(data).hexdigest()
            return ScannedPhoto(sha256, seen.width, seen.height, descriptor=seen.descriptor), seen
    except Unreadable as error:
        return ScannedPhoto(reason=error.reason), None
