"""Several objectives: the Pareto front, and the winner by the file's rule."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from orchestrator.errors import NoWinner
from orchestrator.evaluation.selection import Candidate, SelectionRule, choose, pareto_front
from orchestrator.objectives import OBJECTIVES

BOTH = ("val_accuracy", "images_per_s")


def candidate(id: str, accuracy: float, speed: float = math.nan, **more: Any) -> Candidate:
    values: dict[str, Any] = {"state": "COMPLETED", "val_loss": 0.3, **more}
    return Candidate(id, id, epochs_done=3, epochs_full=3, val_accuracy=accuracy, images_per_s=speed, **values)


FOUR = [candidate("a", 0.95, 10), candidate("b", 0.93, 60), candidate("c", 0.92, 55), candidate("d", 0.80, 400)]


def test_the_front_leaves_out_what_another_beats() -> None:
    for order in itertools.permutations(FOUR):
        assert [c.id for c in pareto_front(order, BOTH)] == ["a", "b", "d"]
    lower = pareto_front([candidate("x", 0.9, val_loss=0.2), candidate("y", 0.9, val_loss=0.1)], ("val_loss",))
    assert [c.id for c in lower] == ["y"]


def test_the_front_looks_at_whole_trials_with_every_figure() -> None:
    others = [
        candidate("p", 0.99, 500, state="PRUNED"),
        candidate("n", 0.99),
        candidate("m", math.nan, 500),
        candidate("same", 0.95, 10),
    ]
    assert [c.id for c in pareto_front([*FOUR, *others], BOTH)] == ["a", "same", "b", "d"]
    assert pareto_front([], BOTH) == ()


RULES = [
    (SelectionRule(), "a"),
    (SelectionRule(at_least={"images_per_s": 50}), "b"),
    (SelectionRule(at_least={"images_per_s": 60}), "b"),
    (SelectionRule(best="images_per_s", at_least={"val_accuracy": 0.92}), "b"),
    (SelectionRule(best="images_per_s"), "d"),
    (SelectionRule(at_least={"images_per_s": 100, "val_accuracy": 0.5}), "d"),
]


@pytest.mark.parametrize(("rule", "winner"), RULES)
def test_the_rule_picks(rule: SelectionRule, winner: str) -> None:
    for order in itertools.permutations(FOUR):
        assert choose(order, rule=rule).winner.id == winner


def test_a_bound_from_above_and_the_lowest_loss() -> None:
    three = [candidate(name, 0.9, val_loss=loss) for name, loss in (("x", 0.5), ("y", 0.3), ("z", math.nan))]
    assert choose(three, rule=SelectionRule(best="val_loss")).winner.id == "y"
    assert [c.id for c in choose(three, 9, SelectionRule(at_most={"val_loss": 0.5})).runners_up] == ["x"]


def test_runners_up_lie_within_the_bounds_too() -> None:
    found = choose(FOUR, runners_up=9, rule=SelectionRule(at_least={"images_per_s": 50}))
    assert [c.id for c in found.runners_up] == ["c", "d"]


REASONS = [
    (
        SelectionRule(at_least={"images_per_s": 50}),
        "b has the highest validation accuracy of the 3 that are within the bounds (at least 50.0 images/s), of 4 "
        "trials, all COMPLETED at full budget: 93.00 % at 60.0 images/s; the runner-up c has 92.00 % at 55.0 images/s.",
    ),
    (
        SelectionRule(best="images_per_s", at_least={"val_accuracy": 0.95}),
        "a has the highest speed of the 1 that is within the bounds (at least 95.00 % validation accuracy), of 4 "
        "trials, all COMPLETED at full budget: 10.0 images/s at 95.00 % validation accuracy.",
    ),
    (
        SelectionRule(best="val_loss"),
        "a has the lowest validation loss of 4 trials, all COMPLETED at full budget: 0.3000; the runner-up b has "
        "0.3000, and loss and cost tie too, so the smaller id decides.",
    ),
]


@pytest.mark.parametrize(("rule", "sentence"), REASONS)
def test_the_reason_names_the_rule(rule: SelectionRule, sentence: str) -> None:
    assert choose(FOUR, rule=rule).reason == sentence


NO_WINNER = [
    (
        FOUR,
        SelectionRule(at_least={"images_per_s": 500}),
        "there is no winner: none of 4 trials COMPLETED at full budget has at least 500 images/s; d comes nearest, "
        "with 400 images/s and 80.00 % validation accuracy. Relax final.choose and continue with `--resume`, or add "
        "trials with `--resume --trials +N`.",
    ),
    (
        [candidate("a", 0.9), candidate("b", 0.8)],
        SelectionRule(at_least={"images_per_s": 5}),
        "there is no winner: none of 2 trials COMPLETED at full budget has at least 5.0 images/s, because images_per_s "
        "was not measured in this sweep. Remove its bound from final.choose and continue with `--resume`, or start "
        "another sweep.",
    ),
    (
        [candidate("a", 0.9)],
        SelectionRule(best="images_per_s"),
        "there is no winner: none of the 1 COMPLETED trials within the bounds has a speed; name another figure in "
        "final.choose.best and continue with `--resume`.",
    ),
    (
        [candidate("a", 0.9, 10), candidate("b", 0.5, 95)],
        SelectionRule(at_least={"images_per_s": 100, "val_accuracy": 0.8}),
        "there is no winner: none of 2 trials COMPLETED at full budget has at least 100 images/s and at least 80.00 % "
        "validation accuracy; b comes nearest, with 95.0 images/s and 50.00 % validation accuracy. Relax",
    ),
]


@pytest.mark.parametrize(("candidates", "rule", "sentence"), NO_WINNER)
def test_no_trial_within_the_bounds_is_a_sentence(
    candidates: list[Candidate], rule: SelectionRule, sentence: str
) -> None:
    with pytest.raises(NoWinner) as error:
        choose(candidates, rule=rule)
    assert str(error.value).startswith(sentence)


def test_a_reason_counts_the_images_of_all_folds() -> None:
    found = choose([candidate("a", 0.9, val_correct=90, val_total=100, folds=5)])
    assert found.reason.startswith("a wins with 90.00 % (90 of 100 images in 5 folds) on validation")


def test_every_objective_can_be_asked_of_a_candidate() -> None:
    one = candidate("a", 0.9, 7, val_macro_f1=0.8)
    assert [one.value(name) for name in OBJECTIVES] == [0.9, 0.8, 0.3, 7]
    shown = [row.show(one.value(name)) for name, row in OBJECTIVES.items()]
    assert shown == ["90.00 %", "80.00 %", "0.3000", "7.0 images/s"]
