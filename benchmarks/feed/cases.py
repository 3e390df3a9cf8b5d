"""What is measured, and what the figures of the sides say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

OURS, TF_DATA, KERAS, NUMPY = "orch", "tf.data", "Keras", "numpy.take"
SMALL, LARGE = "512 x 384", "12 megapixels"
FILES, CACHE, FEATURES, MAPS = "files", "decoded cache", "features", "feature maps"
SHORTER_SIDES = {SMALL: 384, LARGE: 3000}
VARIANTS: tuple[dict[str, Any], ...] = (
    {"fast": False, "dtype": "uint8"},
    {"fast": True, "dtype": "uint8"},
    {"fast": False, "dtype": "float32"},
    {"fast": True, "dtype": "float32"},
)
"""What is tried for ``tf.data``: libjpeg's faster and coarser transforms, and pixels that are rounded or not."""
GPUS = (("V100 16 GB, float32", 412), ("A100, TF32", 909), ("V100 16 GB, mixed", 1270), ("A100, mixed", 2375))
"""Images of 224 px a second in training ResNet50 v1.5 with TensorFlow and XLA on one GPU, published by NVIDIA:
github.com/NVIDIA/DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5/README.md."""
RESNET_PX = 224


@dataclass(frozen=True)
class Case:
    """One thing to deliver. ``copies``: examples of each photo, the first one as it is; ``recipe``: of the others."""

    source: str
    photos: str
    size: int
    threads: int
    copies: int = 1
    recipe: str = "flips"

    @property
    def name(self) -> str:
        """Such as "12 megapixels to 224 px, 5 copies by colour, 2 threads"."""
        words = f"{self.photos} to {self.size} px" if self.photos else self.source
        words += f" from the {self.source}" if self.source == CACHE else ""
        words += f", {self.copies} examples a photo by {self.recipe}" if self.copies > 1 else ""
        return f"{words}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": largest_ratio(self.photos, self.size)}


def largest_ratio(photos: str, size: int) -> int:
    """Return the largest ratio at which ``tf.io.decode_jpeg`` still leaves the pixels of a square of ``size``."""
    return next((ratio for ratio in (8, 4, 2) if SHORTER_SIDES.get(photos, 0) // ratio >= size > 0), 1)


def cases(sizes: Sequence[int], threads: Sequence[int]) -> tuple[Case, ...]:
    """Return every case, files first."""
    found = []
    for count in threads:
        for photos in (SMALL, LARGE):
            for size in sizes:
                found.append(Case(FILES, photos, size, count))
            found += [Case(FILES, photos, sizes[0], count, 5, recipe) for recipe in ("flips", "colour")]
        found += [Case(CACHE, SMALL, size, count) for size in sizes]
        found += [Case(FEATURES, "", 0, count), Case(MAPS, "", 0, count)]
    return tuple(found)


def mark_of(case: Case) -> tuple[str, float] | None:
    """(name of the result, target) that a case counts for; None for one without a mark."""
    if case.source in (FEATURES, MAPS):
        return "feed_stored", 0.8
    if case.source == CACHE:
        return None
    if case.copies > 1:
        return "feed_copies", 1.5
    return ("feed", 1.0) if case.photos == SMALL else ("feed_large", 1.5)


def against(case: Case, rates: Mapping[str, Sequence[float]]) -> tuple[float, str]:
    """(our median rate over the best other's, its name); ``rates``: side -> images a second of each repeat.

    Stored features count against ``numpy.take`` alone. Sides in brackets do less work and do not count.
    """
    others = {side: median(values) for side, values in rates.items() if side != OURS and not side.startswith("(")}
    if case.source in (FEATURES, MAPS):
        others = {side: rate for side, rate in others.items() if side == NUMPY}
    best = max(others, key=lambda side: others[side])
    return median(rates[OURS]) / others[best], best


def feeds(rate: float, size: int) -> str:
    """Return which of GPUS trains ResNet50 no faster than ``rate`` images a second, scaled to ``size`` px by area."""
    fed = [name for name, published in GPUS if published * (RESNET_PX / size) ** 2 <= rate]
    return f"feeds ResNet50 on a {fed[-1]}" if fed else f"feeds no {GPUS[0][0]} with ResNet50"
