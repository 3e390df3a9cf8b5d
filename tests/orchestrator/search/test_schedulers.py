"""Ray's schedulers as they are built, wrapped and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from orchestrator.ledger.state import TrialState, derive
from orchestrator.search.schedulers import WatchedScheduler, build_scheduler, replay
from orchestrator.search.settings import SchedulerSettings
from tests.support.ledgers import curves

FACTORY = "tests.support.fake_trainer:open_fit"


def test_an_unknown_scheduler_names_the_known_ones() -> None:
    with pytest.raises(OrchError, match="no scheduler 'pbt'; known are asha, hyperband, median, none"):
        build_scheduler(SchedulerSettings("pbt"), 3)


def test_replay_leaves_out_given_up_attempts_and_unfinished_trials(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger") as ledger:
        curves(ledger, {"a": [0.5, 0.6, 0.7]})
        for trial in ("b", "c"):
            ledger.append(EventKind.TRIAL, trial=trial, state="PENDING")
            ledger.append(EventKind.TRIAL, trial=trial, state="RUNNING")
            ledger.append(EventKind.EPOCH, trial=trial, epoch=1, val_accuracy=0.1)
        ledger.append(EventKind.TRIAL, trial="b", state="PENDING")
        ledger.append(EventKind.TRIAL, trial="b", state="RUNNING")
        ledger.append(EventKind.EPOCH, trial="b", epoch=1, val_accuracy=0.4)
        ledger.append(EventKind.TRIAL, trial="b", state="FAILED")
        events = ledger.events()
    finished = {r.id: r.state for r in derive(events).trials.values() if r.state.is_final}
    scheduler = build_scheduler(SchedulerSettings("asha", 1, 3.0), 3)
    assert replay(scheduler, events, finished) == 4
    rungs = {rung: dict(recorded) for rung, recorded in scheduler._brackets[0]._rungs}
    assert rungs[1] == {"a": 0.5, "b": 0.4}
    assert replay(build_scheduler(SchedulerSettings("hyperband"), 3), events, finished) == 0


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_trial_that_an_earlier_driver_let_go_on_is_not_stopped_in_those_epochs(name: str) -> None:
    """Nine better ones came to the first rung since; what is decided anew is what comes after."""
    settings = SchedulerSettings(name, 1, 3.0)

    def shown(survived: int) -> list[str]:
        scheduler = WatchedScheduler(build_scheduler(settings, 27))
        for number in range(9):
            better = Trial("FitTrainable", trial_id=f"better-{number}", stub=True)
            scheduler.on_trial_add(None, better)
            for epoch in range(1, 10):
                scheduler.on_trial_result(None, better, {"epoch": epoch, "val_accuracy": 0.75, "repeated": False})
        trial = Trial("FitTrainable", trial_id="held", stub=True)
        scheduler.on_trial_add(None, trial)
        scheduler.survived["held"] = survived
        answers = []
        for epoch in range(1, 10):
            result = {"epoch": epoch, "val_accuracy": 0.5, "repeated": epoch <= 5}
            answers.append(scheduler.on_trial_result(None, trial, result))
            if answers[-1] == TrialScheduler.STOP:
                break
        assert scheduler.pruned == ({"held"} if answers[-1] == TrialScheduler.STOP else set())
        return answers

    assert shown(0) == [TrialScheduler.STOP]
    on, stop = TrialScheduler.CONTINUE, TrialScheduler.STOP
    assert shown(5) == {"asha": [on] * 8 + [stop], "median": [on] * 5 + [stop]}[name]


def test_a_scheduler_stops_the_higher_losses(tmp_path: Path) -> None:
    """asha, fed as a resumed search feeds it: of three trials at epoch 1 the one with the lowest loss goes on."""
    events: list[Event] = []
    for number, loss in enumerate((0.2, 0.9, 0.5)):
        about: dict[str, Any] = {"time_s": 0.0, "trial": str(number)}
        for fold in (1, 0):
            row = {"val_accuracy": 0.5} if fold else {"val_accuracy": 0.5, "val_loss": loss}
            events.append(Event(len(events) + 1, kind=EventKind.EPOCH, epoch=1, fold=fold, **row, **about))
        events.append(Event(len(events) + 1, kind=EventKind.TRIAL, state="PRUNED", epoch=1, **about))
    scheduler = build_scheduler(SchedulerSettings("asha", metric="val_loss"), 9)
    assert replay(scheduler, events, dict.fromkeys("012", TrialState.PRUNED), "val_loss") == 3
    decisions = [
        scheduler.on_trial_result(None, trial, {"epoch": 1, "val_loss": loss})
        for trial, loss in zip(_added(scheduler, "xy"), (0.1, 0.8), strict=True)
    ]
    assert decisions == ["CONTINUE", "STOP"]


def _added(scheduler: Any, names: str) -> list[Any]:
    from orchestrator.search.schedulers import _PastTrial

    trials = [_PastTrial(name) for name in names]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    return trials
