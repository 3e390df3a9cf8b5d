"""A ledger of two trials, one of the search and one of the refit."""

from __future__ import annotations

import math
from pathlib import Path

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, EventKind
from trainers.config import TrialConfig


def two_trials(folder: Path) -> list[Event]:
    """Write the ledger: a search's COMPLETED trial and a refit's FAILED one, of two epochs each."""
    config = TrialConfig(backbone="small_cnn").to_dict()
    with Ledger(folder / "ledger", clock=lambda: 100.0) as ledger:
        for trial, stage in (("aaa", "search"), ("bbb", "refit")):
            created = {"config": config, "name": "", "number": 1}
            ledger.append(EventKind.TRIAL, trial=trial, stage=stage, state="PENDING", payload=created)
            ledger.append(
                EventKind.TRIAL, trial=trial, stage=stage, state="RUNNING", payload={"log": f"logs/{trial}.log"}
            )
            for epoch in (1, 2):
                values = {"loss": 1.0 / epoch, "val_accuracy": 0.5 if stage == "search" else math.nan}
                ledger.append(EventKind.EPOCH, trial=trial, stage=stage, epoch=epoch, **values)
            reason = "out of memory" if stage == "refit" else ""
            state = "FAILED" if stage == "refit" else "COMPLETED"
            ledger.append(EventKind.TRIAL, trial=trial, stage=stage, state=state, epoch=2, reason=reason)
        return ledger.events()
