"""How trials end in the ledger and for the source, why a search stops, and what is retried. A real, local Ray."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.air.execution._internal import event_manager

from orchestrator.cluster.memory_kills import PatienceSettings
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.state import TrialState, derive
from orchestrator.search import recorder
from orchestrator.search.run import run_trials
from orchestrator.search.sampling import OptunaSampler, SamplerSettings
from orchestrator.search.settings import SchedulerSettings, SearchOutcome, SearchSettings
from orchestrator.search.source import FixedTrials, TrialRequest
from orchestrator.spec.space.domains import Choice, Uniform
from orchestrator.spec.space.space import Case, Space
from tests.support.searches import most_at_once, notes, request_of, search, settings_of
from trainers.config import TrialConfig
from trainers.contract import FitJob

TROUBLE = {
    "diverge": ("diverged: the loss is nan in step 7 of epoch 2.", 1, 1),
    "nan": ("diverged: the loss was nan in epoch 2", 1, 1),
    "refuse": ("the fake trainer refuses epoch 2.", 1, 1),
    "refuse_open": ("the fake trainer refuses to open.", 1, 0),
    "memory": ("gave up after 2 attempts: out of memory (MemoryError: a fake tensor is too large)", 2, 1),
    "crash,at:1": (  # in epoch 2, whether epoch 1 was answered before depends on the machine
        "gave up after 2 attempts: its worker process died; native code crashed, "
        "or the system ended it for want of memory",
        2,
        0,
    ),
}


def test_a_failed_trial_says_why_and_the_search_goes_on(
    tmp_path: Path, ray_up: None, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*TROUBLE, "crash_once", "flips"]
    requests = [request_of(n, tmp_path, word) for n, word in enumerate(words)]
    outcome, state, source = search(tmp_path, requests, retries=1)
    assert outcome.states == {"COMPLETED": 2, "FAILED": len(TROUBLE)}
    for word, request in zip(words, requests, strict=True):
        record = state.trials[request.id]
        reason, attempts, epochs = TROUBLE.get(word, ("", 2 if word == "crash_once" else 1, 3))
        assert (word, record.reason) == (word, reason)
        assert (word, record.attempts, len(record.epochs)) == (word, attempts, epochs)
        assert f"fake trainer opens {record.id}" in (tmp_path / record.log).read_text()
        assert source.results[record.id] == record.state
    retried = [e for e in read_events(tmp_path / "ledger") if e.state == "PENDING" and e.reason]
    assert len(retried) == 3
    assert all(e.reason.startswith("retry 1 of 1 after: ") for e in retried)
    assert capfd.readouterr() == ("", "")


def test_no_retries_means_one_attempt(tmp_path: Path, ray_up: None) -> None:
    _, state, _ = search(tmp_path, [request_of(1, tmp_path, "error")], retries=0)
    assert state.trials["trial01"].reason == "ValueError: a fake mistake in the code"
    assert state.trials["trial01"].attempts == 1


def test_the_hours_stop_what_runs(tmp_path: Path, ray_up: None, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [request_of(n, tmp_path, "sleep:300") for n in range(5)]
    began_s, late_s = time.monotonic(), [0.0]
    running: set[str] = set()
    monkeypatch.setattr(recorder, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + late_s[0]))

    def hear(event: Event) -> None:
        """The hours are over once two trials train."""
        running.update({event.trial} if event.state == TrialState.RUNNING else ())
        late_s[0] = 7200.0 if len(running) == 2 else 0.0

    outcome, state, source = search(tmp_path, requests, hear, hours_left_s=3600.0)
    assert time.monotonic() - began_s < 60, "the search waited for an epoch to end"
    assert outcome.ended == "the hours of the budget were used up."
    assert outcome.states == {"STOPPED": 2}
    assert {r.reason for r in state.trials.values()} == {"the hours of the budget were used up"}
    assert source.results == {"trial00": TrialState.STOPPED, "trial01": TrialState.STOPPED}
    outcome, state, _ = search(tmp_path, requests, hours_left_s=0.0)
    assert (outcome.started, len(state.trials)) == (0, 2)


def test_the_target_stops_the_search_once_a_trial_is_trained_in_full(tmp_path: Path, ray_up: None) -> None:
    requests = [request_of(n, tmp_path, dropout=dropout) for n, dropout in enumerate([0.5, 0.5, 0.01, *[0.5] * 20])]
    outcome, _, _ = search(tmp_path, requests, target_accuracy=0.8, concurrent=1)
    assert outcome.ended == "the target accuracy of 0.8 was reached (0.8662)."
    assert outcome.states == {"COMPLETED": 3}
    outcome, _, _ = search(tmp_path, requests, target_accuracy=0.8)
    assert outcome.started == 0


def test_concurrent_caps_the_trials_at_once(tmp_path: Path, ray_up: None) -> None:
    search(tmp_path, [request_of(n, tmp_path, "sleep:0.02") for n in range(4)], concurrent=1)
    assert most_at_once(notes(tmp_path)) == 1


def test_folds_speed_and_several_objectives_reach_the_record_and_the_source(tmp_path: Path, ray_up: None) -> None:
    job = FitJob("f", TrialConfig(dropout=0.2, hidden=9, recipe="flips"), 0, "m", folds=4, measure_speed=True)
    results: list[tuple[Any, ...]] = []

    class Source(FixedTrials):
        def tell(self, trial: str, state: TrialState, values: Sequence[float], last: Sequence[float] = ()) -> None:
            super().tell(trial, state, values, last)
            results.append((state, list(values), tuple(last)))

    names = ("val_macro_f1", "val_loss", "images_per_s")
    source = Source([TrialRequest("f", "", 1, job)])
    seen: list[Event] = []
    with Ledger(tmp_path / "ledger") as ledger:
        settings = settings_of(tmp_path, objectives=names, scheduler=SchedulerSettings("asha", metric=names[0]))
        run_trials(source, settings, ledger, seen.append)
        record = derive(ledger.events()).trials["f"]
    accuracy = [0.8 * (1 - 0.5**epoch) for epoch in (1, 2, 3)]
    assert [epoch["val_accuracy"] for epoch in record.epochs] == pytest.approx(accuracy)
    assert record.fold_val_accuracy == pytest.approx([accuracy[-1] + 0.01 * step for step in (-1.5, -0.5, 0.5, 1.5)])
    assert (record.figure("images_per_s"), record.figure("train_images_per_s")) == (100.0, 100.0)
    assert len(record.folds) == 4 * 3
    [(state, values, last)] = results
    assert state == TrialState.COMPLETED
    assert values == pytest.approx([value / 2 for value in accuracy])
    assert last == pytest.approx((accuracy[-1] / 2, 1 / 3, 100.0))
    rows = [event for event in seen if event.kind == EventKind.EPOCH]
    assert [(event.epoch, event.fold) for event in rows[:6]] == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 0), (2, 1)]
    assert rows[4].objectives == pytest.approx((accuracy[0] / 2, 1.0, 100.0))
    assert {event.objectives for event in rows if event.fold} == {()}


def test_a_figure_that_was_not_measured_leaves_no_objectives(tmp_path: Path, ray_up: None) -> None:
    search(tmp_path, [request_of(1, tmp_path)], objectives=("val_accuracy", "images_per_s"))
    rows = [event for event in read_events(tmp_path / "ledger") if event.kind == EventKind.EPOCH]
    assert [(event.objectives, event.images_per_s) for event in rows] == [((), None)] * 3


LOW_ON_MEMORY = "1 worker(s) were killed due to the node running low on memory. It was 22.9GB used / 23.5GB limit."


def test_a_worker_killed_for_memory_costs_no_retry(
    tmp_path: Path, ray_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's error where Tune meets it: when a worker has started and when it has trained."""
    answers = itertools.count()

    def get(future: Any) -> Any:
        if next(answers) in (1, 4):
            raise ray.exceptions.OutOfMemoryError(LOW_ON_MEMORY)
        return ray.get(future)

    monkeypatch.setattr(event_manager, "ray", SimpleNamespace(get=get, wait=ray.wait))
    patience = PatienceSettings(max_rounds=9, first_pause_s=0.1)
    requests = [request_of(n, tmp_path, "sleep:0.2") for n in range(3)]
    outcome, state, _ = search(tmp_path, requests, retries=0, patience=patience)
    assert outcome.states == {"COMPLETED": 3}
    events = read_events(tmp_path / "ledger")
    assert sum("back in the queue, not counted as a retry" in event.reason for event in events) == 2
    assert {len(record.epochs) for record in state.trials.values()} == {3}


