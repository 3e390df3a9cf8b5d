"""A finished sweep and an empty MLflow store."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.paths import SweepPaths
from tests.support.fake_store import new_store
from tests.support.tracked_sweep import write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> SweepPaths:
    return write_sweep(tmp_path / "läufe und mehr" / "tiny")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return new_store(tmp_path / "a store")
