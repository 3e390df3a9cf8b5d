"""Calibration: its error, the temperature that lowers it, and thresholds for a wanted precision. Pure numpy.

The error is given as measured, for a perfectly calibrated model, and with its bias removed. Temperature and thresholds
are fitted on validation; ``trainers.calibration`` applies them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.evaluation.intervals import grouped_interval
from orchestrator.evaluation.variance import Groups, photos_in_words
from trainers.calibration import SMALLEST, Calibration, Level, certainty, tempered
from trainers.metrics import log_loss

ECE_BINS = 15
"""Number of confidence bins of the expected calibration error."""
COOLEST, WARMEST = 0.1, 10.0
"""Bounds of the temperature."""
FEWEST_OBJECTS = 50
"""Minimum number of objects (photos that are no copies of one another) to fit a temperature to: its standard error is
then about a sixth of it."""
LEVELS = 10
"""Number of thresholds tried: those that answer 1, 2, ... tenths of the validation photos, the last all of them."""
RISK = 0.05
"""Probability that the true precision of a chosen threshold is below the wanted one."""
WANTED = (0.8, 0.9, 0.95, 0.98, 0.99)
"""Precisions for which coverage and precision on test are shown."""


@dataclass(frozen=True)
class CalibrationError:
    """``measured``: the expected calibration error. ``floor``: what a perfectly calibrated model with these confidences
    would show on as many images. ``debiased``: ``measured`` minus its estimated bias, at least 0."""

    measured: float
    floor: float
    debiased: float


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS) -> CalibrationError:
    """Return the calibration error of the highest probability; ``probabilities`` (images, classes), labels (images,).

    ``measured`` is the sum over bins of n_m/n |accuracy(B_m) - confidence(B_m)| (Guo et al. 2017, eq. 3); bin m holds
    ((m - 1)/bins, m/bins]. ``floor`` replaces the number of hits in bin m by Binomial(n_m, confidence(B_m)), whose mean
    absolute deviation is known (de Moivre; Diaconis & Zabell 1991). ``debiased`` = measured - (E R - measured), where
    R is measured again on accuracies drawn from Normal(a_m, a_m (1 - a_m)/n_m) (Kumar, Liang & Ma 2019, section 5);
    its expectation is a folded normal's. Photos count as independent.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, hits = p.max(axis=1), p.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    used = counts > 0
    n = counts[used]
    stated = np.bincount(index, weights=confidence, minlength=bins)[used] / n
    right = np.bincount(index, weights=hits, minlength=bins)[used] / n
    weights = n / len(confidence)
    measured = float((weights * np.abs(right - stated)).sum())
    floor = float((weights * _binomial_deviation(n, np.minimum(stated, 1.0)) / n).sum())
    again = float((weights * _folded_mean(right - stated, np.sqrt(right * (1 - right) / n))).sum())
    return CalibrationError(measured, floor, max(0.0, 2 * measured - again))


