"""A sweep's folder as a real sweep leaves it, written in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths

WINNER = {
    "trial": "aaaaaaaaa1",
    "model": "ensemble",
    "policy": "whole",
    "reason": "aaaaaaaaa1 has the highest validation accuracy.",
    "config": {"backbone": "small_cnn", "dropout": 0.2},
    "runners_up": [],
}
ROW = {
    "model": "winner/ensemble",
    "policy": "whole",
    "accuracy": 0.95,
    "accuracy_low": 0.92,
    "accuracy_high": 0.97,
    "macro_f1": 0.949,
    "log_loss": 0.2,
    "ece": 0.03,
    "images_per_s": 512.0,
    "difference": 0.0,
    "difference_low": 0.0,
    "difference_high": 0.0,
    "p_value": 1.0,
    "winner": True,
}


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def write_sweep(root: Path, *, ended: str = "FINISHED", reason: str = "") -> SweepPaths:
    """Four trials: COMPLETED (0.95), PRUNED, FAILED and, in a sweep that is ``ended`` "RUNNING", one that still runs.

    A "FINISHED" sweep also has a winner, its refit and a leaderboard. A trial takes 60 s, one after the other.
    """
    paths, clock = SweepPaths(root), Clock()
    root.mkdir(parents=True)
    paths.spec.write_text(
        f"name: {root.name}\ndata: {{source: 'builtin:digits'}}\nweights: none\n"
        "search: {backbone: small_cnn, dropout: [0.0, 0.2, 0.4]}\nbudget: {trials: 4, epochs: 2}\n"
    )
    with Ledger(paths.ledger, clock) as ledger:
        ledger.append(
            EventKind.SWEEP, state="RUNNING", payload={"name": root.name, "budget": {"trials": 4, "epochs": 2}}
        )
        ledger.append(EventKind.STAGE, stage="data", state="ENDED", payload={"fingerprint": "f"})
        ledger.append(EventKind.STAGE, stage="search", state="BEGUN", payload={"trials": 4})
        _trial(ledger, clock, 1, [0.8, 0.95], "COMPLETED")
        _trial(ledger, clock, 2, [0.5], "PRUNED", "stopped at rung 1")
        _trial(ledger, clock, 3, [], "FAILED", "the loss became NaN in epoch 1")
        if ended == "RUNNING":
            _trial(ledger, clock, 4, [0.9], "")
        if ended == "FINISHED":
            ledger.append(EventKind.STAGE, stage="search", state="ENDED", payload={})
            ledger.append(EventKind.STAGE, stage="select", state="ENDED", payload={"winner": WINNER})
            _trial(ledger, clock, 9, [None], "COMPLETED", stage="refit")
            payload = {"winner_row": ROW, "rows": 1}
            ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload=payload)
            _write_leaderboard(paths)
        if ended != "RUNNING":
            ledger.append(EventKind.SWEEP, state=ended, reason=reason)
    paths.tracking_cursor.write_text(json.dumps({"uri": "sqlite:////x/mlflow.db", "seq": 3, "parent": "run-1"}))
    return paths


def _trial(
    ledger: Ledger,
    clock: Clock,
    number: int,
    accuracies: list[float | None],
    state: str,
    reason: str = "",
    stage: str = "search",
) -> None:
    name = f"aaaaaaaaa{number}"
    config = {"backbone": "small_cnn", "dropout": 0.2, "head": "softmax", "epochs": 2}
    about: dict[str, Any] = {"trial": name, "stage": stage}
    ledger.append(EventKind.TRIAL, **about, state="PENDING", payload={"name": name, "number": number, "config": config})
    ledger.append(EventKind.TRIAL, **about, state="RUNNING", attempt=1)
    for epoch, accuracy in enumerate(accuracies, start=1):
        clock.now_s += 60 / len(accuracies)
        ledger.append(EventKind.EPOCH, **about, epoch=epoch, val_accuracy=accuracy, loss=0.5, seconds=1.0)
    if not accuracies:
        clock.now_s += 60
    if state:
        ended: dict[str, Any] = {"state": state, "reason": reason, "epoch": len(accuracies)}
        ledger.append(EventKind.TRIAL, **about, **ended, payload={"log": f"logs/{name}.log"})


def _write_leaderboard(paths: SweepPaths) -> None:
    import pandas as pd

    from orchestrator.evaluation.leaderboard import write

    write(pd.DataFrame([ROW]), paths)
