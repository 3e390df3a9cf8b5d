"""Final models against one of them, on the same test images: how much better, how sure. Pure numpy.

A configuration that was retrained with several seeds is judged by the mean accuracy of its networks, which is what
one training of it can be expected to give; an ensemble of them is a model of its own, with one answer an image.
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
RESAMPLES_AT_ONCE = 250
PERCENT = (2.5, 97.5)


@dataclass(frozen=True)
class ScoredModel:
    """One model, or one configuration: ``correct`` bool (networks, images), a row for each network it stands for."""

    model: str
    configuration: str
    correct: np.ndarray


def compare_models(
    judged: Sequence[ScoredModel], baseline: str, seed: int = 0, same_networks: bool = False
) -> pd.DataFrame:
    """One row for each of ``judged``, with the columns ``COLUMNS``; the most accurate first.

    ``difference`` is the accuracy minus that of the model called ``baseline`` on the same images, shares of 1.
    Between single networks (or ensembles) interval and p are ``paired_difference``'s: they speak of these networks on
    other images. Where either side has several networks, accuracy is their mean, and a bootstrap over images and
    networks alike (``seed`` is its own) gives intervals (percentiles) and p (twice the smaller tail at 0), so that both
    allow for what another training would change: they are wide where the seeds disagree. ``same_networks``: the rows of
    all are the same networks in the same order (under several crop policies), so that they are drawn together too.

    Raises ValueError unless ``baseline`` is one of them and all were judged on the same images.
    """
    by_name = {each.model: each for each in judged}
    if baseline not in by_name or len(by_name) != len(judged):
        raise ValueError(f"{baseline} must be one of the models, each named once; got {[j.model for j in judged]}")
    if len({each.correct.shape[1] for each in judged}) > 1 or not judged[0].correct.size:
        raise ValueError(f"all need the same images, at least 1; got {[j.correct.shape for j in judged]}")
    base = by_name[baseline]
    if same_networks and len({len(each.correct) for each in judged}) > 1:
        raise ValueError(f"the same networks stand for all; got {[j.correct.shape for j in judged]}")
    draws = _bootstrap(judged, seed, same_networks) if any(len(each.correct) > 1 for each in judged) else {}
    rows = []
    for each in judged:
        hits = each.correct.mean(axis=0)
        if len(each.correct) > 1:
            low, high = np.clip(np.percentile(draws[each.model], PERCENT), 0, 1)
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
    low, high = np.percentile(gains, PERCENT)
    tail = (1 + min(int((gains <= 0).sum()), int((gains >= 0).sum()))) / (1 + len(gains))
    difference = float(other.correct.mean() - base.correct.mean())
    return PairedDifference(difference, float(low), float(high), min(1.0, 2 * tail))


def _bootstrap(judged: Sequence[ScoredModel], seed: int, same_networks: bool) -> dict[str, np.ndarray]:
    """Model -> its accuracy in each of ``RESAMPLES`` resamples. All share the images drawn; each draws its networks,
    or all share those too.

    Resampling S networks gives (S - 1) / S of their variance, which matters for three: weights are spread by
    sqrt(S / (S - 1)) around 1 / S (Rao & Wu 1988, JASA 83, rescaled bootstrap). A single network has no spread.
    """
    draw, images = np.random.default_rng(seed), judged[0].correct.shape[1]
    found: dict[str, list[np.ndarray]] = {each.model: [] for each in judged}
    for start in range(0, RESAMPLES, RESAMPLES_AT_ONCE):
        count = min(RESAMPLES_AT_ONCE, RESAMPLES - start)
        shares = draw.multinomial(images, np.full(images, 1 / images), size=count) / images
        shared = _network_weights(draw, len(judged[0].correct), count) if same_networks else None
        for each in judged:
            weights = shared if shared is not None else _network_weights(draw, len(each.correct), count)
            accuracies = shares @ each.correct.T.astype(np.float64)
            found[each.model].append((weights * accuracies).sum(axis=1))
    return {model: np.concatenate(parts) for model, parts in found.items()}


def _network_weights(draw: np.random.Generator, networks: int, count: int) -> np.ndarray:
    """How much each network weighs in each of ``count`` resamples, float64 (count, networks); rows sum to 1."""
    even = np.full(networks, 1 / networks)
    weights = draw.multinomial(networks, even, size=count) / networks
    spread = np.sqrt(networks / (networks - 1)) if networks > 1 else 1.0
    return even + spread * (weights - even)
