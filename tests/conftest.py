"""What every test starts from: no setting of the machine's own, and a cache that goes away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

OF_THE_MACHINE = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see none of the machine's addresses and share one cache that lasts as long as the run."""
    for name in OF_THE_MACHINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path_factory.getbasetemp() / "orch-cache"))


@pytest.fixture
def orch_data() -> Path:
    """The folder of real photos; the test is skipped where ORCH_DATA names none."""
    return _folder("ORCH_DATA", "real photos")


@pytest.fixture
def orch_weights() -> Path:
    """The folder of real weight files; the test is skipped where ORCH_WEIGHTS names none."""
    return _folder("ORCH_WEIGHTS", "real weight files")


def _folder(name: str, what: str) -> Path:
    value = os.environ.get(name)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{name} names no folder of {what}")
    return Path(value)
