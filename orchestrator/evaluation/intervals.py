"""95 % intervals and tests of accuracies and their differences, for photos in groups and for several networks.

Pure numpy. Formulas, papers and simulated coverage: ``docs/statistics.md``. Functions of ``Components`` take arrays
over data sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.evaluation.variance import Components, Groups, components, difference_components
from trainers.metrics import Z_95, confusion, macro_f1_influence, macro_f1_variance

Bounds = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""An interval from a mean x and c, where c p (1 - p) is the squared half width at a true p."""
LEVEL = 0.95
"""Share of intervals that contain the true figure."""
MIN_GROUPS = 10
"""Minimum groups for an interval where most photos share theirs; with fewer, their variance is not known."""
MOSTLY_SINGLE = 2.0
"""Mean group size that a photo sees, below which any number of groups will do: most photos are groups of their own."""
PRIOR_CORRELATION = 0.2
"""Intraclass correlation within groups that is assumed before any error is seen."""
PRIOR_ERRORS = 1.0
"""Number of errors that the assumed correlation counts as."""
MIN_GROUP_DF = 4.0
"""Minimum degrees of freedom of a variance over groups: the assumed correlation is worth as many."""
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

    ``photos``: V_P - (1 - r/2) V_I. ``networks``: max(0, V_N - s V_I), see ``spread``. ``network_df``: 0 where there is
    no such part.
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


def spread(parts: Components, groups: Groups, photos: np.ndarray, photo_df: np.ndarray) -> Spread:
    """Return the two parts; ``photos`` replaces V_P of ``parts``, which is 0 where nothing differs.

    V_P and V_N both hold the interaction V_I, r = V_I / V_P of V_P. The photos' part loses (1 - r/2) of it, the
    networks' part s = 0.45 - 0.6 / df + 0.2 (1 - r): by quadrature, the coverage of normal effects is then between 94
    and 97 % for every deviation of the networks, every r and 2 to 10 degrees of freedom (``docs/statistics.md``). Where
    few groups have an error, both variances are rough, and the photos' part loses less: 1 - (4 / df of V_P)^1.5 of it.
    """
    df = parts.network_df
    if not df:
        return Spread(photos, photo_df, np.zeros_like(photos), 0.0)
    held = np.divide(parts.interaction, parts.photos, out=np.zeros_like(photos), where=parts.photos > 0).clip(0, 1)
    share = 0.45 - 0.6 / df + 0.2 * (1 - held)
    known = 1 - (MIN_GROUP_DF / np.maximum(parts.photo_df(groups, MIN_GROUP_DF), MIN_GROUP_DF)) ** 1.5
    own = np.maximum(0.0, photos - known * (1 - held / 2) * parts.interaction)
    return Spread(own, photo_df, np.maximum(0.0, parts.networks - share * parts.interaction), df)


def has_interval(groups: Groups, network_df: float = 0.0) -> bool:
    """Whether there are enough groups (any number where a photo sees fewer than ``MOSTLY_SINGLE`` photos of its group
    on average, itself included; else ``MIN_GROUPS``) and networks (one a side, or ``MIN_NETWORK_DF``)."""
    enough = groups.count >= MIN_GROUPS or groups.weighted_size < MOSTLY_SINGLE
    return enough and (not network_df or network_df >= MIN_NETWORK_DF)


def prior_design_effect(groups: Groups) -> float:
    """Return 1 + (m - 1) rho for the assumed correlation (Kish 1965, section 5.4)."""
    return 1 + (groups.weighted_size - 1) * PRIOR_CORRELATION


