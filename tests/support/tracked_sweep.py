"""A sweep's folder to send to MLflow, and what MLflow holds of it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.state import derive
from orchestrator.paths import SweepPaths
from orchestrator.tracking.mlflow_store import connect
from trainers.config import TrialConfig

CONFIG = TrialConfig(backbone="mobilenet_1.0", unfrozen_layers=13, head="cosface", multiplier=2.0).to_dict()
EPOCH = {"loss": 0.5, "accuracy": 0.8, "val_loss": 0.6, "val_accuracy": 0.75, "val_macro_f1": 0.7}
CLOSED_PORT = "http://127.0.0.1:9"
"""URI of a port that nothing listens on."""


def ticking(start_s: float = 1.7e9) -> Callable[[], float]:
    times = iter(range(10**6))
    return lambda: start_s + next(times) / 8


def create_trial(ledger: Ledger, name: str, number: int) -> Event:
    payload = {"config": CONFIG, "number": number, "name": name}
    return ledger.append(EventKind.TRIAL, trial=name, state="PENDING", stage="search", payload=payload)


def train(ledger: Ledger, trial: str, epochs: int, state: str, reason: str = "") -> list[Event]:
    appended = [ledger.append(EventKind.TRIAL, trial=trial, state="RUNNING", attempt=1)]
    appended += [ledger.append(EventKind.EPOCH, trial=trial, epoch=e + 1, rung=e // 2, **EPOCH) for e in range(epochs)]
    return [*appended, ledger.append(EventKind.TRIAL, trial=trial, state=state, reason=reason, epoch=epochs)]


TRIALS = (("aa", 4, "COMPLETED"), ("bb", 2, "PRUNED"), ("cc", 1, "FAILED"), ("dd", 1, "STOPPED"))


def write_sweep(folder: Path, trials: Sequence[tuple[str, int, str]] = TRIALS) -> SweepPaths:
    """A finished sweep of (id, epochs, final state) trials, with a spec, a leaderboard and a figure."""
    paths = SweepPaths(folder)
    with Ledger(paths.ledger, ticking()) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": "tiny"})
        ledger.append(EventKind.STAGE, stage="search", state="BEGAN")
        for number, (trial, epochs, state) in enumerate(trials):
            create_trial(ledger, trial, number)
            train(ledger, trial, epochs, state, "diverged" if state == "FAILED" else "")
        ledger.append(EventKind.SWEEP, state="FINISHED", payload={"winner": {"trial": "aa", "policy": "whole"}})
    paths.spec.write_text("name: tiny\nbudget: {trials: 4}\n")
    rows = [{"model": "aa", "policy": "whole", "accuracy": 0.9, "winner": True}]
    pd.DataFrame(rows).to_parquet(paths.leaderboard_parquet)
    paths.leaderboard_md.write_text("| aa | whole | 0.9 |\n")
    paths.figures.mkdir()
    (paths.figures / "leaderboard.svg").write_text("<svg/>")
    return paths


def extend(paths: SweepPaths) -> None:
    """Give a finished sweep one trial more."""
    with Ledger(paths.ledger, ticking(1.8e9)) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING")
        create_trial(ledger, "ee", 4)
        train(ledger, "ee", 2, "COMPLETED")
        ledger.append(EventKind.SWEEP, state="FINISHED")


def interrupted(paths: SweepPaths, ended: str = "") -> None:
    """A ledger with a trial of each state, whose process ended with the state ``ended`` or was killed ("")."""
    with Ledger(paths.ledger, ticking()) as ledger:
        ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": "tiny"})
        for number, (trial, epochs, state) in enumerate((("aa", 2, "COMPLETED"), ("bb", 1, "PAUSED"))):
            create_trial(ledger, trial, number)
            train(ledger, trial, epochs, state)
        create_trial(ledger, "cc", 2)
        ledger.append(EventKind.TRIAL, trial="cc", state="RUNNING", attempt=1)
        create_trial(ledger, "dd", 3)
        if ended:
            ledger.append(EventKind.SWEEP, state=ended)


CLOSED = {"": "KILLED", "aa": "FINISHED", "bb": "KILLED", "cc": "KILLED", "dd": "KILLED"}


def all_runs(uri: str, experiment: str = "orch") -> dict[str, Any]:
    """Trial id ("" for the parent) -> run; fails where a trial has two."""
    client = connect(uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id]) if found else []
    by_trial = {run.data.tags.get("orch.trial", ""): run for run in runs}
    assert len(by_trial) == len(runs)
    return by_trial


def states(runs: dict[str, Any]) -> dict[str, str]:
    return {trial: run.data.tags["orch.state"] for trial, run in runs.items() if trial}


def statuses(uri: str) -> dict[str, str]:
    return {trial: run.info.status for trial, run in all_runs(uri).items()}


def ledger_states(paths: SweepPaths) -> dict[str, str]:
    return {trial: str(record.state) for trial, record in derive(read_events(paths.ledger)).trials.items()}


def histories(uri: str, runs: dict[str, Any]) -> dict[str, list[tuple[int, int, float]]]:
    client = connect(uri)
    return {
        trial: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, "val_accuracy")]
        for trial, run in runs.items()
        if trial
    }


def recorded(paths: SweepPaths) -> dict[str, list[tuple[int, int, float]]]:
    found: dict[str, list[tuple[int, int, float]]] = {}
    for event in read_events(paths.ledger):
        if event.kind == "TRIAL":
            found.setdefault(event.trial, [])
        if event.kind == "EPOCH" and event.val_accuracy is not None:
            found[event.trial].append((event.epoch, round(event.time_s * 1000), event.val_accuracy))
    return found


def assert_mirrors(paths: SweepPaths, uri: str, experiment: str = "orch") -> dict[str, Any]:
    runs = all_runs(uri, experiment)
    assert states(runs) == ledger_states(paths)
    assert histories(uri, runs) == recorded(paths)
    parents = {run.data.tags.get("mlflow.parentRunId") for trial, run in runs.items() if trial}
    assert parents == {runs[""].info.run_id}
    return runs
