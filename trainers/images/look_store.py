"""Looks kept in the row store: a photo is decoded once for its copies, also by later sweeps. Free of TensorFlow.

A row holds a whole ``Look``; its key is the SHA-256 of the file. Looks that other code made lie on another shelf.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL

from trainers.images import comparison, decode, descriptor, keypoints, look, pillow_reader
from trainers.images.comparison import CHROMA, PREVIEW
from trainers.images.look import THUMBNAIL, Look
from trainers.store.eviction import NoRoom
from trainers.store.shelf import Shelf

LOOKS = "looks"
"""Name of the shelf's folder in the cache."""
LARGEST_PREVIEW = PREVIEW**2 + 2 * CHROMA**2 + 1024
"""Bytes for a ``packed`` preview: two PNGs, of noise in the worst case, which no compression makes smaller."""
ROW = np.dtype(
    [
        ("size", "<i4", (2,)),
        ("comparable", "?"),
        ("descriptor", "u1", (descriptor.CELLS**2,)),
        ("thumbnail", "u1", (THUMBNAIL, THUMBNAIL)),
        ("preview_bytes", "<u2"),
        ("preview", "u1", (LARGEST_PREVIEW,)),
        ("keypoints", keypoints.KEYPOINT, (keypoints.KEYPOINTS,)),
    ]
)
"""A ``Look`` with its (width, height)."""
WRITTEN_AT_ONCE = 4096
"""Looks in memory before they are written, some 90 MB; each time makes a segment for each of the store's buckets."""


class LookStore:
    """The looks in the store of ``cache`` when it is opened; None stores nothing.

    A store that is full or cannot be written keeps no looks, and nothing fails.
    """

    def __init__(self, cache: Path | None) -> None:
        self._shelf = None if cache is None else Shelf(cache, LOOKS, {"code": code(), "row": ROW.itemsize})
        self._known = self._shelf.keys() if self._shelf else set()
        self._new: dict[str, Look] = {}

    def __contains__(self, sha256: object) -> bool:
        return sha256 in self._known

    def add(self, sha256: str, look: Look) -> None:
        """Keep a look that was just made; it is written with others, or by ``flush``.

        Not of tiny photos, such as scanned digits: to decode one takes less than to read a look.
        """
        if self._shelf is not None and sha256 not in self._known and max(look.width, look.height) >= THUMBNAIL:
            self._new[sha256] = look
            if len(self._new) >= WRITTEN_AT_ONCE:
                self.flush()

    def flush(self) -> None:
        keys, looks = [*self._new], [*self._new.values()]
        self._new = {}
        if self._shelf is not None and keys:
            self._shelf.keep(keys, lambda positions: np.stack([to_row(looks[i]) for i in positions]))

    def looks(self, keys: Sequence[str], make: Callable[[int], Look]) -> list[Look]:
        """Return the looks of ``keys``, which are all in the store; ``make`` makes that of a position anew if its row
        is damaged or gone."""
        if self._shelf is None or not keys:
            return [make(i) for i in range(len(keys))]

        def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
            for position in positions:
                yield to_row(make(position))[None]

        try:
            rows = self._shelf.rows(keys, compute)
            return [from_row(row) for row in rows.take(np.arange(len(keys)))]
        except (NoRoom, OSError):
            return [make(i) for i in range(len(keys))]


def to_row(seen: Look) -> np.ndarray:
    """uint8 (ROW.itemsize,)."""
    row = np.zeros((), ROW)
    row["size"], row["comparable"] = (seen.width, seen.height), seen.comparable
    row["descriptor"] = np.frombuffer(seen.descriptor, np.uint8)
    row["thumbnail"], row["keypoints"], row["preview_bytes"] = seen.thumbnail, seen.keypoints, len(seen.preview)
    row["preview"][: len(seen.preview)] = np.frombuffer(seen.preview, np.uint8)
    return np.frombuffer(row.tobytes(), np.uint8)


def from_row(values: np.ndarray) -> Look:
    row = np.frombuffer(values.tobytes(), ROW)[0]
    width, height = row["size"].tolist()
    return Look(
        width,
        height,
        row["thumbnail"],
        row["preview"][: row["preview_bytes"]].tobytes(),
        row["keypoints"],
        row["descriptor"].tobytes(),
        bool(row["comparable"]),
    )


@functools.cache
def code() -> str:
    """16 hex digits over the code that makes a look: with other code, Pillow or OpenCV, no old look is found."""
    import cv2  # `orch --help` does without

    parts = [inspect.getsource(module) for module in (comparison, decode, descriptor, keypoints, look, pillow_reader)]
    return hashlib.sha256("\n".join([*parts, PIL.__version__, cv2.__version__]).encode()).hexdigest()[:16]
