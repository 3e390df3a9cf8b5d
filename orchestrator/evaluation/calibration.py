"""Calibration error: as measured, that of a perfectly calibrated model, and with its bias removed. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ECE_BINS = 15
"""Number of confidence bins of the expected calibration error."""


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
