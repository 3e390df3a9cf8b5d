"""95 % intervals and tests of accuracies and their differences, for photos in groups and for several networks.

Pure numpy. Formulas, papers and simulated coverage: ``docs/statistics.md``. Functions of ``Components`` take arrays
over data sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.evaluation.variance import Components, Groups, components, difference_components
from trainers.metrics import Z_95, macro_f1_influence

LEVEL = 0.95
"""Share of intervals that contain the true figure."""
MIN_GROUPS = 10
"""Minimum groups of several photos for an interval; with fewer, their variance is not known well enough."""
PRIOR_CORRELATION = 0.2
"""Intraclass correlation within groups that is assumed before any error is seen."""
PRIOR_ERRORS = 1.0
"""Number of errors that the assumed correlation counts as."""
MIN_GROUP_DF = 4.0
"""Minimum degrees of freedom of a variance over groups: the assumed correlation is worth as many."""
TRUNCATED_SHARE = 0.45
"""Share of data sets without an effect of the network in which its estimated variance is 0; by simulation."""
SAME_NETWORKS_SHARE = 0.5
"""The same where each network is compared with itself under another crop policy, which it seldom changes by much."""
MIN_NETWORK_DF = 2.0
"""Minimum degrees of freedom of the networks' variance for an interval; Student's t is 13 with one."""
BISECTIONS = 50
"""Halvings in the search for a p-value: to 1e-15."""


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the second minus that of the first on the same images, its 95 % interval, and a p-value.

    NaN bounds and p: too few groups for an interval.
    """

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True, eq=False)
class Spread:
    """The variance of a mean in two parts, each with its degrees of freedom; arrays over data sets.

    ``networks``: max(0, V_N - s V_I), where s = ``interaction_share`` is below 1, because the difference of two
    variances with few degrees of freedom is 0 too often. ``network_df``: 0 where there is no such part.
    """

    photos: np.ndarray
    photo_df: np.ndarray
    networks: np.ndarray
    network_df: float

    def squares(self, level: np.ndarray | float = LEVEL) -> tuple[np.ndarray, np.ndarray | float]:
        """Return the squared quantiles of Student's t for the photos and for the networks."""
        of_networks = student(self.network_df, level) ** 2 if self.network_df else 0.0
        return student(self.photo_df, level) ** 2, of_networks

    def half_width(self, level: np.ndarray | float = LEVEL) -> np.ndarray:
        """Return sqrt(t_P^2 V_P + t_N^2 V_N), each part with its own t (Banerjee 1960, Sankhya 22, 359-361)."""
        of_photos, of_networks = self.squares(level)
        return np.asarray(np.sqrt(of_photos * self.photos + of_networks * self.networks))


def student(df: np.ndarray | float, level: np.ndarray | float = LEVEL) -> np.ndarray:
    """Return the two-sided quantile of Student's t; infinite ``df`` is the normal's."""
    from scipy.special import stdtrit  # SciPy: a second to import

    return np.asarray(stdtrit(np.minimum(df, 1e9), (1 + np.asarray(level)) / 2))


def interaction_share(parts: Components) -> float:
    """Return s: a quantile of chi^2/df with the networks' degrees of freedom; 1 for many networks."""
    from scipy.special import gammaincinv  # SciPy: a second to import

    share = SAME_NETWORKS_SHARE if parts.same_networks else TRUNCATED_SHARE
    return float(2 / parts.network_df * gammaincinv(parts.network_df / 2, share))


def spread(parts: Components, photos: np.ndarray, photo_df: np.ndarray) -> Spread:
    """Return the two parts; ``photos`` replaces V_P of ``parts``, which is 0 where nothing differs."""
    df = parts.network_df
    if not df:
        return Spread(photos, photo_df, np.zeros_like(photos), 0.0)
    return Spread(photos, photo_df, np.maximum(0.0, parts.networks - interaction_share(parts) * parts.interaction), df)


def has_interval(groups: Groups, network_df: float = 0.0) -> bool:
    """Whether there are enough groups (any number of single photos, else ``MIN_GROUPS``) and networks (one a side, or
    ``MIN_NETWORK_DF``)."""
    enough = groups.are_single or groups.count >= MIN_GROUPS
    return enough and (not network_df or network_df >= MIN_NETWORK_DF)


def prior_design_effect(groups: Groups) -> float:
    """Return 1 + (m - 1) rho for the assumed correlation (Kish 1965, section 5.4)."""
    return 1 + (groups.weighted_size - 1) * PRIOR_CORRELATION


