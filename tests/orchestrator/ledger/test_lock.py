"""One writer per sweep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.errors import OrchError
from orchestrator.ledger.folder import read_sweep
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.lock import running_process
from orchestrator.paths import SweepPaths


def test_a_second_driver_sees_the_pid_of_the_first(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger"):
        with pytest.raises(OrchError, match=rf"run by another process \(PID {os.getpid()}\); wait until it ends"):
            Ledger(tmp_path / "ledger")
        with pytest.raises(OrchError, match=str(os.getpid())):
            Ledger(tmp_path / "ledger")
    with Ledger(tmp_path / "ledger") as again:
        assert again.events() == []


def test_the_lock_says_which_process_runs_a_sweep_and_stays_as_it_is(tmp_path: Path) -> None:
    paths = SweepPaths(tmp_path / "tiny")
    paths.root.mkdir()
    assert running_process(paths) is None
    assert not paths.lock.exists()
    with Ledger(paths.ledger):
        assert running_process(paths) == str(os.getpid())
        assert read_sweep(paths.root).runner == str(os.getpid())
        paths.lock.write_text("")
        assert running_process(paths) == "unknown"
    paths.lock.write_text("4711\n")
    assert running_process(paths) is None
    assert paths.lock.read_text() == "4711\n"
    with Ledger(paths.ledger):
        pass
