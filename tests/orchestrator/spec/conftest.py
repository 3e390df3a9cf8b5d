"""Fixtures of the tests of a sweep's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.load import load_spec
from orchestrator.spec.sweep import SweepSpec
from tests.support.sweep_files import Load


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a YAML text with ``--set`` texts and environment variables, from the folder of the file."""
    monkeypatch.chdir(tmp_path)

    def load(text: str, *overrides: str, **environ: str) -> SweepSpec:
        Path("f.yaml").write_text(text)
        return load_spec("f.yaml", overrides, environ)

    return load
