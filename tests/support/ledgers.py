"""Write whole trials into a ledger."""

from __future__ import annotations

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import METRICS, EventKind

CONFIG = {"backbone": "small_cnn", "dropout": 0.2, "unfrozen_layers": "all"}


def metrics(value: float) -> dict[str, float]:
    return {name: value for name in METRICS}


def create(ledger: Ledger, trial: str, number: int = 1) -> None:
    payload = {"config": CONFIG, "name": "", "number": number, "proposal": {"ask": 0}}
    ledger.append(EventKind.TRIAL, trial=trial, stage="search", state="PENDING", payload=payload)


def run_whole_trial(ledger: Ledger, trial: str, epochs: int = 2) -> None:
    create(ledger, trial)
    ledger.append(EventKind.TRIAL, trial=trial, state="RUNNING", attempt=1, payload={"log": f"logs/{trial}.log"})
    for epoch in range(1, epochs + 1):
        ledger.append(EventKind.EPOCH, trial=trial, epoch=epoch, **metrics(epoch / 10))
    ledger.append(EventKind.TRIAL, trial=trial, state="COMPLETED", epoch=epochs)


def curves(ledger: Ledger, trials: dict[str, list[float]]) -> None:
    """Record trials by their validation accuracies; those of three epochs are COMPLETED, shorter ones PRUNED."""
    for trial, values in trials.items():
        ledger.append(EventKind.TRIAL, trial=trial, stage="search", state="PENDING")
        ledger.append(EventKind.TRIAL, trial=trial, stage="search", state="RUNNING", attempt=1)
        for epoch, value in enumerate(values, start=1):
            ledger.append(EventKind.EPOCH, trial=trial, stage="search", epoch=epoch, val_accuracy=value)
        state = "COMPLETED" if len(values) == 3 else "PRUNED"
        ledger.append(EventKind.TRIAL, trial=trial, stage="search", state=state, epoch=len(values))