def score_bounds(parts: Components, groups: Groups, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of a mean accuracy, or of another mean of values in [0, 1].

    The p with (x - p)^2 = t_P^2 d p (1 - p) / n + t_N^2 V_N: Wilson 1927's score interval with the effective sample
    size n / d (Kish 1965; Dean & Pagano 2015, J. Surv. Stat. Methodol. 3) and the networks' variance. Wilson's own for
    one network on independent photos. d = (n^2 V_P + e d0) / (n x (1 - x) + e) with e = ``PRIOR_ERRORS``, d0 =
    ``prior_design_effect``.
    """
    n, x = groups.images, parts.mean
    effect, photo_df = np.ones_like(x), np.full_like(x, np.inf)
    if not groups.are_single or parts.network_df:
        effect = design_effect(parts, groups)
        photo_df = parts.photo_df(groups, MIN_GROUP_DF)
    return _score(parts, spread(parts, effect / n, photo_df), level)


def design_effect(parts: Components, groups: Groups) -> np.ndarray:
    """Return d: V_P over that of as many independent photos under one network.

    Of several networks' errors half is assumed to be shared before any is seen.
    """
    n, x = groups.images, parts.mean
    prior = PRIOR_ERRORS * prior_design_effect(groups) * (1 + parts.per_network) / 2
    return np.asarray((n**2 * parts.photos + prior) / (n * np.clip(x * (1 - x), 0, None) + PRIOR_ERRORS))


def estimated_bounds(parts: Components, groups: Groups, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """The same for a figure of one network whose variance is not that of a proportion, such as macro F1."""
    shape = spread(parts, design_effect(parts, groups) / groups.images, parts.photo_df(groups, MIN_GROUP_DF))
    return _score(parts, shape, level)


def _score(parts: Components, per_share: Spread, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Solve the quadratic for p; the photos' part of ``per_share`` is d / n, to be multiplied by p (1 - p)."""
    x, (of_photos, of_networks) = parts.mean, per_share.squares(level)
    c = of_photos * per_share.photos
    middle = 2 * x + c
    root = np.sqrt(np.maximum(0.0, middle**2 - 4 * (1 + c) * (x**2 - of_networks * per_share.networks)))
    low, high = (middle - root) / (2 * (1 + c)), (middle + root) / (2 * (1 + c))
    return np.clip(np.minimum(low, x), 0, 1), np.clip(np.maximum(high, x), 0, 1)  # x itself, whatever the rounding


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4).

    Raises ValueError unless 0 <= correct <= total > 0.
    """
    if total <= 0 or not 0 <= correct <= total:
        raise ValueError(f"{correct} correct of {total} images is no accuracy")
    share, c = correct / total, Z_95**2 / total
    root = math.sqrt(c * (4 * share * (1 - share) + c))
    low, high = ((2 * share + c - root) / (2 * (1 + c)), (2 * share + c + root) / (2 * (1 + c)))
    return (0.0 if correct == 0 else low), (1.0 if correct == total else high)


def grouped_interval(correct: np.ndarray, groups: Groups) -> tuple[float, float]:
    """Return the 95 % interval of one model's accuracy, bool (images,).

    With too few groups to estimate their correlation it is taken for 1: each group counts as one image.
    """
    if groups.are_single:
        return accuracy_interval(int(correct.sum()), len(correct))
    parts = components(correct[None], groups)
    if has_interval(groups):
        low, high = score_bounds(parts, groups)
    else:
        effect, infinite = np.asarray(groups.weighted_size / groups.images), np.asarray(np.inf)
        low, high = _score(parts, Spread(effect, infinite, np.zeros(()), 0.0), LEVEL)
    return float(low), float(high)


def macro_f1_interval(labels: np.ndarray, predicted: np.ndarray, groups: Groups) -> tuple[float, float]:
    """Return the 95 % interval of one model's macro F1; NaN for too few groups."""
    if not has_interval(groups):
        return math.nan, math.nan
    figure, influence = macro_f1_influence(labels, predicted)
    low, high = estimated_bounds(components(figure + influence[None], groups), groups)
    return float(low), float(high)


