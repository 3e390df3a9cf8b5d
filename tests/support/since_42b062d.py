"""What the code of 42b062d wrote, unpacked for tests. How it was made: ``fixtures/orch-0.1.0-42b062d/README.md``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import trainers

TESTS = next(folder for folder in Path(__file__).resolve().parents if folder.name == "tests")
RECORDED = TESTS / "fixtures" / "orch-0.1.0-42b062d"
ROOT = Path(trainers.__file__).resolve().parents[1]
"""Folder of the packages under test."""


def unpack(folder: Path, *names: str) -> Path:
    """Unpack the folders ``names`` of the archive into ``folder``, times of change included; returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(RECORDED / "made.tar.xz") as archive:
        chosen = [member for member in archive if member.name.split("/")[1:2] and member.name.split("/")[1] in names]
        assert {member.name.split("/")[1] for member in chosen} == set(names)
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 and newer
        archive.extractall(folder, chosen, **safe)  # type: ignore[arg-type]
    return folder


def recorded(name: str) -> Any:
    """The JSON file ``name``."""
    return json.loads((RECORDED / name).read_text())


def environment(cache: Path) -> dict[str, str]:
    """For a process that runs the packages under test and sees no MLflow but the store of its working directory."""
    environ = {**os.environ, "ORCH_CACHE": str(cache), "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    environ.pop("MLFLOW_TRACKING_URI", None)
    return environ


def orch(folder: Path, cache: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``orch WORDS`` as typed in ``folder``."""
    command = [sys.executable, "-m", "orchestrator", *words]
    return subprocess.run(
        command, cwd=folder, env=environment(cache), capture_output=True, text=True, timeout=240, check=False
    )
