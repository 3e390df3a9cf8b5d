"""The sync cursor: which ledger events and files MLflow already has. A small JSON file in the sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from orchestrator.ledger.folder import Sweep, list_sweeps
from orchestrator.paths import RUNS, SweepPaths
from trainers.files.atomic import atomic_write_text


@dataclass(frozen=True)
class Cursor:
    """What MLflow has received so far.

    ``seq``: the last event sent; ``time_s``: its time, so a different time in the ledger means a different ledger.
    ``parent``: run id of the sweep. ``runs``: trial -> run id. ``files``: name relative to the sweep -> SHA-256 of the
    content sent. ``environment``: of the machine that first ran the sweep.
    """

    uri: str = ""
    seq: int = 0
    time_s: float = 0.0
    parent: str = ""
    runs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def at(self, uri: str) -> Cursor:
        """Return this cursor if it belongs to the store at ``uri``, else an empty one for that store."""
        return self if self.uri == uri else Cursor(uri, environment=self.environment)


def read_cursor(path: Path) -> Cursor:
    """Read the cursor in ``path``; an empty one if it is missing or damaged, since sending twice is harmless."""
    try:
        return Cursor(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return Cursor()


def write_cursor(path: Path, cursor: Cursor) -> None:
    """Write the cursor atomically, without fsync: it is written after every batch, and a lost one only repeats it."""
    content = {each.name: getattr(cursor, each.name) for each in fields(cursor)}
    atomic_write_text(path, json.dumps(content), durable=False)


def newest_store(runs: Path = Path(RUNS)) -> str | None:
    """Return the URI of the MLflow store that the newest tracked sweep wrote to; None if no sweep was tracked."""
    for folder in list_sweeps(runs):
        uri = read_cursor(SweepPaths(folder).tracking_cursor).uri
        if uri:
            return uri
    return None


def parent_run(sweep: Sweep) -> str | None:
    """Return the id of the sweep's run in MLflow; None if MLflow does not have it."""
    return read_cursor(sweep.paths.tracking_cursor).parent or None