def score_bounds(
    parts: Components, groups: Groups, level: float = LEVEL, one_network: Bounds | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of a mean accuracy, or of another mean of values in [0, 1].

    c = t_P^2 V_P / v + t_N^2 V_N / v, where v = x (1 - x) + ``PRIOR_ERRORS`` / n, so that c p (1 - p) is the squared
    half width at a true p: networks, too, differ less near 0 and 1. One network: ``one_network``, by default Agresti &
    Coull 1998 (Am. Stat. 52), with the effective sample size n / d (Kish 1965; Dean & Pagano 2015, J. Surv. Stat.
    Methodol. 3); several: the score interval (Wilson 1927). d = (n^2 V_P + e d0) / (n x (1 - x) + e), e =
    ``PRIOR_ERRORS``, d0 = ``prior_design_effect``; 1 for one network on independent photos.
    """
    n, x, interval = groups.images, parts.mean, wilson if parts.network_df else one_network or agresti_coull
    if groups.are_single and not parts.network_df:
        return interval(x, student(np.inf, level) ** 2 / n)
    per_image = n * np.clip(x * (1 - x), 0, None) + PRIOR_ERRORS  # n^2 times the variance of independent images
    shape = spread(parts, groups, design_effect(parts, groups) * per_image / n**2, parts.photo_df(groups, MIN_GROUP_DF))
    of_photos, of_networks = shape.squares(level)
    c = (of_photos * shape.photos + of_networks * shape.networks) * n / per_image
    return interval(x, c)


def design_effect(parts: Components, groups: Groups) -> np.ndarray:
    """Return d: V_P over that of as many independent photos under one network.

    Of several networks' errors half is assumed to be shared before any is seen.
    """
    n, x = groups.images, parts.mean
    prior = PRIOR_ERRORS * prior_design_effect(groups) * (1 + parts.per_network) / 2
    return np.asarray((n**2 * parts.photos + prior) / (n * np.clip(x * (1 - x), 0, None) + PRIOR_ERRORS))


def estimated_bounds(parts: Components, groups: Groups, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """The same for a figure of one network whose variance is not that of a proportion, such as a mean cost."""
    of_photos = student(parts.photo_df(groups, MIN_GROUP_DF), level) ** 2
    return agresti_coull(parts.mean, of_photos * design_effect(parts, groups) / groups.images)


def macro_f1_bounds(
    labels: np.ndarray, predicted: np.ndarray, groups: Groups, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return macro F1 of one network and its interval; ``labels``: int (images,), ``predicted``: int (..., images).

    V is the larger of ``macro_f1_variance`` times the accuracy's design effect, which many classes tell better than
    each class its own, and the sum over groups of squared influences (Takahashi et al. 2022, Appl. Intell. 52), taken
    from the mean of their label's: it speaks of other photos with the same shares of classes. Photos of small classes
    count for more, so that the degrees of freedom are the accuracy's over n^2 V_independent / (n x (1 - x)).
    """
    n, (figure, influence) = groups.images, macro_f1_influence(labels, predicted)
    hits = components((predicted == labels)[..., None, :], groups)
    effect = np.ones_like(figure) if groups.are_single else design_effect(hits, groups)
    independent = macro_f1_variance(confusion(labels, predicted), groups.weighted_size)
    more = np.maximum(1.0, n**2 * independent / np.maximum(n * hits.mean * (1 - hits.mean), 0.5))
    df = np.maximum(hits.photo_df(groups, MIN_GROUP_DF) / more, max(min(MIN_GROUP_DF, groups.count - 1), 1))
    given = (labels[:, None] == np.unique(labels)).astype(np.float64)
    within = influence - (influence @ given / given.sum(0)) @ given.T
    seen = components(within[..., None, :], groups).photos
    variance = np.maximum(effect * independent, seen)
    prior = PRIOR_ERRORS * prior_design_effect(groups)
    per_share = (n**2 * variance + prior) / (n * np.clip(figure * (1 - figure), 0, None) + PRIOR_ERRORS)
    return figure, *agresti_coull(figure, student(df, level) ** 2 * per_share / n)


def wilson(x: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the p with (x - p)^2 = c p (1 - p) (Wilson 1927); c = z^2 / n for n independent images."""
    middle, half = (x + c / 2) / (1 + c), np.sqrt(c * np.clip(x * (1 - x), 0, None) + c**2 / 4) / (1 + c)
    return np.clip(np.minimum(middle - half, x), 0, 1), np.clip(np.maximum(middle + half, x), 0, 1)  # x, if rounded


def agresti_coull(x: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return q +- sqrt(c q (1 - q) / (1 + c)) with q = (x + c / 2) / (1 + c), the middle of ``wilson``; never narrower.

    Agresti & Coull 1998, Am. Stat. 52. Wilson's own covers 0.91 and less where half an error or fewer are expected.
    """
    q = (x + c / 2) / (1 + c)
    half = np.sqrt(c * q * (1 - q) / (1 + c))
    return np.clip(np.minimum(q - half, x), 0, 1), np.clip(np.maximum(q + half, x), 0, 1)


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Agresti & Coull 1998; Brown, Cai & DasGupta 2001, section 3.1.1).

    Raises ValueError unless 0 <= correct <= total > 0.
    """
    if total <= 0 or not 0 <= correct <= total:
        raise ValueError(f"{correct} correct of {total} images is no accuracy")
    low, high = agresti_coull(np.asarray(correct / total), np.asarray(Z_95**2 / total))
    return float(low), float(high)


def grouped_interval(correct: np.ndarray, groups: Groups) -> tuple[float, float]:
    """Return the 95 % interval of one model's accuracy, bool (images,).

    With too few groups to estimate their correlation it is taken for 1: each group counts as one image.
    """
    if groups.are_single:
        return accuracy_interval(int(correct.sum()), len(correct))
    if has_interval(groups):
        low, high = score_bounds(components(correct[None], groups), groups)
    else:
        low, high = agresti_coull(correct.mean(), np.asarray(Z_95**2 * groups.weighted_size / groups.images))
    return float(low), float(high)


def macro_f1_interval(labels: np.ndarray, predicted: np.ndarray, groups: Groups) -> tuple[float, float]:
    """Return the 95 % interval of one model's macro F1; NaN for too few groups."""
    if not has_interval(groups):
        return math.nan, math.nan
    _, low, high = macro_f1_bounds(np.asarray(labels), np.asarray(predicted), groups)
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
    return spread(parts, groups, photos, photo_df)


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
