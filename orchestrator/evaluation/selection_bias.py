"""The winner's validation figure, corrected for the choice among n trials. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GRID = 200
"""Number of accuracies at which the distribution of true accuracies may have mass."""
ITERATIONS = 2_000
"""Maximum steps of the EM algorithm."""
TOLERANCE = 1e-9
"""Change of the mean log likelihood at which it ends."""


def corrected_accuracy(accuracies: Sequence[float], images: int) -> float:
    """Return the expected true accuracy of the best of ``accuracies``, each measured on ``images`` images.

    Each is Binomial(images, true) / images, so a trial that collapsed to chance says nothing about the error of the
    best. The distribution of true accuracies is estimated from all by
    maximum likelihood without a form (Kiefer & Wolfowitz 1956; Koenker & Mizera 2014, JASA 109: EM on a grid), and the
    result is the posterior mean of the best, which does not depend on its having been chosen (Efron 2011, JASA 106).
    Equal trials give their mean; a trial far above all others its own figure. The photos are shared, so what the trials
    have in common of their error is not removed, and what differs is at most the variance assumed: the correction is
    rather too large than too small. At most the best accuracy; raises ValueError for none or no images.
    """
    seen = np.asarray(accuracies, dtype=np.float64)
    if not len(seen) or images < 1 or not np.isfinite(seen).all():
        raise ValueError(f"a corrected figure needs finite accuracies and images; got {len(seen)} on {images} images")
    best = float(seen.max())
    if best - seen.min() < 1e-12:
        return best
    grid = np.linspace(seen.min(), best, GRID)
    certain = np.clip(grid, 0.5 / images, 1 - 0.5 / images)
    fit = images * (seen[:, None] * np.log(certain) + (1 - seen[:, None]) * np.log1p(-certain))
    density = np.exp(fit - fit.max(axis=1, keepdims=True))
    shares = np.full(GRID, 1 / GRID)
    before = -np.inf
    for _ in range(ITERATIONS):
        joint = density * shares
        total = joint.sum(axis=1, keepdims=True)
        after = float(np.log(total).mean())
        shares = (joint / total).mean(axis=0)
        if after - before < TOLERANCE:
            break
        before = after
    weights = density[seen.argmax()] * shares
    return min(best, float((weights * grid).sum() / weights.sum()))
