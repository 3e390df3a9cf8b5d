"""A photo's content in 256 bytes, by which it is recognised when it was exported again. Free of TensorFlow.

The descriptor is the image in 16 x 16 grey values, each the mean of its part of the photo. Means hardly change when a
photo is encoded or resized again, and a spot of 6 % of the side usually changes it; a smaller one may not.
Mirrored, turned and cropped copies have other descriptors.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

VERSION = 1
"""Version of the descriptor; descriptors of two versions cannot be compared."""
CELLS = 16
"""Parts along each side."""
LARGEST_DIFFERENCE = 7
"""Maximum difference, in grey values, of any part of two descriptors of one photo."""
MEAN_DIFFERENCE = 1.5
"""Maximum of the same over the mean of all parts."""
FLAT = 4.0
"""Standard deviation of a descriptor below which it recognises nothing: empty photos are alike."""
ASKED_AT_ONCE = 256


def describe(image: Image.Image) -> bytes:
    """The descriptor of a greyscale image."""
    return np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX)).tobytes()


def same_descriptors(asked: list[bytes | None], known: list[bytes | None]) -> np.ndarray:
    """For each of ``asked`` the position of the most similar of ``known`` that shows the same; -1 where none does.

    int64 (asked,). None and flat ones show nothing. ``known`` is ordered by mean, and each block of ``asked`` is
    compared with those of a close mean alone.
    """
    out = np.full(len(asked), -1, np.int64)
    wanted, rows = _usable(asked)
    places, table = _usable(known)
    if not len(wanted) or not len(places):
        return out
    means, of_rows = table.mean(axis=1), rows.mean(axis=1)
    by_mean, order = np.argsort(means, kind="stable"), np.argsort(of_rows, kind="stable")
    means, table, places = means[by_mean], table[by_mean], places[by_mean]
    squares = (table.astype(np.float32) ** 2).sum(axis=1)
    for start in range(0, len(order), ASKED_AT_ONCE):
        part = order[start : start + ASKED_AT_ONCE]
        low = np.searchsorted(means, of_rows[part[0]] - MEAN_DIFFERENCE, side="left")
        high = np.searchsorted(means, of_rows[part[-1]] + MEAN_DIFFERENCE, side="right")
        out[wanted[part]] = _most_similar(rows[part], table[low:high], squares[low:high], places[low:high])
    return out


def _usable(descriptors: list[bytes | None]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of those that are there and not flat, and their grey values, uint8 (n, 256)."""
    there = [i for i, each in enumerate(descriptors) if each is not None and len(each) == CELLS * CELLS]
    table = np.frombuffer(b"".join(descriptors[i] or b"" for i in there), np.uint8).reshape(-1, CELLS * CELLS)
    varied = table.std(axis=1) >= FLAT if len(table) else np.zeros(0, bool)
    return np.array(there, np.int64)[varied], table[varied]


def _most_similar(rows: np.ndarray, table: np.ndarray, squares: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The place of the most similar row of ``table`` for each of ``rows``, or -1."""
    out = np.full(len(rows), -1, np.int64)
    if not len(table):
        return out
    asked = rows.astype(np.float32)
    distance = squares[None] - 2 * (asked @ table.T.astype(np.float32)) + (asked**2).sum(axis=1)[:, None]
    for i, j in zip(*np.nonzero(distance <= CELLS * CELLS * LARGEST_DIFFERENCE**2 / 4), strict=True):
        off = table[j].astype(np.int16) - rows[i]
        if np.abs(off).max() <= LARGEST_DIFFERENCE and (out[i] < 0 or distance[i, j] < distance[i, out[i]]):
            out[i] = j
    return np.where(out < 0, -1, places[out])
