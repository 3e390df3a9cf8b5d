"""From a photo's file to the pixels that a network reads, augmented or not. Free of TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.errors import TrainerError
from trainers.files.plain import Unreadable, read_plain
from trainers.images.augment import augment
from trainers.images.decode import square

BATCH_IMAGES = 32
"""Images of one batch."""


@dataclass(frozen=True, slots=True)
class ImageCopy:
    """Copy ``copy`` (0: the original) of the image of this hash at ``path``, relative to the data's root."""

    path: str
    sha256: str
    copy: int


@dataclass(frozen=True)
class Decoder:
    """Pictures -> batches of uint8 images (n, size, size, 3). ``seed`` is the data's."""

    root: Path
    recipe: str
    view: str
    size: int
    seed: int

    def __call__(self, pictures: Sequence[ImageCopy]) -> Iterator[np.ndarray]:
        for start in range(0, len(pictures), BATCH_IMAGES):
            yield np.stack([self._one(picture) for picture in pictures[start : start + BATCH_IMAGES]])

    def _one(self, picture: ImageCopy) -> np.ndarray:
        crop_seed = int(picture.sha256[:8], 16) + picture.copy if self.view == "random_crop" else None
        path = self.root / picture.path
        data = bytes_of(path, picture.sha256)
        with named(path):
            image = square(data, self.size, self.view, crop_seed)
        return augment(image, picture.sha256, picture.copy, self.recipe, self.seed) if picture.copy else image


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Make an Unreadable that is raised inside name ``path`` instead of bytes."""
    try:
        yield
    except Unreadable as error:
        raise Unreadable(str(path), error.reason) from error


def bytes_of(path: Path, sha256: str) -> bytes:
    """Read the file. Raise TrainerError if its hash is not the manifest's."""
    data = read_plain(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise TrainerError(
            f"{path} changed since the manifest was made; put the file back as it was, or start a new sweep, which "
            "reads the images again."
        )
    return data
