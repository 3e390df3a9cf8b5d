"""Time and memory of the search for copies as photos grow: ``ORCH_DATA=... python -m benchmarks.duplicates_growth``.

Made photos have the real photos' hashes and keypoints in new mixtures: the thumbnail and the preview are the mean of
two, one of them shifted at random, and each keypoint is one of the pool's with 6 of its 64 bits changed. One in a
hundred is a copy of an earlier one. 25,000, 50,000 and 100,000 of them are searched in one process.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common.results import Bound, Result, record
from benchmarks.duplicates import SETS, photos_of, take
from trainers.data.near_duplicates import Looks, compared_pairs
from trainers.images.comparison import Preview
from trainers.images.decode import decode
from trainers.images.keypoints import KEYPOINTS
from trainers.images.look import Look, packed, preview_of

SIZES, SMALL_SIZES = (25_000, 50_000, 100_000), (1_000, 2_000, 4_000)
REAL = 400
"""Real photos of each set in the pool."""
COPIES = 100
"""One photo in so many is a copy."""
CHANGED_BITS = 6
MOST_GROWTH, MOST_MB = 1.3, 1024.0
NOTES = (
    "The figure is the search's CPU time a photo among the most photos over that among the fewest, a quarter of them. "
    "Memory is the process's peak, TensorFlow not loaded. Reading the photos takes the same for each and is not in it."
)


def made(real: list[Look], count: int, seed: int = 0) -> Iterator[Look]:
    """``count`` looks of photos that do not exist."""
    random = np.random.default_rng(seed)
    pool = np.concatenate([each.keypoints[each.keypoints["size"] > 0] for each in real])
    previews = [preview_of(each.preview) for each in real]
    plain = [i for i, each in enumerate(previews) if each.grey.shape == previews[0].grey.shape]
    kept: list[Look] = []
    for n in range(count):
        if n % COPIES == COPIES - 1:
            yield kept[random.integers(len(kept))]
            continue
        a, b = (plain[i] for i in random.integers(0, len(plain), 2))
        points = real[a].keypoints.copy()
        chosen = pool[random.integers(0, len(pool), KEYPOINTS)]
        flips = np.bitwise_or.reduce(
            np.uint64(1) << random.integers(0, 64, (KEYPOINTS, CHANGED_BITS), np.uint64), axis=1
        )
        points["code"], points["size"] = chosen["code"] ^ flips, chosen["size"]
        down, across = (int(shift) for shift in random.integers(0, 32, 2))
        shape = previews[a].grey.shape
        shifts = ((down * shape[0] // 32, across * shape[1] // 32), (down, across), (down, across))
        pictures = [(previews[i].grey, previews[i].chroma, real[i].thumbnail) for i in (a, b)]
        grey, chroma, thumbnail = (
            one // 2 + np.roll(other, shift, (0, 1)) // 2 for one, other, shift in zip(*pictures, shifts, strict=True)
        )
        look = Look(256, 192, thumbnail, packed(Preview(grey, chroma)), points, b"", True)
        kept = [*kept[-200:], look]
        yield look


def peak_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Run and record it; 1 if a mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="1,000 to 4,000 photos")
    small = parser.parse_args().small
    root, sizes = Path(os.environ["ORCH_DATA"]), SMALL_SIZES if small else SIZES
    real = [take(decode(path)) for name in SETS for path in photos_of(root / name)[:: 4 if not small else 20][:REAL]]
    rows, each_ms = [], []
    photos = made([look for look in real if look.comparable], max(sizes))
    with Looks() as looks:
        for size in sizes:
            while len(looks) < size:
                looks.add(next(photos))
            begin = time.process_time()
            same, alike = compared_pairs(looks, np.arange(size))
            each_ms.append(1e3 * (time.process_time() - begin) / size)
            words = f"{each_ms[-1]:.2f} ms a photo, peak {peak_mb():.0f} MB; {len(same)} the same, {len(alike)} alike"
            rows.append((f"{size:,} photos, {size // COPIES} of them copies", words))
            print(*rows[-1], sep=": ", flush=True)
    also = (Bound("peak memory", peak_mb(), "MB", MOST_MB), Bound("CPU a photo among the most", each_ms[-1], "ms", 8.0))
    kind = "small" if small else "full"
    growth = each_ms[-1] / each_ms[0]
    result = Result("duplicates_growth", growth, "x", MOST_GROWTH, False, kind, tuple(rows), NOTES, also)
    return 0 if record(result) else 1


if __name__ == "__main__":
    sys.exit(main())
