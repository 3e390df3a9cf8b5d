"""Ledger events -> updates of MLflow runs. Pure: uses MLflow's vocabulary without importing it.

Updates are idempotent, so events may be replayed after any interruption.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.ledger.naming import SHORT_FORMS, legend, run_name, varied_fields
from orchestrator.ledger.segments import METRICS, Event, EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState

RUN_STATUS: dict[str, str] = {
    TrialState.PENDING: "SCHEDULED",
    TrialState.RUNNING: "RUNNING",
    TrialState.PAUSED: "RUNNING",
    TrialState.COMPLETED: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.STOPPED: "KILLED",
    TrialState.FAILED: "FAILED",
}
"""Trial state -> run status. Pruned and stopped trials ended before their last epoch, so they are KILLED: FINISHED
would group them with completed ones in the UI. The tag ``orch.state`` holds the exact state."""

SWEEP_STATUS = RUN_STATUS | {"FINISHED": "FINISHED", "INTERRUPTED": "KILLED"}
"""State of a SWEEP event -> run status; any other state, or none, means RUNNING."""

WINNER_FACTS = ("model", "policy", "form", "reason")
"""Fields of the winner that become tags ``orch.winner.FIELD``."""

LEADERBOARD_METRICS = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "log_loss",
    "ece",
    "ece_debiased",
    "images_per_s",
    "difference",
)
"""Columns of the leaderboard that become metrics of the sweep's run."""


@dataclass(frozen=True)
class Point:
    """One value of one metric; ``time_ms`` since 1970, ``step`` is the epoch."""

    key: str
    value: float
    time_ms: int
    step: int


@dataclass(frozen=True)
class RunUpdate:
    """Changes to one run. ``trial`` is "" for the sweep's own run; an empty ``name`` or ``status`` means no change.

    ``started_ms``: time of the first event; ``ended_ms``: None unless the status is final.
    """

    trial: str
    started_ms: int
    name: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    status: str = ""
    ended_ms: int | None = None


def run_updates(events: Iterable[Event]) -> list[RunUpdate]:
    """Return one update per run that ``events`` (in order of ``seq``) concern, in order of its first event."""
    drafts: dict[str, _Draft] = {}
    for event in events:
        draft = drafts.get(event.trial)
        if draft is None:
            draft = drafts[event.trial] = _Draft(event.trial, _milliseconds(event.time_s))
        draft.take(event)
    return [draft.update() for draft in drafts.values()]


class _Draft:
    """Builder of an update; the last value of a tag, a status or a name wins."""

    def __init__(self, trial: str, started_ms: int) -> None:
        self._trial = trial
        self._started_ms = started_ms
        self._name = ""
        self._params: dict[str, str] = {}
        self._points: list[Point] = []
        self._tags: dict[str, str] = {}
        self._status = ""
        self._ended_ms: int | None = None

    def take(self, event: Event) -> None:
        if event.kind == EventKind.EPOCH:
            self._points += _points(event)
        elif event.kind == EventKind.TRIAL:
            self._take_config(event)
            self._take_state(event, RUN_STATUS[event.state])
        elif event.kind == EventKind.SWEEP:
            self._take_state(event, SWEEP_STATUS.get(event.state, "RUNNING"))
        elif event.kind == EventKind.STAGE and event.stage != Stage.PREFILL:  # part of another stage
            self._tags["orch.stage"] = event.stage
        elif event.kind == EventKind.NOTE:
            self._points += plan_points(event)
        if event.trial:
            self._tags["orch.rung"] = str(event.rung)
            self._tags["orch.epoch"] = str(event.epoch)
        else:
            self._take_winner(event)

    def _take_config(self, event: Event) -> None:
        data = event.data
        if "config" not in data:
            return
        number = int(data.get("number") or 0)
        given = str(data.get("name") or "")
        self._name = run_name(number, data["config"], varied_fields(data), "" if given == event.trial else given)
        self._params = {key: _text(value) for key, value in data["config"].items()}
        self._tags |= {"orch.number": str(number), "orch.stage": event.stage}

    def _take_state(self, event: Event, status: str) -> None:
        if event.state:
            self._tags["orch.state"] = event.state
        self._tags["orch.reason"] = event.reason
        if event.attempt:
            self._tags["orch.attempt"] = str(event.attempt)
        self._status = status
        self._ended_ms = _milliseconds(event.time_s) if status in ("FINISHED", "KILLED", "FAILED") else None

    def _take_winner(self, event: Event) -> None:
        """Set the winner's tags if the payload holds a winner."""
        data = event.data
        winner = data.get("winner") if isinstance(data, Mapping) else None
        if isinstance(winner, Mapping):
            self._tags["orch.winner"] = _text(winner.get("trial") or winner.get("model"))
            self._tags |= {f"orch.winner.{key}": _text(winner[key]) for key in WINNER_FACTS if winner.get(key)}

    def update(self) -> RunUpdate:
        return RunUpdate(
            trial=self._trial,
            started_ms=self._started_ms,
            name=self._name,
            params=self._params,
            points=tuple(self._points),
            tags=self._tags,
            status=self._status,
            ended_ms=self._ended_ms,
        )