def _binomial_deviation(n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return E |X - np| of X ~ Binomial(n, p): 2 k C(n, k) p^k (1 - p)^(n - k + 1), k = floor(np) + 1."""
    from scipy.special import gammaln, xlog1py, xlogy  # SciPy: a second to import

    k = np.minimum(np.floor(n * p) + 1, n)
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.asarray(2 * k * np.exp(ways + xlogy(k, p) + xlog1py(n - k + 1, -p)))


def _folded_mean(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return E |X| of X ~ Normal(mean, deviation^2)."""
    from scipy.special import ndtr  # SciPy: a second to import

    scaled = np.divide(mean, deviation, out=np.full_like(mean, 40.0), where=deviation > 0)
    density = np.exp(-(scaled**2) / 2) * np.sqrt(2 / np.pi)
    return np.where(deviation > 0, deviation * density + mean * (2 * ndtr(scaled) - 1), np.abs(mean))


@dataclass(frozen=True, eq=False)
class LabelledAnswers:
    """A model's answers, before calibration: (photos, classes); their labels, int (photos,), and groups."""

    probabilities: np.ndarray
    labels: np.ndarray
    groups: Sequence[str]

    @property
    def hits(self) -> np.ndarray:
        return np.asarray(self.probabilities.argmax(1) == self.labels)


def calibrate(validation: LabelledAnswers | None, chosen_among: int = 1) -> tuple[Calibration, str]:
    """Fit temperature and thresholds to answers on validation, None if there are none.

    ``chosen_among``: number of trials that these photos chose the model from. Returns both, and a
    sentence if the temperature stays 1. Accuracy does not change: neither is looked for there.
    """
    if validation is None or not len(validation.labels):
        return Calibration(), "there are no validation photos to fit a temperature to"
    temperature, why = 1.0, ""
    objects, hits = Groups.of(validation.groups, len(validation.labels)).count, validation.hits
    if objects < FEWEST_OBJECTS:
        why = f"{photos_in_words(len(hits), objects)} are too few to fit a temperature to, which takes {FEWEST_OBJECTS}"
    elif hits.all():
        why = f"all of {len(hits):,} validation photos are answered correctly, which says nothing about a temperature"
    else:
        temperature = fit_temperature(validation.probabilities, validation.labels)
    confidence = certainty(tempered(np.asarray(validation.probabilities, np.float64), temperature))
    levels = precision_levels(confidence, hits, validation.groups, chosen_among)
    return Calibration(temperature, levels, len(hits)), why


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the T of p^(1/T), normalised, with the lowest negative log likelihood (Guo et al. 2017, section 4.2).

    The loss is convex in 1/T: with z = log p its slope is the sum over photos of E z - z_label, E over the tempered
    probabilities. Its root by bisection, between ``COOLEST`` and ``WARMEST``.
    """
    z = np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST))
    true = z[np.arange(len(labels)), labels]

    def slope(sharpness: float) -> float:
        return float(((tempered(probabilities, 1 / sharpness) * z).sum(1) - true).sum())

    low, high = 1 / WARMEST, 1 / COOLEST
    if slope(low) >= 0 or slope(high) <= 0:
        return WARMEST if slope(low) >= 0 else COOLEST
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / low


def precision_levels(
    confidence: np.ndarray, hits: np.ndarray, groups: Sequence[str], chosen_among: int = 1
) -> tuple[Level, ...]:
    """Return the thresholds by which a wanted precision can be reached, by falling coverage.

    ``confidence``: the highest calibrated probability, (photos,); ``hits``: bool (photos,). Fixed sequence testing of
    Learn then Test (Angelopoulos et al. 2021, arXiv 2110.01052, section 3.2) for the precision of selective
    classification (Geifman & El-Yaniv 2017): for a wanted precision the thresholds that answer 1, 2, ... tenths of the
    photos are tried in that order, from the first at which one mistake is allowed, until the exact lower bound
    (Clopper & Pearson 1934) of one falls below it; the last before is chosen. So the chosen one's true precision is
    below the wanted with probability ``RISK``. The best of k trials looks better on these photos than it is, so each
    bound of a model that was ``chosen_among`` k has the risk ``RISK`` / k (Bonferroni). Photos of a group count as if
    all were answered alike: n is (sum m_g)^2 / sum m_g^2 (Kish 1965).
    """
    tried, allowed = list[Level](), list[float]()
    falling, risk = np.sort(confidence)[::-1], RISK / chosen_among
    for tenths in range(1, LEVELS + 1):
        threshold = 0.0 if tenths == LEVELS else float(falling[math.ceil(tenths * len(falling) / LEVELS) - 1])
        answered = confidence >= threshold
        own = Groups.of(np.asarray(groups)[answered], int(answered.sum()))
        photos, right = own.images / own.weighted_size, float(hits[answered].mean())
        tried.append(Level(threshold, float(answered.mean()), right, _exact_lower_bound(right * photos, photos, risk)))
        allowed.append(_exact_lower_bound(photos - 1, photos, risk))
    return _reachable(tried, allowed)


def _reachable(tried: Sequence[Level], allowed: Sequence[float]) -> tuple[Level, ...]:
    """Return the levels that are chosen for some wanted precision, each with the highest such as its ``lower``.

    ``tried``: by rising coverage. ``allowed``: the bound of each, had it one mistake.
    """
    found: dict[float, Level] = {}
    for wanted in sorted(level.lower for level in tried):
        start = next((i for i, bound in enumerate(allowed) if bound >= wanted), len(tried) - 1)
        failed = next((i for i in range(start, len(tried)) if tried[i].lower < wanted), len(tried))
        if failed > start:
            chosen = tried[failed - 1]
            found[chosen.threshold] = dataclasses.replace(chosen, lower=wanted)
    return tuple(found[threshold] for threshold in sorted(found))


def _exact_lower_bound(right: float, photos: float, risk: float) -> float:
    """Return Clopper & Pearson's one-sided bound at ``risk``, for any real numbers of photos."""
    from scipy.special import betaincinv  # SciPy: a second to import

    return float(betaincinv(right, photos - right + 1, risk)) if right > 0 else 0.0


def effect_on_test(calibration: Calibration, test: LabelledAnswers) -> dict[str, Any]:
    """Return what calibration changes on test, as JSON values.

    ``before`` and ``after`` the temperature: ``log_loss``, ``ece``, ``ece_floor``, ``ece_debiased``. ``wanted``: for
    each precision of ``WANTED`` the ``threshold`` (None if out of reach), and on test ``photos`` answered,
    ``coverage``, ``precision_on_test`` with its 95 % interval ``low`` to ``high``, None if nothing is answered.
    """
    after = calibration.apply(np.asarray(test.probabilities, np.float64))
    wanted = []
    for precision in WANTED:
        level, row = calibration.reached(precision), dict[str, Any]({"precision": precision, "threshold": None})
        if level is not None:
            answered = certainty(after) >= level.threshold
            row |= {"threshold": level.threshold, "photos": int(answered.sum()), "coverage": float(answered.mean())}
            row |= _share(test.hits[answered], np.asarray(test.groups)[answered])
        wanted.append(row)
    return {
        "before": _figures(test.probabilities, test.labels),
        "after": _figures(after, test.labels),
        "wanted": wanted,
        "highest": calibration.highest,
    }


def _share(hits: np.ndarray, groups: np.ndarray) -> dict[str, float | None]:
    if not len(hits):
        return {"precision_on_test": None, "low": None, "high": None}
    low, high = grouped_interval(hits, Groups.of(groups, len(hits)))
    return {"precision_on_test": float(hits.mean()), "low": low, "high": high}


def _figures(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    error = calibration_error(probabilities, labels)
    return {
        "log_loss": log_loss(np.asarray(probabilities, np.float64), labels),
        "ece": error.measured,
        "ece_floor": error.floor,
        "ece_debiased": error.debiased,
    }


def calibration_lines(facts: Mapping[str, Any] | None) -> list[str]:
    """Return sentences on the winner's calibration, as the leaderboard recorded it; [] for older sweeps. Pure."""
    if facts is None:
        return []
    before, after, why = facts["before"], facts["after"], facts["reason"]
    if why:
        first = f"The winner's probabilities are as its networks give them (temperature 1): {why}."
    else:
        first = (
            f"Temperature {facts['temperature']:.3f}, fitted on {facts['source']}: on test the winner's ECE changes "
            f"from {100 * before['ece_debiased']:.1f} to {100 * after['ece_debiased']:.1f} % (without its bias), its "
            f"log loss from {before['log_loss']:.3f} to {after['log_loss']:.3f}. No answer changes; the table's rows "
            "are before it."
        )
    reached = [row for row in facts["wanted"] if row["threshold"] is not None]
    lines = [first, *map(_wanted_line, reached)]
    if len(reached) < len(facts["wanted"]) and facts["levels"]:
        which = "Higher precisions are" if reached else f"A precision of {100 * WANTED[0]:g} % is"
        most = math.floor(1000 * facts["highest"]) / 10  # down, so that it can be asked for
        which = f"{which} out of reach: with 95 % confidence, {facts['photos']:,} validation photos show at most"
        lines.append(f"{which} {most:.1f} %.")
    return lines


def _wanted_line(row: Mapping[str, Any]) -> str:
    asked = f"Precision {100 * row['precision']:g} % wanted, threshold {row['threshold']:.3f}: on test"
    if row["precision_on_test"] is None:
        return f"{asked} no photo is answered."
    return (
        f"{asked} {100 * row['coverage']:.1f} % of the photos are answered ({row['photos']:,}), "
        f"{100 * row['precision_on_test']:.1f} % of them correctly "
        f"({100 * row['low']:.1f}\N{EN DASH}{100 * row['high']:.1f})."
    )
