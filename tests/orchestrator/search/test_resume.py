"""Trials that were interrupted go on from their checkpoints, and every epoch is trained and recorded once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.state import TrialState, derive
from tests.support.places import ROOT
from trainers.data.manifest import Manifest

FAKE = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from orchestrator.ledger.ledger import Ledger
from orchestrator.search.source import FixedTrials, TrialRequest
from orchestrator.search.settings import SchedulerSettings
from orchestrator.search.settings import SearchSettings
from orchestrator.search.run import run_trials
from trainers.contract import FitJob
from trainers.config import TrialConfig

folder, recipes = Path(sys.argv[1]), sys.argv[2].split()
requests = []
for number, recipe in enumerate(recipes):
    config, name = TrialConfig(recipe=recipe, dropout=0.1 * number), f"trial{{number}}"
    job = FitJob(name, config, 0, "m", output=str(folder), checkpoint=str(folder / "checkpoints" / name))
    requests.append(TrialRequest(name, "", number, job))
settings = SearchSettings(
    epochs=6,
    logs=folder / "logs",
    storage=folder / "ray",
    factory="tests.support.fake_trainer:open_fit",
    scheduler=SchedulerSettings(sys.argv[3]),
    save_after_s=0.0,
)
source = FixedTrials(requests)
with Ledger(folder / "ledger") as ledger:
    source.replay(ledger.events())
    print(run_trials(source, settings, ledger).states)
"""


def run_fake(folder: Path, recipes: str, scheduler: str = "asha") -> subprocess.Popen[str]:
    return start([sys.executable, "-c", FAKE.format(root=str(ROOT)), str(folder), recipes, scheduler], folder)


def start(command: list[str], folder: Path, **variables: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "driver.log").open("a") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **variables},
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def finish(driver: subprocess.Popen[str], folder: Path) -> list[Event]:
    assert driver.wait(timeout=200) == 0, (folder / "driver.log").read_text()
    return read_events(folder / "ledger")


