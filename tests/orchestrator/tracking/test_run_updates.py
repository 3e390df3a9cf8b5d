"""Ledger events become updates of MLflow's runs. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.ledger.naming import CARD, varied_fields
from orchestrator.ledger.segments import Event
from orchestrator.ledger.state import TrialState
from orchestrator.tracking.run_updates import (
    RUN_STATUS,
    leaderboard_update,
    plan_points,
    run_updates,
    spec_params,
    sweep_note,
)
from trainers.config import TrialConfig


def test_every_state_has_a_status() -> None:
    assert {state: RUN_STATUS[state] for state in TrialState} == {
        "PENDING": "SCHEDULED",
        "RUNNING": "RUNNING",
        "PAUSED": "RUNNING",
        "COMPLETED": "FINISHED",
        "PRUNED": "KILLED",
        "STOPPED": "KILLED",
        "FAILED": "FAILED",
    }


def test_an_epoch_becomes_points_and_what_is_not_a_number_does_not() -> None:
    event = Event(5, 10.5, "EPOCH", trial="a", epoch=3, rung=1, loss=0.25, val_loss=None, accuracy=float("inf"))
    (update,) = run_updates([event])
    assert [(p.key, p.value, p.time_ms, p.step) for p in update.points] == [("loss", 0.25, 10500, 3)]
    assert update.tags == {"orch.rung": "1", "orch.epoch": "3"}
    assert update.status == ""


def test_the_epochs_of_a_fold_have_names_of_their_own() -> None:
    (update,) = run_updates(
        [
            Event(1, 0.0, "EPOCH", trial="a", epoch=1, fold=2, val_accuracy=0.5),
            Event(2, 0.0, "EPOCH", trial="a", epoch=1, val_accuracy=0.6, train_images_per_s=900.0, images_per_s=80.0),
        ]
    )
    assert [(point.key, point.value) for point in update.points] == [
        *[("val_accuracy_fold_2", 0.5), ("val_accuracy", 0.6)],
        *[("train_images_per_s", 900.0), ("images_per_s", 80.0)],
    ]


def test_a_run_is_named_after_what_its_proposal_chose() -> None:
    config = TrialConfig(learning_rate=0.02, pooling="max", batch_size=64, output_stride=16, mixup=0.2).to_dict()
    chosen = {"learning_rate@1": 0.02, "batch_size": 64, "output_stride": 16, "mixup": 0.2}
    payload = {"config": config, "number": 4, "name": "", "proposal": {"ask": 4, "parameters": chosen, "skipped": []}}
    (update,) = run_updates([Event(1, 0.0, "TRIAL", trial="a", state="PENDING", payload=json.dumps(payload))])
    assert update.name == "004 mobilenet_1.0 lr=0.02 batch=64 stride=16 mixup=0.2"
    assert varied_fields({}) == CARD


def test_a_finished_sweep_names_its_winner() -> None:
    payload = json.dumps({"winner": {"trial": "abc", "policy": "flip", "reason": "the highest accuracy"}})
    (update,) = run_updates([Event(9, 1.0, "SWEEP", state="FINISHED", payload=payload)])
    assert update.status == "FINISHED"
    assert update.ended_ms == 1000
    assert update.tags["orch.winner"] == "abc"
    assert update.tags["orch.winner.policy"] == "flip"


@pytest.mark.parametrize(("state", "status"), [("", "RUNNING"), ("RESUMED", "RUNNING"), ("INTERRUPTED", "KILLED")])
def test_a_sweep_that_is_not_finished(state: str, status: str) -> None:
    (update,) = run_updates([Event(1, 1.0, "SWEEP", state=state)])
    assert update.status == status


events = st.builds(
    Event,
    seq=st.integers(1, 10**6),
    time_s=st.floats(0, 2e9),
    kind=st.sampled_from(["TRIAL", "EPOCH"]),
    trial=st.sampled_from(["a", "b"]),
    state=st.sampled_from(list(TrialState)).map(str),
    reason=st.text(max_size=5),
    epoch=st.integers(0, 9),
    loss=st.none() | st.floats(),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(events, max_size=12), st.integers(0, 12))
def test_where_a_batch_ends_changes_nothing(appended: list[Event], cut: int) -> None:
    def amount_to(batches: list[list[Event]]) -> dict[str, Any]:
        runs: dict[str, Any] = {}
        for batch in batches:
            for update in run_updates(batch):
                tags, points, end = runs.get(update.trial, ({}, (), ("", None)))
                end = (update.status, update.ended_ms) if update.status else end
                runs[update.trial] = ({**tags, **update.tags}, points + update.points, end)
        return runs

    assert amount_to([appended]) == amount_to([appended[:cut], appended[cut:]])


def test_spec_params_are_flat() -> None:
    spec = {"name": "x", "budget": {"trials": 3, "first": []}, "search": {"dropout": {"uniform": [0, 0.5]}}, "seed": 1}
    assert spec_params(spec) == {
        "name": "x",
        "budget.trials": "3",
        "budget.first": "[]",
        "search.dropout": '{"uniform": [0, 0.5]}',
        "seed": "1",
    }


def test_only_the_winners_row_becomes_metrics() -> None:
    winner = {"accuracy": 0.8, "ece": float("nan"), "ece_debiased": 0.02, "winner": True}
    update = leaderboard_update([{"accuracy": 0.9, "winner": False}, winner], 5)
    assert [(p.key, p.value) for p in update.points] == [("test_accuracy", 0.8), ("test_ece_debiased", 0.02)]


def test_the_note_has_the_leaderboard() -> None:
    note = sweep_note("digits", {"data.source": "builtin:digits"}, "| model |")
    assert "n: unfrozen_layers" in note
    assert "x: multiplier" in note
    assert note.startswith("# digits\n")
    assert "builtin:digits" in note
    assert note.endswith("| model |")


def test_other_notes_say_nothing_to_mlflow() -> None:
    assert plan_points(Event(seq=1, time_s=1.0, kind="NOTE", payload='{"override": "x"}')) == []
