"""How far the ledger has been shown to MLflow: a small JSON file in the sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from orchestrator.ledger.folder import Sweep, sweeps
from orchestrator.paths import RUNS, SweepPaths
from trainers.files.atomic import atomic_write_text


@dataclass(frozen=True)
class Cursor:
    """What MLflow has seen. ``time_s`` is of event ``seq``: another time there means another ledger.

    ``runs``: trial -> run id. ``files``: name relative to the sweep -> SHA-256 of what was sent.
    ``environment``: of the machine that ran the sweep first.
    """

    uri: str = ""
    seq: int = 0
    time_s: float = 0.0
    parent: str = ""
    runs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def at(self, uri: str) -> Cursor:
        """This cursor if it speaks of the store at ``uri``, else one that has seen nothing."""
        return self if self.uri == uri else Cursor(uri, environment=self.environment)


def read_cursor(path: Path) -> Cursor:
    """The cursor in ``path``; an empty one where there is none or it is damaged, since sending again does no harm."""
    try:
        return Cursor(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return Cursor()


def write_cursor(path: Path, cursor: Cursor) -> None:
    content = {each.name: getattr(cursor, each.name) for each in fields(cursor)}
    atomic_write_text(path, json.dumps(content), durable=False)  # after every batch; a lost one is sent again


def newest_store(runs: Path = Path(RUNS)) -> str | None:
    """The address of the MLflow store that the newest sweep wrote to; None where there is no sweep that did."""
    for folder in sweeps(runs):
        uri = read_cursor(SweepPaths(folder).tracking_cursor).uri
        if uri:
            return uri
    return None


def parent_run(sweep: Sweep) -> str | None:
    """The id of the sweep's run in MLflow; None where MLflow has not seen it."""
    return read_cursor(sweep.paths.tracking_cursor).parent or None
