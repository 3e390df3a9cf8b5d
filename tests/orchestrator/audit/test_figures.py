"""The audit's formulas and those of the leaderboard, which know nothing of each other, agree."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.audit import figures, intervals
from orchestrator.evaluation.leaderboard import ModelPredictions, rank
from orchestrator.evaluation.policy_choice import PolicyScore, choose_policy
from orchestrator.evaluation.selection import Candidate, SelectionRule, choose
from orchestrator.sweep.leaderboard import STATISTICS


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 60),
    st.integers(2, 5),
    st.integers(0, 10_000),
    st.sampled_from([0.2, 1.0, 8.0, 80.0]),
    st.sampled_from([1, 2, 7, "one pair"]),
)
def test_the_leaderboards_figures(photos: int, classes: int, seed: int, sharp: float, group_size: int | str) -> None:
    """From guesses to certainty, all right and all wrong included; independent photos, many objects and few."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, photos)
    objects = np.arange(photos).clip(1) if isinstance(group_size, str) else np.arange(photos) // group_size
    groups = [str(i) for i in draw.permutation(objects)]
    rows = {}
    for policy in ("whole", "flip"):
        logits = draw.normal(size=(photos, classes)) + sharp * np.eye(classes)[labels] * draw.choice([-1, 0, 1])
        powers = np.exp(logits - logits.max(1, keepdims=True))
        rows[policy] = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    models = [ModelPredictions("m", name, p, 2.0) for name, p in rows.items()]
    for recorded in rank(models, labels, ("m", "whole"), groups).to_dict("records"):
        own = rows[recorded["policy"]]
        found = figures.point_figures(own, rows["whole"], labels, 2.0)
        found |= figures.STATISTICS[STATISTICS](own, rows["whole"], labels, groups)
        assert found.keys() == {*figures.POINT_FIGURES, *intervals.INTERVAL_FIGURES}
        for name, value in found.items():
            assert figures.equal(recorded[name], value), (name, recorded[name], value)
        if group_size == 1:
            older = figures.STATISTICS[1](own, rows["whole"], labels, groups)
            assert older.keys() == {*figures.INTERVAL_FIGURES}
            second = figures.STATISTICS[2](own, rows["whole"], labels, groups)
            for name, value in older.items():
                assert figures.equal(second[name], value), (name, second[name], value)


@pytest.mark.parametrize(
    ("case", "expected"),
    [  # (photos, seed, photos an object), and what version 2 computed before there was a third
        ((60, 1, 1), (0.778212119758, 0.942322793599, -0.125563710073, 0.093305645557, 0.760384927032, 0.941458685131)),
        ((60, 2, 4), (0.686399773761, 0.936187154765, -0.129000362143, 0.16125842666, 0.679515730408, 0.935542614355)),
        ((45, 3, 5), (0.589756900928, 0.986501614816, *[math.nan] * 4)),
        ((30, 4, 7), (0.357257654015, 0.966426734776, *[math.nan] * 4)),
    ],
)
def test_sweeps_judged_with_version_2_have_its_figures(case: tuple[int, int, int], expected: tuple[float, ...]) -> None:
    photos, seed, size = case
    draw = np.random.default_rng(seed)
    labels, groups = draw.integers(0, 3, photos), [str(i // size) for i in range(photos)]
    rows = []
    for _ in range(2):
        powers = np.exp(draw.normal(size=(photos, 3)) + 2 * np.eye(3)[labels])
        rows.append((powers / powers.sum(1, keepdims=True)).astype(np.float32))
    found = figures.STATISTICS[2](rows[1], rows[0], labels, groups)
    names = [f"{name}_{side}" for name in ("accuracy", "difference", "macro_f1") for side in ("low", "high")]
    assert [found[name] for name in names] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_the_macro_f1_of_older_leaderboards_counts_the_classes_in_the_labels_alone() -> None:
    probabilities, labels = np.eye(3)[[0, 0, 1, 2]], np.array([0, 0, 1, 1])
    assert figures.older_macro_f1(probabilities, labels) == (1 + 2 / 3) / 2
    assert figures.point_figures(probabilities, probabilities, labels, 1.0)["macro_f1"] == (1 + 2 / 3) / 3


def test_a_photo_more_is_no_rounding() -> None:
    assert not figures.equal(0.5, 0.5 + 1e-6)
    assert figures.equal(math.nan, math.nan)
    assert not figures.equal(math.nan, 0.0)


ACCURACIES = st.sampled_from([0.5, 0.75, 0.8])
TRIALS = st.lists(
    st.tuples(ACCURACIES, st.sampled_from([0.3, 0.6, None]), st.sampled_from([1.0, 2.0, None])), min_size=1
)


@settings(deadline=None)
@given(TRIALS, st.sampled_from(["val_accuracy", "val_loss"]), st.sampled_from([{}, {"val_accuracy": 0.7}]))
def test_the_choice_of_a_trial(
    drawn: list[tuple[float, float | None, float | None]], best: str, least: dict[str, float]
) -> None:
    rows = [
        {"id": f"t{i}", "val_accuracy": accuracy, "val_loss": loss, "seconds": seconds}
        for i, (accuracy, loss, seconds) in enumerate(drawn)
    ]
    candidates = [
        Candidate(r["id"], "", "COMPLETED", 1, 1, r["val_accuracy"], _nan(r["val_loss"]), cost=_nan(r["seconds"]))
        for r in rows
    ]
    order = figures.best_trials(rows, best, least, {})
    if not order:
        assert not [r for r in rows if r["val_accuracy"] >= least.get("val_accuracy", 0) and r[best] is not None]
        return
    chosen = choose(candidates, len(rows), SelectionRule(best, least))
    assert order == [c.id for c in (chosen.winner, *chosen.runners_up)]


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


@settings(deadline=None)
@given(st.lists(st.sampled_from([1, 2, 10]), max_size=5), st.integers(0, 10_000), st.sampled_from([1, 3]))
def test_the_choice_of_a_policy(crops: list[int], seed: int, group_size: int) -> None:
    draw = np.random.default_rng(seed)
    names = {"whole": 1} | {f"p{i}": count for i, count in enumerate(crops)}
    correct = {name: draw.random(60) < draw.choice([0.5, 0.7, 0.9]) for name in names}
    groups = [str(i // group_size) for i in range(60)]
    scores = [PolicyScore(name, int(correct[name].sum()), 60, 0.1, count) for name, count in names.items()]
    chosen = choose_policy(scores, correct, groups).policy
    assert figures.POLICY_RULES[STATISTICS]([vars(score) for score in scores], correct, groups) == chosen


def test_the_older_choice_of_a_policy() -> None:
    rows = [("a", 7, 10), ("whole", 6, 1), ("b", 7, 2)]
    scores = [{"policy": n, "correct": r, "total": 10, "log_loss": 0.1, "crops": c} for n, r, c in rows]
    assert figures.POLICY_RULES[1](scores, {}, []) == "b"


@pytest.mark.parametrize("name", [*figures.STATISTICS])
def test_every_version_has_a_rule_for_the_policy(name: int) -> None:
    assert name in figures.POLICY_RULES
