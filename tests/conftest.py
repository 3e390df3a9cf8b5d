"""What every test starts from: no setting of the machine's own, a cache that goes away; and what fits train on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.common.keras_home import fill_keras_home

# One thread, as tests' fits ask for: some processors round otherwise with more, and the first test that uses TensorFlow
# decides for its process.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
OF_THE_MACHINE = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS", "NO_COLOR", "FORCE_COLOR", "COLUMNS")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see none of the machine's addresses and share one cache that lasts as long as the run.

    Keras' cache has a file, an empty one, for every backbone: files are checked alike with and without a network.
    """
    for name in OF_THE_MACHINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path_factory.getbasetemp() / "orch-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "orch-data"))
    monkeypatch.setenv("KERAS_HOME", str(fill_keras_home(tmp_path_factory.getbasetemp() / "keras-home")))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of tiny pictures that can be learnt (``tiny_fits``), written once for a file of tests."""
    from tests.support.tiny_fits import write_manifest  # pandas: not for tests that do without

    return write_manifest(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of its own for a file of tests, which fits share."""
    return tmp_path_factory.mktemp("cache")


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