def difference_spread(parts: Components, groups: Groups, estimated: bool = False) -> Spread:
    """Return the variance of a paired difference.

    V_P gains one discordant image of one network, times ``prior_design_effect``, and n gains 2: the adjustment of
    Agresti & Min 2005 (Statistics in Medicine 24, "Wald+2") for few discordant images, and exactly theirs for one
    network a side on independent photos. ``estimated``: the figure is no share, such as macro F1.
    """
    n = groups.images
    correction = (groups.count - 1) / groups.count if groups.are_single and not parts.network_df else 1.0
    prior = prior_design_effect(groups) * parts.per_network + 2 * n / (n + 2) * parts.mean**2
    photos = (n**2 * parts.photos * correction + prior) / (n + 2) ** 2
    if groups.are_single and not estimated:
        photo_df = np.full_like(photos, np.inf if not parts.network_df else max(n - 1, 1))
    else:
        photo_df = parts.photo_df(groups, MIN_GROUP_DF)
    return spread(parts, photos, photo_df)


def difference_p(parts: Components, groups: Groups, estimated: bool = False) -> np.ndarray:
    """Return the two-sided p at which the interval of ``difference_bounds`` just touches 0; by bisection."""
    middle, shape = np.abs(_middle(parts, groups)), difference_spread(parts, groups, estimated)
    low, high = np.zeros_like(middle), np.ones_like(middle)
    for _ in range(BISECTIONS):
        half = (low + high) / 2
        outside = shape.half_width(1 - half) < middle
        low, high = np.where(outside, low, half), np.where(outside, half, high)
    return np.where(middle == 0, 1.0, (low + high) / 2)


def paired_difference(correct_a: Any, correct_b: Any, groups: Groups | None = None) -> PairedDifference:
    """Compare the accuracy of b with that of a on the same images; both bool (images,), whether correct.

    Independent photos, with b images correct under a only, c under b only, of n: the difference is (c - b) / n. The
    interval is the adjusted Wald interval of Agresti & Min 2005 (Statistics in Medicine 24, "Wald+2"): half an image
    is added to each of the four cells, d = (c - b) / (n + 2), d +- z sqrt(b + c + 1 - (c - b)^2 / (n + 2)) / (n + 2),
    clipped to [-1, 1]. The p-value is the exact two-sided test of McNemar 1947 (binomial, b of b + c at 1/2). With
    ``groups`` the variance is taken over them, and p is ``sign_flip``'s.

    Raises ValueError unless both have the same number of images, at least 1.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f"a paired difference needs the same images, at least 1; got shapes {a.shape} and {b.shape}")
    groups = groups or Groups.of(None, len(a))
    gain = b.astype(np.int64) - a
    if not has_interval(groups):
        return PairedDifference(float(gain.mean()), math.nan, math.nan, math.nan)
    parts = difference_components(a[None], b[None], groups)
    low, high = difference_bounds(parts, groups)
    return PairedDifference(float(gain.mean()), float(low), float(high), sign_flip(groups.sums(gain)))


def difference_bounds(
    parts: Components, groups: Groups, level: float = LEVEL, estimated: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of a paired difference, clipped to [-1, 1]."""
    middle, half = _middle(parts, groups), difference_spread(parts, groups, estimated).half_width(level)
    return np.maximum(-1.0, middle - half), np.minimum(1.0, middle + half)


def _middle(parts: Components, groups: Groups) -> np.ndarray:
    return np.asarray(parts.mean * groups.images / (groups.images + 2))


def sign_flip(group_gains: np.ndarray) -> float:
    """Return the exact two-sided p of equal models: each group's sum of differences is as likely with either sign.

    ``group_gains``: whole numbers (groups,), images that only the second model has right minus those that only the
    first has. p = P(|sum of +-g| >= |sum of g|) over all signs (Fisher 1935, section 21; for groups: the exact form of
    Obuchowski 1998, Statistics in Medicine 17). McNemar's exact test if each group is one image. 1 without any.
    """
    from scipy.special import bdtr, gammaln  # SciPy: a second to import

    gains = np.abs(np.rint(group_gains).astype(np.int64))
    sizes, times = np.unique(gains[gains > 0], return_counts=True)
    observed = abs(int(np.rint(group_gains).sum()))
    if not len(sizes):
        return 1.0
    if len(sizes) == 1:
        number = int(times[0])
        return min(1.0, 2 * float(bdtr((number - observed // int(sizes[0])) // 2, number, 0.5)))
    total = np.ones(1)  # of sum(g over positive signs), from 0
    for size, number in zip(sizes.tolist(), times.tolist(), strict=True):
        k = np.arange(number + 1)
        share = np.exp(gammaln(number + 1) - gammaln(k + 1) - gammaln(number - k + 1) - number * math.log(2))
        step = np.zeros(size * number + 1)
        step[::size] = share
        total = np.convolve(total, step)
    sums = 2 * np.arange(len(total)) - (len(total) - 1)
    return min(1.0, float(total[np.abs(sums) >= observed].sum()))
