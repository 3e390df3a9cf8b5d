"""Selection of the winner and of its crop policy, with reasons."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import NoWinner
from orchestrator.evaluation.selection import Candidate, choose


def candidate(
    id: str, accuracy: float, loss: float = 0.3, state: str = "COMPLETED", done: int = 10, **more
) -> Candidate:
    return Candidate(id, more.pop("name", id), state, done, 10, accuracy, loss, **more)


TABLE = [
    ("highest accuracy", [candidate("a", 0.90), candidate("b", 0.92)], "b"),
    ("lower loss on a tie", [candidate("a", 0.92, 0.3), candidate("b", 0.92, 0.2)], "b"),
    ("a loss that is no number loses the tie", [candidate("a", 0.92, math.nan), candidate("b", 0.92, 9.0)], "b"),
    ("cheaper on a tie of both", [candidate("a", 0.92, cost=2.0), candidate("b", 0.92, cost=1.0)], "b"),
    ("an unknown cost loses that tie", [candidate("a", 0.92), candidate("b", 0.92, cost=1e9)], "b"),
    ("the smaller id in the end", [candidate("b", 0.92), candidate("a", 0.92)], "a"),
    ("a better PRUNED one is not looked at", [candidate("a", 0.99, state="PRUNED", done=3), candidate("b", 0.5)], "b"),
    ("nor a STOPPED one with all its epochs", [candidate("a", 0.99, state="STOPPED"), candidate("b", 0.5)], "b"),
    ("nor a COMPLETED one below full budget", [candidate("a", 0.99, done=5), candidate("b", 0.5)], "b"),
    ("nor one without a figure", [candidate("a", math.nan), candidate("b", 0.5)], "b"),
    (
        "counts are the accuracy where they are known",
        [candidate("a", 0.99, val_correct=90, val_total=100), candidate("b", 0.5, val_correct=91, val_total=100)],
        "b",
    ),
]


@pytest.mark.parametrize(("candidates", "winner"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_winner(candidates, winner):
    for order in itertools.permutations(candidates):
        assert choose(order, runners_up=0).winner.id == winner


def test_runners_up_are_the_next_eligible_best_first():
    many = [candidate(str(i), 0.9 + i / 100) for i in range(5)] + [candidate("p", 0.99, state="PRUNED", done=2)]
    assert [c.id for c in choose(many, runners_up=2).runners_up] == ["3", "2"]
    assert [c.id for c in choose(many, runners_up=99).runners_up] == ["3", "2", "1", "0"]
    assert choose(many, runners_up=0).runners_up == ()


ACCURACIES = st.sampled_from([0.1, 0.5, 0.9, math.nan])
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        id=st.uuids().map(str),
        name=st.just(""),
        state=st.sampled_from(["COMPLETED", "PRUNED", "STOPPED", "FAILED", "RUNNING"]),
        epochs_done=st.integers(0, 3),
        epochs_full=st.just(2),
        val_accuracy=ACCURACIES,
        val_loss=st.sampled_from([0.1, 2.0, math.inf, math.nan]),
        cost=st.sampled_from([1.0, math.nan]),
    ),
    max_size=8,
    unique_by=lambda c: c.id,
)


@settings(deadline=None)
@given(CANDIDATES)
def test_no_eligible_candidate_beats_the_winner_and_order_does_not_matter(candidates):
    eligible = [c for c in candidates if c.state == "COMPLETED" and c.epochs_done >= 2 and c.val_accuracy > 0]
    if not eligible:
        with pytest.raises(NoWinner, match=r"^there is no winner"):
            choose(candidates)
        return
    chosen = choose(candidates, runners_up=len(candidates))
    assert chosen == choose(candidates[::-1], runners_up=len(candidates))
    assert {chosen.winner, *chosen.runners_up} == set(eligible)
    assert chosen.winner.val_accuracy == max(c.val_accuracy for c in eligible)


def test_the_reason_tells_the_figures():
    a = candidate("a1", 0.0, val_correct=465, val_total=495, name="deep")
    b = candidate("b2", 0.0, val_correct=463, val_total=495)
    lost = candidate("c3", 0.99, state="PRUNED", done=2)
    assert choose([a, b, lost]).reason == (
        "deep (a1) has the highest validation accuracy of 2 COMPLETED at full budget (3 trials in all): "
        "93.94 % (465 of 495 images); the runner-up b2 has 93.54 % (463 of 495 images), 2 images fewer. "
        "That is about 93.7 % after correcting for the choice among 2."
    )


def test_the_correction_is_stated_only_where_all_were_measured_on_the_same_images():
    a = candidate("a", 0.0, val_correct=465, val_total=495)
    assert "correcting" not in choose([a, candidate("b", 0.0, val_correct=90, val_total=100)]).reason
    assert "correcting" not in choose([a]).reason
    assert "after correcting for the choice among 3." in choose([a, *two_alike(a)]).reason


def two_alike(first):
    return [dataclasses.replace(first, id=name, name=name, val_correct=460) for name in ("x", "y")]


REASONS = [
    (
        [candidate("a", 0.9)],
        "a wins with 90.00 % on validation: it is the only one of 1 trial, COMPLETED at full budget.",
    ),
    (
        [candidate("a", 0.9, 0.25), candidate("b", 0.9, 0.5)],
        "a has the highest validation accuracy of 2 trials, all COMPLETED at full budget, 90.00 %, and b has the same; "
        "the tie goes to its lower validation loss, 0.2500 against 0.5.",
    ),
    (
        [candidate("a", 0.9, cost=1.0), candidate("b", 0.9, cost=2.0), candidate("c", 0.9)],
        "a has the highest validation accuracy of 3 trials, all COMPLETED at full budget, 90.00 %, and 2 others have "
        "the same; the losses tie too, and it is the cheaper one, 1 s against 2 s.",
    ),
    (
        [candidate("a", 0.9), candidate("b", 0.9)],
        "a has the highest validation accuracy of 2 trials, all COMPLETED at full budget, 90.00 %, and b has the same; "
        "loss and cost tie too, so the smaller id decides.",
    ),
]


@pytest.mark.parametrize(("candidates", "reason"), REASONS)
def test_the_reason_of_a_single_one_and_of_ties(candidates, reason):
    assert choose(candidates).reason == reason


NO_WINNER = [
    ([], "there is no winner: no trial was run. Start the search with `orch sweep FILE`."),
    (
        [candidate("a", 0.9, state="FAILED"), candidate("b", 0.9, state="FAILED")],
        "there is no winner: of 2 trials (2 FAILED) none was COMPLETED at full budget. See why with `orch show`, "
        "fix the cause and start again, or add trials with `--resume --trials +N`.",
    ),
    (
        [candidate("a", 0.9, state="STOPPED"), candidate("b", 0.9, state="PRUNED"), candidate("c", 0, state="PRUNED")],
        "there is no winner: of 3 trials (2 PRUNED, 1 STOPPED) none was COMPLETED at full budget. Raise "
        "`budget.hours` and continue with `--resume`.",
    ),
    (
        [candidate("a", 0.9, state="RUNNING"), candidate("b", 0.9, state="STOPPED")],
        "there is no winner: of 2 trials (1 RUNNING, 1 STOPPED) none was COMPLETED at full budget. The search is not "
        "over: continue it with `--resume`.",
    ),
    (
        [candidate("a", math.nan, state="PENDING", done=0), candidate("b", 0.9, state="STOPPED")],
        "there is no winner: of 2 trials (1 PENDING, 1 STOPPED) none was COMPLETED at full budget. Raise "
        "`budget.hours` and continue with `--resume`.",
    ),
    (
        [candidate("a", 0.9, done=3), candidate("b", math.nan)],
        "there is no winner: of 2 trials (2 COMPLETED) none was COMPLETED at full budget; the longest of the COMPLETED "
        "ran 3 of 10 epochs; 1 COMPLETED without a validation accuracy. Add trials with `--resume --trials +N`, or "
        "set a `budget.scheduler` that prunes less.",
    ),
]


@pytest.mark.parametrize(("candidates", "text"), NO_WINNER)
def test_no_winner_counts_the_states_and_says_what_to_do(candidates, text):
    with pytest.raises(NoWinner) as error:
        choose(candidates)
    assert str(error.value) == text
    assert error.value.exit_code == 5
