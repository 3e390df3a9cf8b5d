"""Compare models with a baseline: figures, intervals, refusals. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.evaluation.comparison import COLUMNS, ScoredModel, compare_models
from orchestrator.evaluation.intervals import paired_difference
from tests.support.random_hits import right


def row_of(frame: pd.DataFrame, model: str) -> dict[str, Any]:
    return frame[frame["model"] == model].iloc[0].to_dict()


def test_single_networks_have_the_exact_figures() -> None:
    a, b = right(0.7, 1), right(0.8, 2)
    frame = compare_models([ScoredModel("a", "", a), ScoredModel("b", "named", b)], "a")
    assert tuple(frame.columns) == COLUMNS
    assert frame["model"].tolist() == ["b", "a"]
    found, expected = row_of(frame, "b"), paired_difference(a[0], b[0])
    assert (found["difference"], found["difference_low"], found["difference_high"], found["p_value"]) == (
        expected.difference,
        expected.low,
        expected.high,
        expected.p_value,
    )
    base = row_of(frame, "a")
    assert (base["difference"], base["p_value"], base["baseline"], base["networks"]) == (0.0, 1.0, True, 1)


def test_several_seeds_are_a_mean_with_an_interval_over_images_and_seeds() -> None:
    steady, better = right(0.70, 1, 3), right(0.85, 2, 3)
    frame = compare_models([ScoredModel("a", "", steady), ScoredModel("b", "", better)], "a")
    found = row_of(frame, "b")
    assert found["accuracy"] == pytest.approx(better.mean())
    assert found["difference"] == pytest.approx(better.mean() - steady.mean())
    assert 0.05 < found["difference_low"] < found["difference"] < found["difference_high"] < 0.25
    assert found["p_value"] < 0.01
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_seeds_that_disagree_widen_the_interval() -> None:
    """The same mean gain, once from seeds that agree and once from one lucky seed."""
    base = right(0.7, 1, 3)
    agree = np.stack([right(0.75, 10 + i)[0] for i in range(3)])
    differ = np.stack([right(share, 20 + i)[0] for i, share in enumerate((0.6, 0.75, 0.9))])
    frame = compare_models(
        [ScoredModel("a", "", base), ScoredModel("agree", "", agree), ScoredModel("differ", "", differ)], "a"
    )
    widths = {m: row_of(frame, m)["difference_high"] - row_of(frame, m)["difference_low"] for m in ("agree", "differ")}
    assert widths["differ"] > 2 * widths["agree"]
    assert row_of(frame, "differ")["p_value"] > 0.1


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """200 comparisons of configurations that are equal but for their seeds: 95 % of the intervals should hold 0."""
    draw, held = np.random.default_rng(0), 0
    for _ in range(200):
        ability = draw.random(100)  # how easy each image is
        seeds = 0.05 * draw.standard_normal(6)
        rows = np.stack([draw.random(100) < np.clip(ability + shift, 0, 1) for shift in seeds])
        found = row_of(compare_models([ScoredModel("a", "", rows[:3]), ScoredModel("b", "", rows[3:])], "a"), "b")
        held += found["difference_low"] <= 0 <= found["difference_high"]
    assert 0.91 <= held / 200 <= 1


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ValueError, match="c must be one of the models, each named once"):
        compare_models([ScoredModel("a", "", right(0.5, 1))], "c")
    with pytest.raises(ValueError, match="all models need the same images, at least 1"):
        compare_models([ScoredModel("a", "", right(0.5, 1)), ScoredModel("b", "", np.ones((1, 3), bool))], "a")


def test_the_same_networks_under_two_policies_are_drawn_together() -> None:
    whole = right(0.8, 1, 4)
    better = whole.copy()
    better[:, :20] = True  # the same few images in each network
    apart = row_of(compare_models([ScoredModel("whole", "", whole), ScoredModel("flip", "", better)], "whole"), "flip")
    together = row_of(
        compare_models([ScoredModel("whole", "", whole), ScoredModel("flip", "", better)], "whole", None, True), "flip"
    )
    width = [row["difference_high"] - row["difference_low"] for row in (together, apart)]
    assert together["difference"] == apart["difference"] > 0
    assert width[0] < width[1]
    with pytest.raises(ValueError, match="all models need the same networks"):
        compare_models([ScoredModel("whole", "", whole), ScoredModel("flip", "", better[:2])], "whole", None, True)
