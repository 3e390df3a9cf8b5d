"""Variance of a mean over photos in groups and networks: the two crossed sources of error. Pure numpy.

Every function takes leading axes, one data set each, so that ``benchmarks/coverage.py`` calls what the tables call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Groups:
    """Which images show the same object, in the order of the predictions.

    ``order``: int (images,), positions sorted by group. ``starts``: int (groups,), where each group begins in it.
    """

    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, names: Sequence[Any] | np.ndarray | None, images: int) -> Groups:
        """Return the groups of ``images`` images by name; None is a group for each image.

        Raises ValueError unless there is one name per image, at least 1.
        """
        if images < 1 or (names is not None and len(names) != images):
            found = "none" if names is None else str(len(names))
            raise ValueError(f"groups need one name per image, at least 1; got {found} for {images} images")
        if names is None:
            return cls(np.arange(images), np.arange(images))
        _, place = np.unique(np.asarray(names), return_inverse=True)
        order = np.argsort(place, kind="stable")
        return cls(order, np.flatnonzero(np.diff(place[order], prepend=-1)))

    @property
    def images(self) -> int:
        return len(self.order)

    @property
    def count(self) -> int:
        return len(self.starts)

    @property
    def are_single(self) -> bool:
        """Whether each image is a group of its own, so that images are independent."""
        return self.count == self.images

    @cached_property
    def sizes(self) -> np.ndarray:
        return np.diff(self.starts, append=self.images)

    @property
    def weighted_size(self) -> float:
        """The mean group size that an image sees, sum m_g^2 / n."""
        return float((self.sizes.astype(np.float64) ** 2).sum() / self.images)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum (..., images) over each group; (..., groups), float64."""
        if self.are_single:
            return values[..., self.order].astype(np.float64)
        return np.add.reduceat(values[..., self.order], self.starts, axis=-1, dtype=np.float64)

    @property
    def words(self) -> str:
        """The size: "380 photos", or "380 photos of 95 objects" where groups exist."""
        return photos_in_words(self.images, self.count)


def photos_in_words(images: int, groups: int) -> str:
    """Format a number of photos and, if they are fewer, of the objects that they show."""
    photos = f"{images:,} photo{'' if images == 1 else 's'}"
    return photos if groups == images else f"{photos} of {groups:,} object{'' if groups == 1 else 's'}"


def groups_of_hashes(hashes: Iterable[str], known: Iterable[str], groups: Iterable[str]) -> list[str]:
    """Return the group of each image by its hash; ``known``: hashes of a manifest, ``groups``: theirs.

    An image that the manifest does not hold is a group of its own.
    """
    by_hash = dict(zip(map(str, known), map(str, groups), strict=True))
    return [by_hash.get(str(sha), str(sha)) for sha in hashes]


@dataclass(frozen=True, eq=False)
class Components:
    """A mean over networks and images, and the estimated parts of its variance; arrays over the data sets.

    ``photos``: V_P, cluster-robust over groups, of the means over networks. ``networks``: V_N, of the networks' own
    means, 0 for one network. ``interaction``: V_I, the part that V_P and V_N both hold. V_P + V_N - V_I estimates the
    variance of the mean (Cameron, Gelbach & Miller 2011, JBES 29, eq. 2.8; crossed effects as in Owen 2007, Ann. Appl.
    Stat. 1). ``network_df``: degrees of freedom of V_N. ``per_network``: 1 / networks, the mean over the sides.
    ``deviations``: (..., groups), each group's sum minus its size times the mean.
    """

    mean: np.ndarray
    photos: np.ndarray
    networks: np.ndarray
    interaction: np.ndarray
    network_df: float
    per_network: float
    deviations: np.ndarray

    def photo_df(self, groups: Groups, least: float) -> np.ndarray:
        """Return the degrees of freedom of V_P, between ``least`` and the number of groups minus 1.

        2 E(V)^2 / Var(V) with both from the groups' squares q_g: 2 (sum q)^2 / (sum q^2 - (sum q)^2 / G); about twice
        the number of groups with an error where those are few (Satterthwaite 1946, Biometrics 2, eq. 12).
        """
        squares = self.deviations**2
        total = squares.sum(-1)
        spread = (squares**2).sum(-1) - total**2 / groups.count
        most = float(max(groups.count - 1, 1))
        found = np.divide(2 * total**2, spread, out=np.full_like(total, most), where=spread > 1e-12 * total**2)
        return np.clip(np.where(total > 0, found, least), min(least, most), most)


def components(values: np.ndarray, groups: Groups) -> Components:
    """Return the mean of ``values`` (..., networks, images) and the parts of its variance."""
    return _combine([values], groups)


def gain_components(first: np.ndarray, second: np.ndarray, groups: Groups) -> Components:
    """Return the parts of mean(second) - mean(first), where both hold the same networks in the same order."""
    gains = second.astype(np.float64) - first
    return _combine([gains], groups)


def difference_components(first: np.ndarray, second: np.ndarray, groups: Groups) -> Components:
    """Return the parts of mean(second) - mean(first); the networks of the two sides are independent.

    Degrees of freedom of the networks: those of both sides (a pooled t test), since tables compare equal numbers of
    seeds; a side with one network has no part in it, and the statement is about that network.
    """
    return _combine([first, second], groups)


def _combine(sides: Sequence[np.ndarray], groups: Groups) -> Components:
    """The last side minus the one before it."""
    images, count, sizes = groups.images, groups.count, groups.sizes
    shape = sides[0].shape[:-2]
    networks, interaction, df = np.zeros(shape), np.zeros(shape), 0.0
    total = np.zeros((*shape, count))
    for side, sign in zip(reversed(sides), (1.0, -1.0), strict=False):
        number = side.shape[-2]
        by_group = groups.sums(side)  # (..., networks, groups)
        means = by_group.sum(-1) / images
        mean_sums = by_group.mean(-2)
        total += sign * mean_sums
        if number > 1:
            networks = networks + means.var(-1, ddof=1) / number
            rest = by_group - mean_sums[..., None, :] - (means - means.mean(-1, keepdims=True))[..., None] * sizes
            scale = count / max(count - 1, 1) / ((number - 1) * number * images**2)
            interaction = interaction + (rest**2).sum((-1, -2)) * scale
            df += number - 1
    per_network = float(np.mean([1 / side.shape[-2] for side in sides]))
    mean = total.sum(-1) / images
    deviations = total - mean[..., None] * sizes
    photos = (deviations**2).sum(-1) * count / max(count - 1, 1) / images**2
    return Components(mean, photos, networks, interaction, df, per_network, deviations)
