"""What a fit reads: for each image or augmented copy one row, computed once and shared through the store.

Nothing frozen: the row is the decoded image (uint8). Else it is the prefix's output for that image (float32).
A row's key is the image's sha256 and the number of the copy, so trials, epochs, retrainings and later sweeps share it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.augment import augment, plan_copies
from trainers.contract import TrialConfig
from trainers.images import square
from trainers.manifest import Manifest
from trainers.model import Prefix
from trainers.store import Rows, Shelf

PREFIX_BATCH = 32
"""Images the frozen part sees at a time. A row does not depend on its neighbours, but for rounding."""


@dataclass(frozen=True)
class Examples:
    """Rows in order, and their labels, int32 (n,)."""

    rows: Rows
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Item:
    """One training example: a row of the manifest and the number of its copy, 0 for the original."""

    row: int
    copy: int


def training_items(manifest: Manifest, multiplier: float) -> list[Item]:
    """Every original, then the copies that the multiplier asks for, class by class as even as they can be."""
    copies = plan_copies(manifest.labels(), multiplier)
    originals = [Item(row, 0) for row in range(len(copies))]
    return originals + [Item(row, k) for row, count in enumerate(copies) for k in range(1, count + 1)]


def training_examples(manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path) -> Examples:
    """The examples of one epoch: ``manifest`` holds the training images alone."""
    items = training_items(manifest, config.multiplier)
    return _examples(manifest, items, config, prefix, cache)


def evaluation_examples(manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path) -> Examples:
    """Every image once, never augmented; a random crop becomes the centre crop."""
    items = [Item(row, 0) for row in range(len(manifest.table))]
    view = "centre_crop" if config.view == "random_crop" else config.view
    return _examples(manifest, items, config, prefix, cache, view)


def _examples(
    manifest: Manifest, items: list[Item], config: TrialConfig, prefix: Prefix, cache: Path, view: str = ""
) -> Examples:
    view = view or config.view
    hashes = manifest.table["sha256"].tolist()
    size = prefix.architecture.image_size
    # An original has the same pixels under every recipe; only copies depend on it and on the data's seed.
    keys = [hashes[i.row] if not i.copy else f"{hashes[i.row]}:{i.copy}:{config.recipe}:{manifest.seed}" for i in items]
    images = Shelf(cache, "images", {"size": size, "view": view})
    decode = _Decoder(manifest, items, config.recipe, view, size)
    labels = manifest.labels()[[i.row for i in items]]
    if prefix.is_identity:
        return Examples(images.rows(keys, decode), labels)

    def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
        pictures = images.rows([keys[p] for p in positions], lambda inner: decode([positions[i] for i in inner]))
        for start in range(0, len(positions), PREFIX_BATCH):
            chosen = np.arange(start, min(start + PREFIX_BATCH, len(positions)))
            yield prefix(pictures.take(chosen)).numpy()

    shelf = Shelf(cache, "features", {**prefix.description(), "view": view})
    return Examples(shelf.rows(keys, compute), labels)


class _Decoder:
    """Positions in ``items`` -> batches of uint8 images (n, size, size, 3)."""

    def __init__(self, manifest: Manifest, items: list[Item], recipe: str, view: str, size: int) -> None:
        self._paths, self._hashes = manifest.paths(), manifest.table["sha256"].tolist()
        self._items, self._recipe, self._view, self._size, self._seed = items, recipe, view, size, manifest.seed

    def __call__(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        for start in range(0, len(positions), PREFIX_BATCH):
            yield np.stack([self._one(self._items[p]) for p in positions[start : start + PREFIX_BATCH]])

    def _one(self, item: Item) -> np.ndarray:
        sha256 = self._hashes[item.row]
        crop_seed = int(sha256[:8], 16) + item.copy if self._view == "random_crop" else None
        image = square(self._paths[item.row], self._size, self._view, crop_seed)
        return augment(image, sha256, item.copy, self._recipe, self._seed) if item.copy else image
