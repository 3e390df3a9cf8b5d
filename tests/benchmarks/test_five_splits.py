"""The design of the comparison on five splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.training.five_splits import SPLITS, disjoint_splits, pooled


def test_test_parts_are_disjoint_stratified_and_divide_no_group():
    draw = np.random.default_rng(0)
    labels = np.sort(draw.choice(6, 2500, p=[0.24, 0.23, 0.19, 0.16, 0.12, 0.06]))
    groups = np.arange(2500)
    groups[1::25] = groups[0::25]  # a hundred pairs, some across classes
    found = disjoint_splits(labels, groups)
    tested = np.array([splits == "test" for splits in found])
    assert len(found) == SPLITS == 5
    assert tested.sum(0).max() == 1
    for splits in found:
        table = pd.DataFrame({"split": splits, "group": groups, "label": labels})
        assert table.groupby("group")["split"].nunique().max() == 1
        shares = pd.crosstab(table["label"], table["split"], normalize="index")
        assert shares["test"].to_numpy() == pytest.approx(0.15, abs=0.02)
        assert shares["validation"].to_numpy() == pytest.approx(0.15, abs=0.02)
    assert len({"".join(splits) for splits in found}) == 5


def test_pooled_figures_are_those_of_the_photos():
    right = pd.DataFrame({"split": np.repeat(np.arange(5), 100), "group": np.arange(500), "label": 1})
    base, candidate = right["group"] % 10 > 0, right["group"] % 20 > 0
    table = right.assign(predicted_base=base.astype(int), predicted_candidate=candidate.astype(int))
    lines = [*pooled(table)]
    assert lines[0] == "pooled: base 0.9000, candidate 0.9500, 500 photos"
    assert lines[1].startswith("difference +5.00 points, 95 % interval +3.")
    assert lines[2] == "by splits: +5.00 ± 0.00 points, t on 5 splits"