def _points(event: Event) -> list[Point]:
    """Return an epoch's finite metrics; a fold's names end in its number.

    Validation metrics are NaN in fits that train on the validation split.
    """
    suffix = f"_fold_{event.fold}" if event.fold else ""
    values = {name: getattr(event, name) for name in METRICS}
    return [
        Point(name + suffix, float(value), _milliseconds(event.time_s), event.epoch)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]


def plan_points(event: Event) -> list[Point]:
    """Return each stage's planned and, once known, actual seconds from a note about the plan; [] for other notes."""
    data = event.data
    found = {f"planned_{name}_s": span["mean"] for name, span in data.get("plan", {}).get("stages", {}).items()}
    for row in data.get("compared", ()):
        found |= {f"planned_{row['stage']}_s": row["planned_s"], f"actual_{row['stage']}_s": row["actual_s"]}
    known = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
    return [Point(name, float(value), _milliseconds(event.time_s), 0) for name, value in known.items()]


def _milliseconds(time_s: float) -> int:
    return round(time_s * 1000)


def _text(value: Any) -> str:
    """Format a parameter for the UI; None is a default that depends on other parameters."""
    return "default" if value is None else str(value)


def spec_params(spec: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a sweep's YAML into parameters: ``budget.trials`` -> "40"; lists and ranges as JSON text."""
    flat: dict[str, str] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping) and key != "search" and value:
            flat |= {f"{key}.{name}": text for name, text in spec_params(value).items()}
        elif isinstance(value, Mapping):
            flat |= {f"{key}.{name}": _json(part) for name, part in value.items()}
        else:
            flat[str(key)] = _json(value)
    return flat


def leaderboard_update(rows: Sequence[Mapping[str, Any]], time_ms: int) -> RunUpdate:
    """Return the winner's row as metrics of the sweep's run: ``test_accuracy`` and so on."""
    winners = [row for row in rows if row.get("winner")]
    points = [
        Point(f"test_{name}", float(row[name]), time_ms, 0)
        for row in winners[:1]
        for name in LEADERBOARD_METRICS
        if row.get(name) is not None and math.isfinite(row[name])
    ]
    return RunUpdate("", time_ms, points=tuple(points))


def sweep_note(name: str, params: Mapping[str, str], leaderboard: str = "") -> str:
    """Return the note that the UI shows on the sweep's run, in Markdown."""
    source = params.get("data.source", "")
    lines = [
        f"# {name}",
        "",
        f"A sweep of `orch`{f' over `{source}`' if source else ''}; its trials are the runs below.",
        "",
        f"In their names: {legend(template.format(1) for template in SHORT_FORMS.values())}.",
    ]
    if leaderboard:
        lines += ["", "## Leaderboard on the test split", "", leaderboard.strip()]
    return "\n".join(lines)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
