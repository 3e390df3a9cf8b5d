"""State derived from events."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import (
    Event,
    EventKind,
    read_events,
)
from orchestrator.ledger.state import TrialState, derive, trials_frame
from tests.support.ledgers import CONFIG, create, metrics, run_whole_trial


def test_the_state_of_trials_is_derived(tmp_path: Path) -> None:
    clock = iter(range(100, 200))
    with Ledger(tmp_path / "ledger", clock=lambda: float(next(clock))) as ledger:
        ledger.append(EventKind.SWEEP, state="OPENED")
        run_whole_trial(ledger, "a")
        create(ledger, "b", number=2)
        ledger.append(EventKind.TRIAL, trial="b", state="RUNNING", attempt=1)
        ledger.append(EventKind.EPOCH, trial="b", epoch=1, **metrics(0.7))
        ledger.append(EventKind.TRIAL, trial="b", state="PENDING", reason="retry 1 of 2 after: it died")
        ledger.append(EventKind.STAGE, stage="search", state="BEGUN", payload={"trials": 2})
        state = derive(ledger.events())
    a, b = state.trials["a"], state.trials["b"]
    assert (a.state, a.number, a.name, a.stage, a.config) == (TrialState.COMPLETED, 1, "a", "search", CONFIG)
    assert (a.created_s, a.started_s, a.ended_s) == (101.0, 102.0, 105.0)
    assert (a.val_accuracy, a.attempts, a.log) == (0.2, 1, "logs/a.log")
    assert [epoch["epoch"] for epoch in a.epochs] == [1, 2]
    assert (b.state, b.reason, b.epochs, b.attempts) == (TrialState.PENDING, "retry 1 of 2 after: it died", (), 1)
    assert math.isnan(b.val_accuracy)
    assert state.stages == {"search": {"trials": 2, "state": "BEGUN"}}
    assert state.counts() == {"PENDING": 1, "COMPLETED": 1}


def test_a_retry_from_a_checkpoint_keeps_the_epochs_before_it(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        create(ledger, "a")
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING", attempt=1)
        for epoch in (1, 2, 3):
            ledger.append(EventKind.EPOCH, trial="a", epoch=epoch, **metrics(epoch / 10))
        ledger.append(EventKind.TRIAL, trial="a", state="PENDING", epoch=2)
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING", attempt=2)
        ledger.append(EventKind.EPOCH, trial="a", epoch=3, **metrics(0.9))
        record = derive(ledger.events()).trials["a"]
    assert [epoch["val_accuracy"] for epoch in record.epochs] == [0.1, 0.2, 0.9]
    assert record.attempts == 2


FINAL = [state for state in TrialState if state.is_final]


@pytest.mark.parametrize("final", FINAL)
@pytest.mark.parametrize("after", list(TrialState))
def test_a_final_state_never_changes(tmp_path: Path, final: TrialState, after: TrialState) -> None:
    assert [str(state) for state in FINAL] == ["COMPLETED", "PRUNED", "STOPPED", "FAILED"]
    with Ledger(tmp_path / "ledger") as ledger:
        create(ledger, "a")
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING")
        ledger.append(EventKind.TRIAL, trial="a", state=str(final))
        with pytest.raises(OrchError, match=f"trial a cannot go from {final} to {after}"):
            ledger.append(EventKind.TRIAL, trial="a", state=str(after))
        with pytest.raises(OrchError, match=f"trial a is {final} and cannot report an epoch"):
            ledger.append(EventKind.EPOCH, trial="a", epoch=1)
        events = ledger.events()
    assert len(events) == 3
    bad = Event(seq=4, time_s=0.0, kind="TRIAL", trial="a", state=str(after))
    with pytest.raises(OrchError, match="event 4"):
        derive([*events, bad])


@pytest.mark.parametrize(
    ("before", "after"),
    [([], "RUNNING"), (["PENDING"], "COMPLETED"), (["PENDING"], "PAUSED"), (["PENDING", "RUNNING"], "RUNNING")],
)
def test_other_illegal_changes_are_refused(tmp_path: Path, before: list[str], after: str) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        for state in before:
            ledger.append(EventKind.TRIAL, trial="a", state=state)
        with pytest.raises(OrchError, match="cannot go from"):
            ledger.append(EventKind.TRIAL, trial="a", state=after)


def test_trials_frame_has_a_column_for_each_field_of_a_configuration(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        run_whole_trial(ledger, "a")
        create(ledger, "b", number=2)
        frame = trials_frame(derive(ledger.events()))
    assert frame["id"].tolist() == ["a", "b"]
    assert frame["state"].tolist() == ["COMPLETED", "PENDING"]
    assert frame["epochs"].tolist() == [2, 0]
    assert frame["config_dropout"].tolist() == [0.2, 0.2]
    assert frame.loc[0, "val_accuracy"] == 0.2
    assert frame.loc[0, "seconds"] == pytest.approx(0.3)
    assert math.isnan(frame.loc[1, "val_accuracy"])
    json.loads(frame.to_json())


def test_each_fold_is_kept_apart_from_the_trials_own_figures(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        create(ledger, "a")
        ledger.append(EventKind.TRIAL, trial="a", state="RUNNING", attempt=1)
        for epoch in (1, 2):
            for fold in (1, 2, 3):
                value = epoch / 10 + fold / 100
                ledger.append(EventKind.EPOCH, trial="a", epoch=epoch, fold=fold, val_accuracy=value)
            ledger.append(EventKind.EPOCH, trial="a", epoch=epoch, **metrics(epoch / 10 + 0.02))
        ledger.append(EventKind.EPOCH, trial="a", epoch=3, fold=1, val_accuracy=0.9)  # killed before the others
        record = derive(ledger.events()).trials["a"]
        assert [epoch["epoch"] for epoch in record.epochs] == [1, 2]
        assert record.val_accuracy == pytest.approx(0.22)
        assert record.fold_val_accuracy == pytest.approx((0.21, 0.22, 0.23))
        ledger.append(EventKind.TRIAL, trial="a", state="PENDING", epoch=1)  # a new attempt from epoch 1 on
        record = derive(ledger.events()).trials["a"]
        assert record.fold_val_accuracy == pytest.approx((0.11, 0.12, 0.13))
        assert len(record.folds) == 3
    assert derive(read_events(tmp_path / "ledger")).trials["a"] == record
    assert trials_frame(derive(read_events(tmp_path / "ledger")))["val_accuracy"].tolist() == pytest.approx([0.12])
