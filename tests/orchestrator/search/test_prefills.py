"""Workers fill the store as jobs of their own while others train, and grown ones are replaced. A real, local Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import REPLACED_WORKER, Event, EventKind
from orchestrator.ledger.state import SweepState, TrialState, derive
from orchestrator.search import schedulers
from orchestrator.search.run import run_trials
from orchestrator.search.settings import SchedulerSettings, SearchOutcome, SearchSettings
from orchestrator.search.source import FixedTrials, TrialRequest
from trainers.config import TrialConfig
from trainers.contract import FitJob


def request_of(number: int, output: Path, size: int = 160, recipe: str = "flips", dropout: float = 0.1) -> TrialRequest:
    config = TrialConfig(recipe=recipe, image_size=size, dropout=dropout)
    trial = f"trial{number:02d}"
    return TrialRequest(trial, "", number, FitJob(trial, config, 0, "manifest.parquet", output=str(output)))


def search(
    folder: Path, requests: Sequence[TrialRequest], **changes: Any
) -> tuple[SearchOutcome, SweepState, list[Event]]:
    values: dict[str, Any] = {"epochs": 3, "logs": folder / "logs", "storage": folder / "ray"}
    values |= {"factory": "tests.support.fake_trainer:open_fit", "fill": "tests.support.fake_trainer:fill", **changes}
    source = FixedTrials(requests)
    with Ledger(folder / "ledger") as ledger:
        source.replay(ledger.events())
        outcome = run_trials(source, SearchSettings(**values), ledger)
        events = ledger.events()
    return outcome, derive(events), [e for e in events if e.stage == "prefill"]


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_trials_run_while_the_next_set_is_built(tmp_path: Path, ray_up: None) -> None:
    """Trials 0, 2, 4 ... are of 160 px and quick to build; the 192 px of the others wait until three have begun."""
    slow = "fill_after:3"
    requests = [request_of(n, tmp_path, *((192, slow) if n % 2 else (160, "sleep:0.05"))) for n in range(8)]
    outcome, state, builds = search(tmp_path, requests)
    assert outcome.states == {"COMPLETED": 8}
    assert outcome.started == 8
    assert list(state.trials) == [request.id for request in requests]
    assert {(e.kind, e.state, e.trial) for e in builds} == {(EventKind.STAGE, "ENDED", "")}
    assert {e.data["what"] for e in builds} == {"images at 160 px", "images at 192 px"}
    assert {e.data["for"] for e in builds} == {"trial00", "trial01"}

    fills, epochs = rows(tmp_path, "fills.jsonl"), rows(tmp_path, "epochs.jsonl")
    first_s = {row["id"]: row["start_s"] for row in reversed(epochs)}
    filled_s = {parity: min(f["end_s"] for f in fills if f["id"] == f"trial0{parity}") for parity in (0, 1)}
    for number in range(8):
        assert first_s[f"trial{number:02d}"] >= filled_s[number % 2]
    assert sum(first_s[f"trial0{number}"] < filled_s[1] for number in (0, 2, 4)) == 3, "they waited for the others"
    assert len({row["pid"] for row in (*fills, *epochs)}) <= 2, "a build took a process of its own"
    assert {row["threads"] for row in fills} == {1}


def test_a_build_that_fails_ends_no_trial(tmp_path: Path, ray_up: None) -> None:
    words = ["fill_refuse", "fill_error", "fill_crash,refuse", "flips"]
    sizes = [160, 192, 224, 256]
    _, state, builds = search(
        tmp_path, [request_of(n, tmp_path, size, word) for n, (size, word) in enumerate(zip(sizes, words, strict=True))]
    )
    reasons = {e.data["for"]: (e.state, e.reason) for e in builds if e.state == "FAILED"}
    assert reasons == {
        "trial00": ("FAILED", "the fake store refuses."),
        "trial01": ("FAILED", "ValueError: a fake mistake in the store"),
        "trial02": (
            "FAILED",
            "its worker process died; native code crashed, or the system ended it for want of memory",
        ),
    }
    ended = {trial: (record.state, record.attempts) for trial, record in state.trials.items()}
    failed = ended.pop("trial02")
    assert failed == (TrialState.FAILED, 1)
    assert state.trials["trial02"].reason == "the fake trainer refuses epoch 2."
    assert set(ended.values()) == {(TrialState.COMPLETED, 1)}
    assert len(ended) == 3


@pytest.mark.parametrize("name", ["asha", *(pytest.param(n, marks=pytest.mark.slow) for n in ("hyperband", "median"))])
def test_schedulers_see_trials_alone(tmp_path: Path, ray_up: None, name: str) -> None:
    requests = [
        request_of(n, tmp_path, 160 + 32 * (n % 3), "flips", dropout=0.1 + 0.04 * (n * 5 % 12)) for n in range(12)
    ]
    outcome, state, builds = search(tmp_path, requests, epochs=9, scheduler=SchedulerSettings(name))
    assert set(outcome.states) == {"COMPLETED", "PRUNED"}
    assert len(state.trials) == sum(outcome.states.values()) == 12
    assert {e.data["what"] for e in builds} == {f"images at {size} px" for size in (160, 192, 224)}


def test_the_hours_stop_builds_too(tmp_path: Path, ray_up: None) -> None:
    began_s = time.monotonic()
    requests = [request_of(n, tmp_path, recipe="fill_sleep:300") for n in range(20)]
    outcome, state, builds = search(tmp_path, requests, hours_left_s=4.0)
    assert time.monotonic() - began_s < 90, "the search waited for a build to end"
    assert set(outcome.states) == {"PENDING"}, "none of them has begun"
    assert len(state.trials) < 10
    assert builds == []


def test_a_worker_that_has_grown_is_replaced(tmp_path: Path, ray_up: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def outgrown(measured: Any, workers: int) -> bool:
        seen.append((measured["jobs"], workers))
        return measured["jobs"] == 2

    monkeypatch.setattr(schedulers, "outgrown", outgrown)
    outcome, state, _ = search(tmp_path, [request_of(n, tmp_path) for n in range(4)], concurrent=1, fill="")
    assert outcome.states == {"COMPLETED": 4}
    pids = [next(row["pid"] for row in rows(tmp_path, "epochs.jsonl") if row["id"] == f"trial0{n}") for n in range(4)]
    assert seen == [(1, 1), (2, 1), (1, 1), (2, 1)]
    notes = [event.data[REPLACED_WORKER] for event in state.notes if REPLACED_WORKER in event.data]
    assert [note["jobs"] for note in notes] == [2, 2]
    assert all(note["rss_bytes"] > 10**7 for note in notes)
    assert pids[0] == pids[1] != pids[2] == pids[3]