Replayed = FixedTrials | OptunaSampler
SPACE = Space.of({"dropout": [Case(Uniform(0.1, 0.9))], "image_size": [Case(Choice((160, 192)))]})


def from_list(folder: Path, recipe: str) -> Replayed:
    return FixedTrials([request_of(n, folder, recipe, 0.1 + 0.05 * n, 160 + 32 * (n % 2)) for n in range(10)])


def at_random(folder: Path, recipe: str) -> Replayed:
    """The recipe is no part of what is asked for: the fake trainer reads there what to do."""

    def job(trial: str, config: TrialConfig) -> FitJob:
        return FitJob(trial, dataclasses.replace(config, recipe=recipe), 0, "manifest.parquet", output=str(folder))

    return OptunaSampler(SPACE, SamplerSettings(10, 3, 0, "data", "random"), job)


@pytest.mark.parametrize(
    ("make", "ends"),
    [
        (from_list, "hours"),
        (at_random, "target"),
        pytest.param(from_list, "target", marks=pytest.mark.slow),
        pytest.param(at_random, "hours", marks=pytest.mark.slow),
    ],
)
def test_what_has_not_begun_when_the_search_stops_is_trained_by_the_next(
    tmp_path: Path, ray_up: None, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path, str], Replayed], ends: str
) -> None:
    """The hours are over once two trials train; the target is reached by the first that is trained in full."""
    late_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s[0])
    monkeypatch.setattr(recorder, "time", clock)

    def run_on(recipe: str, limits: dict[str, float]) -> tuple[SearchOutcome, list[Event], Replayed]:
        source = make(tmp_path, recipe)
        running: set[str] = set()

        def hear(event: Event) -> None:
            running.update({event.trial} if event.state == TrialState.RUNNING else ())
            late_s[0] = 7200.0 if ends == "hours" and len(running) == 2 else 0.0

        values: dict[str, Any] = {"epochs": 3, "logs": tmp_path / "logs", "storage": tmp_path / "ray", **limits}
        values |= {"factory": "tests.support.fake_trainer:open_fit", "fill": "tests.support.fake_trainer:fill"}
        with Ledger(tmp_path / "ledger") as ledger:
            source.replay(ledger.events())
            return run_trials(source, SearchSettings(**values), ledger, hear), ledger.events(), source

    limits = {"hours_left_s": 3600.0} if ends == "hours" else {"target_accuracy": 0.01}
    outcome, events, source = run_on("sleep:300" if ends == "hours" else "flips", limits)
    first = derive(events)
    begun = {trial for trial, record in first.trials.items() if record.attempts}
    held = {trial for trial, record in first.trials.items() if record.state == TrialState.PENDING}
    assert held
    assert begun
    assert held | begun == set(first.trials)
    assert not held & begun
    assert {record.state for record in first.trials.values() if record.id in begun} <= {"STOPPED", "COMPLETED"}
    if isinstance(source, FixedTrials):
        assert set(source.results) == begun

    again, events, _ = run_on("flips", {})
    state = derive(events)
    assert len(state.trials) == 10 == sum(again.states.values())
    assert list(state.trials)[: len(first.trials)] == list(first.trials)
    assert sorted(record.number for record in state.trials.values()) == sorted(
        range(10) if make is from_list else range(1, 11)
    )
    assert again.started == 10 - len(begun)
    for record in state.trials.values():
        assert record.attempts == 1
        assert record.state == (first.trials[record.id].state if record.id in begun else TrialState.COMPLETED)
    assert not [event.reason for event in events if event.state == TrialState.PENDING and event.reason]
    assert outcome.states["PENDING"] == len(held)
