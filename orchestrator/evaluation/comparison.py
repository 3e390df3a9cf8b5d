"""Compare final models with a baseline on the same test images. Pure numpy.

A configuration that was trained with several seeds is scored by the mean accuracy of its networks, the expectation for
one training run; an ensemble of them is a separate model with one prediction per image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.evaluation.leaderboard import PairedDifference, accuracy_interval, paired_difference

COLUMNS = (
    "model",
    "configuration",
    "networks",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "baseline",
)
RESAMPLES = 4_000
"""Number of bootstrap resamples."""
RESAMPLES_PER_CHUNK = 250
"""Number of resamples in memory at once."""
PERCENTILES = (2.5, 97.5)
"""Percentiles of the resamples that bound a 95 % interval."""


@dataclass(frozen=True)
class ScoredModel:
    """A model or a configuration; ``correct``: bool (networks, images), one row per network."""

    model: str
    configuration: str
    correct: np.ndarray


def compare_models(
    models: Sequence[ScoredModel], baseline: str, seed: int = 0, same_networks: bool = False
) -> pd.DataFrame:
    """Return one row per model with the columns ``COLUMNS``, the most accurate first.

    ``difference`` is the accuracy minus that of the model called ``baseline`` on the same images, as a fraction.
    Between single networks (or ensembles), interval and p come from ``paired_difference`` and generalise to other
    images. If either side has several networks, accuracy is their mean, and a bootstrap over images and networks with
    its own ``seed`` gives intervals (percentiles) and p (twice the smaller tail at 0), which also generalise to other
    training runs: they are wide if the seeds disagree. ``same_networks``: all models consist of the same networks in
    the same order (under several crop policies), which are then resampled jointly.

    Raises ValueError unless ``baseline`` is among the models and all have the same images.
    """
    by_name = {each.model: each for each in models}
    if baseline not in by_name or len(by_name) != len(models):
        raise ValueError(f"{baseline} must be one of the models, each named once; got {[m.model for m in models]}")
    if len({each.correct.shape[1] for each in models}) > 1 or not models[0].correct.size:
        raise ValueError(f"all models need the same images, at least 1; got {[m.correct.shape for m in models]}")
    base = by_name[baseline]
    if same_networks and len({len(each.correct) for each in models}) > 1:
        raise ValueError(f"all models need the same networks; got {[m.correct.shape for m in models]}")
    draws = _bootstrap(models, seed, same_networks) if any(len(each.correct) > 1 for each in models) else {}
    rows = []
    for each in models:
        hits = each.correct.mean(axis=0)
        if len(each.correct) > 1:
            low, high = np.clip(np.percentile(draws[each.model], PERCENTILES), 0, 1)
        else:
            low, high = accuracy_interval(int(each.correct.sum()), each.correct.shape[1])
        paired = PairedDifference(0.0, 0.0, 0.0, 1.0) if each is base else _paired(base, each, draws)
        facts = (each.model, each.configuration, len(each.correct), hits.mean(), low, high)
        rows.append((*facts, paired.difference, paired.low, paired.high, paired.p_value, each is base))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["accuracy", "model"], ascending=[False, True], kind="stable", ignore_index=True)


def _paired(base: ScoredModel, other: ScoredModel, draws: Mapping[str, np.ndarray]) -> PairedDifference:
    if len(base.correct) == len(other.correct) == 1:
        return paired_difference(base.correct[0], other.correct[0])
    gains = draws[other.model] - draws[base.model]
    low, high = np.percentile(gains, PERCENTILES)
    tail = (1 + min(int((gains <= 0).sum()), int((gains >= 0).sum()))) / (1 + len(gains))
    difference = float(other.correct.mean() - base.correct.mean())
    return PairedDifference(difference, float(low), float(high), min(1.0, 2 * tail))


def _bootstrap(models: Sequence[ScoredModel], seed: int, same_networks: bool) -> dict[str, np.ndarray]:
    """Return model -> accuracy in each of ``RESAMPLES`` resamples.

    All models share the resampled images; each resamples its own networks, or all share those too. Resampling S
    networks yields (S - 1) / S of their variance, too little for small S: weights are spread by sqrt(S / (S - 1))
    around 1 / S (Rao & Wu 1988, JASA 83, rescaled bootstrap). A single network has no spread.
    """
    draw, images = np.random.default_rng(seed), models[0].correct.shape[1]
    found: dict[str, list[np.ndarray]] = {each.model: [] for each in models}
    for start in range(0, RESAMPLES, RESAMPLES_PER_CHUNK):
        count = min(RESAMPLES_PER_CHUNK, RESAMPLES - start)
        shares = draw.multinomial(images, np.full(images, 1 / images), size=count) / images
        shared = _network_weights(draw, len(models[0].correct), count) if same_networks else None
        for each in models:
            weights = shared if shared is not None else _network_weights(draw, len(each.correct), count)
            accuracies = shares @ each.correct.T.astype(np.float64)
            found[each.model].append((weights * accuracies).sum(axis=1))
    return {model: np.concatenate(parts) for model, parts in found.items()}


def _network_weights(draw: np.random.Generator, networks: int, count: int) -> np.ndarray:
    """Return each network's weight in each of ``count`` resamples, float64 (count, networks); rows sum to 1."""
    even = np.full(networks, 1 / networks)
    weights = draw.multinomial(networks, even, size=count) / networks
    spread = np.sqrt(networks / (networks - 1)) if networks > 1 else 1.0
    return even + spread * (weights - even)