def kill_after(driver: subprocess.Popen[str], ledger: Path, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """SIGKILL to the driver and all it started, once the ledger says so; what it left."""
    deadline_s = time.monotonic() + 280
    while not (ledger.is_dir() and enough(read_events(ledger))):
        assert driver.poll() is None, "the driver ended early"
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    return read_events(ledger)


def epochs_of(events: list[Event]) -> Counter[tuple[str, int]]:
    return Counter((e.trial, e.epoch) for e in events if e.kind == EventKind.EPOCH and not e.fold)


def trained(folder: Path) -> Counter[tuple[str, int]]:
    rows = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    return Counter((row["id"], row["epoch"]) for row in rows)


def retries(events: list[Event]) -> list[str]:
    return [e.reason for e in events if e.kind == EventKind.TRIAL and e.state == TrialState.PENDING and e.reason]


def test_a_killed_search_trains_no_epoch_again_that_was_saved(tmp_path: Path) -> None:
    recipes = "sleep:0.4 sleep:0.4 sleep:0.4"
    driver = run_fake(tmp_path, recipes, "none")
    left = kill_after(driver, tmp_path / "ledger", lambda events: sum(epochs_of(events).values()) >= 6)
    begun = {trial for trial, record in derive(left).trials.items() if not record.state.is_final and record.epochs}
    assert begun, "nothing was interrupted"
    unended = {trial for trial, record in derive(left).trials.items() if not record.state.is_final}
    events = finish(run_fake(tmp_path, recipes, "none"), tmp_path)
    state = derive(events)
    assert {record.state for record in state.trials.values()} == {TrialState.COMPLETED}
    assert epochs_of(events) == Counter({(f"trial{n}", epoch): 1 for n in range(3) for epoch in range(1, 7)})
    again = {key for key, count in trained(tmp_path).items() if count > 1}
    assert len(again) <= 2, "at most the epoch that each worker was in"
    going_on = [e.trial for e in events if e.kind == EventKind.TRIAL and "resumes after epoch" in e.reason]
    assert len(set(going_on)) == len(going_on)
    assert begun <= set(going_on) <= unended, "a trial may be killed between its checkpoint and its first record"
    for record in state.trials.values():
        expected = [(1 - 0.1 * int(record.id[-1])) * (1 - 0.5**epoch) for epoch in range(1, 7)]
        assert [epoch["val_accuracy"] for epoch in record.epochs] == pytest.approx(expected)
    assert not any((tmp_path / "checkpoints").iterdir())


def test_a_crash_costs_no_epoch_and_a_damaged_checkpoint_all_of_them(tmp_path: Path) -> None:
    """Trial 0 crashes in epoch 3 and goes on; trial 1 does, too, and finds its checkpoint damaged."""
    events = finish(
        run_fake(tmp_path, "crash_once,at:3,sleep:0.11 crash_once,at:3,forget,sleep:0.11", "median"), tmp_path
    )
    state = derive(events)
    assert [record.state for record in state.trials.values()] == [TrialState.COMPLETED] * 2
    assert [[e["epoch"] for e in record.epochs] for record in state.trials.values()] == [[1, 2, 3, 4, 5, 6]] * 2
    counts = trained(tmp_path)
    assert [counts["trial0", epoch] for epoch in range(1, 7)] == [1] * 6
    assert [counts["trial1", epoch] for epoch in range(1, 7)] == [2, 2, 1, 1, 1, 1]
    recorded = epochs_of(events)
    assert [recorded["trial0", epoch] for epoch in range(1, 7)] == [1] * 6
    assert [recorded["trial1", epoch] for epoch in range(1, 7)] == [2, 2, 1, 1, 1, 1]
    reasons = retries(events)
    assert sum(reason.endswith("; resumes after epoch 2") for reason in reasons) == 2
    assert reasons[-1] == "starts over: the fake state is damaged."
    assert len(reasons) == 3


@pytest.mark.slow
def test_hyperbands_pauses_and_checkpoints_go_together(tmp_path: Path) -> None:
    recipes = " ".join(["sleep:0.2", "crash_once,at:4,sleep:0.2", *["sleep:0.2"] * 4])
    left = kill_after(
        run_fake(tmp_path, recipes, "hyperband"),
        tmp_path / "ledger",
        lambda events: sum(epochs_of(events).values()) >= 9,
    )
    assert any(not record.state.is_final for record in derive(left).trials.values())
    events = finish(run_fake(tmp_path, recipes, "hyperband"), tmp_path)
    state = derive(events)
    assert len(state.trials) == 6
    assert {record.state for record in state.trials.values()} <= {TrialState.COMPLETED, TrialState.PRUNED}
    for record in state.trials.values():
        assert [e["epoch"] for e in record.epochs] == list(range(1, len(record.epochs) + 1))
    assert set(epochs_of(events).values()) == {1}


# --- the real thing -----------------------------------------------------------------------------------------------

REAL = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from rich.console import Console
from orchestrator.cluster import checkpoint
checkpoint.SAVE_AFTER_S = 0.0
from orchestrator.report.progress import ProgressReporter
from orchestrator.sweep.pipeline import SweepRequest, sweep

out, resume, overrides = Path(sys.argv[1]), sys.argv[2] == "resume", tuple(sys.argv[3:])
source = None if resume else "quick"
request = SweepRequest(source, () if resume else overrides, out=out, resume=resume, until="search")
sweep(request, ProgressReporter(Console(width=200)))
"""
COMMON = ["tracking.enabled=false", "budget.scheduler=none", "budget.sampler=random", "budget.retries=1"]


def run_real(out: Path, how: str, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REAL.format(root=str(ROOT)), str(out), how, *COMMON, *overrides]
    return start(command, out.parent)


def kill_a_worker(driver: subprocess.Popen[str]) -> None:
    below = psutil.Process(driver.pid).children(recursive=True)
    workers = [process for process in below if "FitTrainable" in " ".join(process.cmdline())]
    assert workers, "no worker is there to be killed"
    workers[0].kill()


def figures(events: list[Event]) -> dict[str, list[Any]]:
    state = derive(events)
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "val_macro_f1")
    return {t: [[epoch[name] for name in names] for epoch in record.epochs] for t, record in state.trials.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("folds", [0, 2])
def test_a_real_trial_that_lost_its_worker_and_its_driver_ends_as_if_never_interrupted(
    tmp_path: Path, folds: int
) -> None:
    overrides = [f"data.folds={folds}", "budget.trials=1", "budget.epochs=16", "search.batch_size=16"]
    whole = tmp_path / "whole" / "sweep"
    assert run_real(whole, "new", *overrides).wait(timeout=280) == 0, (tmp_path / "whole" / "driver.log").read_text()
    expected = figures(read_events(whole / "ledger"))

    torn = tmp_path / "torn" / "sweep"
    driver = run_real(torn, "new", *overrides)
    killed: list[int] = []

    def enough(events: list[Event]) -> bool:
        count = len(epochs_of(events))
        if count >= 3 and not killed:
            kill_a_worker(driver)
            killed.append(count)
        return bool(killed) and bool(retries(events)) and count >= killed[0] + 3

    kill_after(driver, torn / "ledger", enough)
    assert len(list((torn / "checkpoints").iterdir())) == 1
    resumed = run_real(torn, "resume")
    assert resumed.wait(timeout=280) == 0, (tmp_path / "torn" / "driver.log").read_text()
    events = read_events(torn / "ledger")
    assert figures(events) == expected
    assert len(expected) == 1
    assert set(epochs_of(events).values()) == {1}
    assert ["resumes after epoch" in reason for reason in retries(events)] == [True, True]
    assert not any((torn / "checkpoints").iterdir())


def built(out: Path) -> list[dict[str, Any]]:
    return [event.data for event in read_events(out / "ledger") if event.stage == "prefill"]


@pytest.mark.slow
def test_two_sweeps_at_once_share_and_a_later_one_computes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "cache"))
    overrides = ["search.unfrozen_layers=0", "budget.epochs=1", "final.refit=train"]
    outs = [tmp_path / name / "sweep" for name in "ab"]
    both = [run_real(out, "new", *overrides, "budget.trials=2") for out in outs]
    for driver, out in zip(both, outs, strict=True):
        assert driver.wait(timeout=280) == 0, (out.parent / "driver.log").read_text()
    builds = [row for out in outs for row in built(out)]
    images = len(Manifest.read(outs[0] / "manifest.parquet").split("train", "validation").table)
    assert sum(row["features"] for row in builds) == images
    assert sum(row["images"] for row in builds) == images
    assert all(row["stored"] for row in builds)

    later = tmp_path / "c" / "sweep"
    assert run_real(later, "new", *overrides, "budget.trials=4").wait(timeout=280) == 0
    assert built(later)
    assert {(row["features"], row["images"], row["bytes"]) for row in built(later)} == {(0, 0, 0)}
    assert len(derive(read_events(later / "ledger")).trials) == 4
    shutil.rmtree(tmp_path / "cache")
