"""Run the crops of images through a prefix and several models.

Each image is decoded once, and each distinct crop goes through the prefix once. Policies share crops by name, such as
the mirror image of ``flip``, the centre of ``ten_crop`` and the middle scale of ``pyramid`` (see
``trainers.images.policies.crop_names``). The prefix's output for a crop is stored if that is cheap enough. Rows of
whole images have the same keys as in trials.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainers.images.crops import READ, Clock, cut
from trainers.images.decoder import bytes_of, named
from trainers.images.policies import WHOLE
from trainers.networks.network import Network
from trainers.networks.prefix import Prefix
from trainers.store.eviction import NoRoom
from trainers.store.rows import Rows
from trainers.store.shelf import Shelf

BATCH_CROPS = 64
"""Crops per batch. On CPUs the time per crop is the same from 16 to 128."""
DISK_BYTES_PER_S = 200e6
"""Bytes per second that a slow disk writes and reads."""
MAX_CROPS_WRITE_SHARE, MAX_WHOLE_WRITE_SHARE = 0.05, 0.25
"""Maximum time to write a row, as a share of the prefix's time to compute it, at which rows are stored: rows of all
crops, which may never be read again, and rows of whole images only, which are few and shared with trials. The share is
0.001 for MobileNet 1.0's pooled features, 0.06 for its 7 x 7 x 1024 maps and 0.12 for 14 x 14 x 512; storing all of
those made the first leaderboard 10 % slower."""
SAMPLE_IMAGES, SAMPLE_CROPS = 2, 8
"""Number of images cut, and of crops run through the prefix, to time work that stored rows made unnecessary."""


@dataclass
class TrainedModel:
    """A trained network above its prefix. ``folder``: the folder of its fit, with a subfolder per fold, if any.

    ``crops``: predictions, float32 (images, crops, classes).
    """

    id: str
    folder: Path
    network: Network
    crops: np.ndarray
    seconds: float = 0.0


@dataclass(frozen=True)
class SplitImages:
    """The images of a part of a split, in order, and the crops to predict of each."""

    paths: list[Path]
    hashes: list[str]
    names: tuple[str, ...]
    size: int
    view: str

    def keys(self, positions: np.ndarray) -> list[str]:
        """Return the keys in the store; whole images have those of trials. ``positions``: see ``CropPredictor``."""
        each = [("" if name == WHOLE else f":{name}") for name in self.names]
        return [self.hashes[p // len(each)] + each[p % len(each)] for p in positions]


@dataclass
class _Work:
    """Work done so far. ``prefix_s``: seconds of the prefix per crop; of a sample until the first batch has run."""

    clock: Clock = field(default_factory=Clock)
    prefix_s: float = 0.0
    images: int = 0
    computed: int = 0
    read: int = 0
    computing_s: float = 0.0


class CropPredictor:
    """Run every distinct crop of some images through the prefix and the models.

    The *position* of a crop is the index of its image times the number of crop names, plus the index of its name.
    """

    def __init__(
        self, images: SplitImages, prefix: Prefix, models: Sequence[TrainedModel], sampled_prefix_s: float
    ) -> None:
        self.images, self.prefix, self.models = images, prefix, models
        self.work = _Work(prefix_s=sampled_prefix_s)

    def kept(self, shelf: Shelf | None) -> frozenset[str]:
        """Return the names of the crops whose rows are read from and written to the store.

        All crops, or only whole images, if writing takes a small share of the prefix's time and there is room; else
        whole images if all are stored already and reading is faster than computing.
        """
        if shelf is None:
            return frozenset()
        images, names = self.images, self.images.names
        whole = frozenset({WHOLE}.intersection(names))
        row_bytes = np.dtype(self.prefix.row_dtype).itemsize * int(np.prod(self.prefix.spec.shape[1:]))
        disk_share = row_bytes / DISK_BYTES_PER_S / self.work.prefix_s
        for kept, most in ((frozenset(names), MAX_CROPS_WRITE_SHARE), (whole, MAX_WHOLE_WRITE_SHARE)):
            if kept and disk_share <= most:
                positions, _ = self._positions(np.arange(len(images.hashes)), kept)
                if shelf.has_room_for(images.keys(positions), row_bytes):
                    return kept
        stored = disk_share < 1 and whole and shelf.count(images.hashes) == len(set(images.hashes))
        return whole if stored else frozenset()

    def run(self, images: np.ndarray, shelf: Shelf | None, kept: frozenset[str]) -> None:
        """Fill in the models' predictions for every crop of ``images``."""
        through, others = self._positions(images, kept)
        if shelf is not None and len(through):
            others = np.sort(np.concatenate([self._run_stored(shelf, through), others]))
        for _ in self._compute(others):
            """Discard the features."""

    def _positions(self, images: np.ndarray, kept: frozenset[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the crops of ``images`` that use the store, and of the others."""
        names = self.images.names
        every = (images[:, None] * len(names) + np.arange(len(names))).ravel()
        is_kept = np.array([names[p % len(names)] in kept for p in every], bool)
        return every[is_kept], every[~is_kept]

    def _run_stored(self, shelf: Shelf, positions: np.ndarray) -> np.ndarray:
        """Read rows from ``shelf``, computing and storing missing ones; return the positions not predicted if it has no
        room."""
        done: set[int] = set()

        def compute(chosen: Sequence[int]) -> Iterator[np.ndarray]:
            wanted = positions[list(chosen)]
            for batch, features in self._compute(wanted):
                done.update(batch.tolist())
                yield features

        try:
            rows = shelf.rows(self.images.keys(positions), compute, self.prefix.row_dtype)
        except NoRoom:
            return positions[~np.isin(positions, list(done))]
        self._read(rows, positions, [place for place, p in enumerate(positions.tolist()) if p not in done])
        return positions[:0]

    def _read(self, rows: Rows, positions: np.ndarray, places: list[int]) -> None:
        for start in range(0, len(places), BATCH_CROPS):
            chosen = np.array(places[start : start + BATCH_CROPS])
            self._predict(positions[chosen], rows.take(chosen).astype(np.float32, copy=False))
        self.work.read += len(places)

    def _compute(self, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Cut crops, run them through the prefix and predict; yield (positions, features) per batch, in order."""
        for batch in self._batches(positions):
            pixels = self._cut(batch)
            started = time.perf_counter()
            features = self.prefix(pixels)
            kept = features.numpy()
            work = self.work
            work.computing_s += time.perf_counter() - started
            work.computed += len(batch)
            work.prefix_s = work.computing_s / work.computed
            self._predict(batch, features)
            yield batch, kept

    def _batches(self, positions: np.ndarray) -> Iterator[np.ndarray]:
        """Split into batches of about BATCH_CROPS, without splitting consecutive crops of an image."""
        if not len(positions):
            return
        images = positions // len(self.images.names)
        edges = [0, *(np.flatnonzero(np.diff(images)) + 1), len(positions)]
        start = 0
        for edge, following in zip(edges[1:], [*edges[2:], None], strict=False):
            if following is None or following - start > BATCH_CROPS:
                yield positions[start:edge]
                start = edge

    def _cut(self, positions: np.ndarray) -> np.ndarray:
        """Return the pixels of crops, uint8 (n, size, size, 3). Decode each image once."""
        images = positions // len(self.images.names)
        parts = np.split(positions, np.flatnonzero(np.diff(images)) + 1)
        return np.concatenate([self._cut_image(part) for part in parts])

    def _cut_image(self, positions: np.ndarray) -> np.ndarray:
        images, clock = self.images, self.work.clock
        image = int(positions[0]) // len(images.names)
        names = [images.names[p % len(images.names)] for p in positions]
        path, sha256 = images.paths[image], images.hashes[image]
        with clock.measure(READ):
            data = bytes_of(path, sha256)
        self.work.images += 1
        with named(path):
            return cut(data, images.size, images.view, names, sha256, clock)

    def _predict(self, positions: np.ndarray, features: Any) -> None:
        """Predict with every model. ``features``: an array, or a tensor, which avoids a copy per model."""
        for model in self.models:
            started = time.perf_counter()
            predicted = model.network.predict(features)
            model.crops.reshape(-1, predicted.shape[1])[positions] = predicted
            model.seconds += time.perf_counter() - started

    def measure_cutting(self) -> None:
        """Time cutting on a few images if some crops were only read from the store."""
        names = self.images.names
        if not self.work.clock.knows(names):
            images, counted = min(SAMPLE_IMAGES, len(self.images.hashes)), self.work.images
            self._cut(np.arange(images * len(names)))
            self.work.images = counted


def prefix_sample_s(prefix: Prefix, models: Sequence[TrainedModel]) -> float:
    """Trace all networks; return the seconds of the prefix per crop."""
    size = prefix.key.image_size
    pixels = np.zeros((SAMPLE_CROPS, size, size, 3), np.uint8)
    features = prefix(pixels)
    for model in models:
        model.network.predict(features)
    started = time.perf_counter()
    prefix(pixels).numpy()
    return (time.perf_counter() - started) / SAMPLE_CROPS
