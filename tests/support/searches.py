"""Searches of fake trials on a real Ray, and what the fake trainer wrote of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import Event, read_events
from orchestrator.ledger.state import SweepState, derive
from orchestrator.search.run import run_trials
from orchestrator.search.settings import SearchOutcome, SearchSettings
from orchestrator.search.source import FixedTrials, TrialRequest
from trainers.config import TrialConfig
from trainers.contract import FitJob

FACTORY = "tests.support.fake_trainer:open_fit"


def request_of(
    number: int, output: Path, recipe: str = "flips", dropout: float = 0.1, size: int | None = None
) -> TrialRequest:
    """A trial whose ``recipe`` tells the fake trainer what to do."""
    config = TrialConfig(recipe=recipe, dropout=dropout, image_size=size)
    trial = f"trial{number:02d}"
    return TrialRequest(trial, "", number, FitJob(trial, config, 0, "manifest.parquet", output=str(output)))


def settings_of(folder: Path, **changes: Any) -> SearchSettings:
    values: dict[str, Any] = {"epochs": 3, "logs": folder / "logs", "storage": folder / "ray", "factory": FACTORY}
    return SearchSettings(**{**values, **changes})


def search(
    folder: Path, requests: Sequence[TrialRequest], on_event: Callable[[Event], None] | None = None, **changes: Any
) -> tuple[SearchOutcome, SweepState, FixedTrials]:
    """Run ``requests``, after what the ledger in ``folder`` holds; ``changes`` of the settings."""
    source = FixedTrials(requests)
    with Ledger(folder / "ledger") as ledger:
        source.replay(ledger.events())
        outcome = run_trials(source, settings_of(folder, **changes), ledger, on_event)
        state = derive(ledger.events())
    assert derive(read_events(folder / "ledger")) == state
    return outcome, state, source


def notes(folder: Path) -> list[dict[str, Any]]:
    """What the fake trainer wrote down of each epoch."""
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def most_at_once(rows: list[dict[str, Any]]) -> int:
    """The largest number of epochs that ran at one instant."""
    return max(sum(other["start_s"] <= row["start_s"] < other["end_s"] for other in rows) for row in rows)
