"""Copies and random crops that are drawn anew in each epoch. Free of TensorFlow.

What an image becomes in an epoch is a pure function of (trial's seed, epoch, the image's sha256, number of the copy,
how often that copy came before in the epoch), so it depends neither on what was trained before nor on where the pixels
come from: training resumes exactly.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.config import parts_of
from trainers.images.augment import find_recipe
from trainers.images.decode import square
from trainers.images.decoder import ImageCopy, bytes_of, named


@dataclass(frozen=True)
class FreshDraws:
    """How one trial draws.

    ``root``: folder of the images' paths; ``view``: a ``TrialConfig.framing``; ``size``: side in px; ``seed``: the
    trial's.
    """

    root: Path
    recipe: str
    view: str
    size: int
    seed: int

    @property
    def reads_files(self) -> bool:
        """Whether images are decoded from their files for each draw, since each random crop takes other pixels."""
        return parts_of(self.view)[0] == "random_crop"

    def image(
        self, picture: ImageCopy, epoch: int, decoded: np.ndarray | None = None, occurrence: int = 0
    ) -> np.ndarray:
        """Return ``picture`` as ``epoch`` (from 0) sees it at its ``occurrence`` (from 0), uint8 (size, size, 3).

        ``decoded``: the original as a square of that shape, unless the draw ``reads_files``. Copy 0 is the original,
        which is not augmented. Raises TrainerError.
        """
        if self.reads_files:
            decoded = self._cropped(picture, epoch, occurrence)
        assert decoded is not None
        if not picture.copy:
            return decoded
        recipe = find_recipe(self.recipe)
        random = np.random.default_rng(self._number(f"recipe {recipe.name}", picture, epoch, occurrence))
        return recipe.draw(decoded, picture.copy, random)

    def _cropped(self, picture: ImageCopy, epoch: int, occurrence: int) -> np.ndarray:
        path = self.root / picture.path
        data = bytes_of(path, picture.sha256)
        with named(path):
            return square(data, self.size, self.view, self._number("crop", picture, epoch, occurrence))

    def _number(self, what: str, picture: ImageCopy, epoch: int, occurrence: int) -> int:
        text = f"{what}:{self.seed}:{epoch}:{picture.sha256}:{picture.copy}:{occurrence}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
