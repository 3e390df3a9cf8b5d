"""Compare final models with a baseline on the same test images. Pure numpy.

A configuration that was trained with several seeds is scored by the mean accuracy of its networks, the expectation for
one training run; an ensemble of them is a separate model with one prediction per image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.evaluation.intervals import (
    PairedDifference,
    difference_bounds,
    difference_p,
    grouped_interval,
    has_interval,
    paired_difference,
    score_bounds,
)
from orchestrator.evaluation.variance import Groups, components, difference_components, gain_components

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


@dataclass(frozen=True)
class ScoredModel:
    """A model or a configuration; ``correct``: bool (networks, images), one row per network."""

    model: str
    configuration: str
    correct: np.ndarray


def compare_models(
    models: Sequence[ScoredModel],
    baseline: str,
    groups: Sequence[str] | None = None,
    same_networks: bool = False,
) -> pd.DataFrame:
    """Return one row per model with the columns ``COLUMNS``, the most accurate first.

    ``difference`` is the accuracy minus that of the model called ``baseline`` on the same images, as a fraction.
    ``groups``: each image's group, None if all are independent. Between single networks (or ensembles), interval and p
    come from ``paired_difference`` and generalise to other images. If either side has several networks, accuracy is
    their mean, and intervals and p also generalise to other training runs (``evaluation.intervals``): they are wide if
    the seeds disagree. ``same_networks``: all models consist of the same networks in the same order (under several
    crop policies), so that differences are taken within each. NaN: too few groups, or the mean of two networks.

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
    grouped = Groups.of(groups, models[0].correct.shape[1])
    rows = []
    for each in models:
        low, high = _mean_interval(each.correct, grouped)
        if each is base:
            paired = PairedDifference(0.0, 0.0, 0.0, 1.0)
        else:
            paired = _paired(base.correct, each.correct, grouped, same_networks)
        facts = (each.model, each.configuration, len(each.correct), each.correct.mean(), low, high)
        rows.append((*facts, paired.difference, paired.low, paired.high, paired.p_value, each is base))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.sort_values(["accuracy", "model"], ascending=[False, True], kind="stable", ignore_index=True)


def _mean_interval(correct: np.ndarray, groups: Groups) -> tuple[float, float]:
    if len(correct) == 1:
        return grouped_interval(correct[0], groups)
    if not has_interval(groups, len(correct) - 1):
        return math.nan, math.nan
    low, high = score_bounds(components(correct, groups), groups)
    return float(low), float(high)


def _paired(base: np.ndarray, other: np.ndarray, groups: Groups, same_networks: bool) -> PairedDifference:
    if len(base) == len(other) == 1:
        return paired_difference(base[0], other[0], groups)
    parts = gain_components(base, other, groups) if same_networks else difference_components(base, other, groups)
    difference = float(other.mean() - base.mean())
    if not has_interval(groups, parts.network_df):
        return PairedDifference(difference, math.nan, math.nan, math.nan)
    low, high = difference_bounds(parts, groups)
    return PairedDifference(difference, float(low), float(high), float(difference_p(parts, groups)))
