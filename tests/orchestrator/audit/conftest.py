"""A finished sweep that 42b062d wrote, with and without checksums."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.ledger.kept import FILES, checksums, files_below
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from tests.support.since_42b062d import unpack


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepPaths:
    """Without checksums; typed in an empty folder, so that no MLflow is found."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return SweepPaths(unpack(tmp_path, "finished") / "finished")


@pytest.fixture
def sweep(old: SweepPaths) -> SweepPaths:
    """As sweeps of today: each file has its checksum in the record of the last leaderboard."""
    old.per_class.write_text("class,precision\nglass,0.5\n")  # not written by 42b062d
    hidden = {old.lock, old.tracking_cursor}
    files = [file for file in files_below(old.root) if old.ledger not in file.parents and file not in hidden]
    with Ledger(old.ledger) as ledger:
        events = [e for e in ledger.events() if e.stage == "leaderboard" and e.state == "ENDED"]
        payload = events[-1].data | {FILES: checksums(old, files), "statistics": 1}
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload=payload)
    return old
