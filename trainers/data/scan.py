"""Read every photo of a listing once: hash, size, and what its copies are found by.

Memory is independent of the photos' sizes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from trainers.data.listing import REASON, Listing
from trainers.data.near_duplicates import Looks
from trainers.files.plain import LARGEST_FILE, Unreadable, open_plain, read_plain
from trainers.images.look import Look, look
from trainers.images.look_store import LookStore
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


def scan(
    listing: Listing, looks: Looks, progress: Progress | None = None, cache: Path | None = None
) -> list[ScannedPhoto]:
    """Scan the images of ``listing`` in order; add the looks of readable ones to ``looks``.

    ``cache``: where looks are kept; a photo whose look is there is read but not decoded.
    """
    store = LookStore(cache)
    paths, reasons = listing.rows["path"].tolist(), listing.rows[REASON].tolist()
    done: list[ScannedPhoto] = []
    # Pillow decodes outside Python's lock, so threads help.
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        for start in range(0, len(paths), READ_AT_ONCE):
            files = [listing.root / path for path in paths[start : start + READ_AT_ONCE]]
            found = [*pool.map(_look, files, reasons[start : start + READ_AT_ONCE], repeat(store))]
            for photo, seen in _with_stored(files, found, store):
                done.append(photo)
                if seen is not None:
                    looks.add(seen)
                if progress is not None:
                    progress(len(done), len(paths))
    store.flush()
    return done


Scanned = tuple[ScannedPhoto, Look | None]


def _with_stored(files: Sequence[Path], found: Sequence[Scanned], store: LookStore) -> Iterator[Scanned]:
    """Fill in the looks that are in the store, and add the others to it."""
    known = [i for i, (photo, seen) in enumerate(found) if seen is None and not photo.reason]
    hashes = [found[i][0].sha256 for i in known]
    complete: list[Scanned]
    try:
        stored = store.looks(hashes, lambda place: look(files[known[place]]))
        complete = [(_photo(*pair), pair[1]) for pair in zip(hashes, stored, strict=True)]
    except Unreadable:  # a file went away whose stored look is damaged; it costs the others nothing
        complete = [_look(files[i], "", LookStore(None)) for i in known]
    of_file = dict(zip(known, complete, strict=True))
    for i, (photo, seen) in enumerate(found):
        if seen is not None:
            store.add(photo.sha256, seen)
        yield of_file.get(i, (photo, seen))


def _photo(sha256: str, seen: Look) -> ScannedPhoto:
    return ScannedPhoto(sha256, seen.width, seen.height, descriptor=seen.descriptor)


def _look(path: Path, reason: str | None, store: LookStore) -> Scanned:
    """Scan one file; with a ``reason`` it is not opened. Without a look or a reason: the look is in ``store``."""
    if reason:
        return ScannedPhoto(reason=reason), None
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
        with _READING.taken(size):
            data = read_plain(path)
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 in store:
                return ScannedPhoto(sha256), None
            seen = look(data)
            return _photo(sha256, seen), seen
    except Unreadable as error:
        return ScannedPhoto(reason=error.reason), None
