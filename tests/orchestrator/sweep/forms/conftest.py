"""A sweep whose winner was chosen, and which runs in this process."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.select import Winner
from tests.orchestrator.sweep.conftest import open_sweep, printed
from tests.support.in_process import InProcess
from tests.support.tiny_fits import config, write_manifest
from trainers.data.manifest import Manifest

__all__ = ["open_sweep", "printed"]

WINNER = Winner("t1", config(batch_norm="adapted", epochs=2), "whole", "ensemble", "It is the best.", ())
Chosen = Callable[..., tuple[SweepContext, Manifest]]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> InProcess:
    return InProcess(monkeypatch)


@pytest.fixture
def chosen(open_sweep: Callable[..., SweepContext], in_process: InProcess) -> Chosen:
    """The sweep and its manifest; arguments are of its ``final`` section."""

    def chosen(**final: object) -> tuple[SweepContext, Manifest]:
        sweep = open_sweep()
        changed = sweep.spec.final.model_copy(update={"seeds": 2, "runners_up": 0, "policies": ("whole",), **final})
        sweep = dataclasses.replace(sweep, spec=sweep.spec.model_copy(update={"final": changed}))
        counts = {"train": 12, "validation": 8, "test": 2}
        manifest = write_manifest(sweep.paths.root.parent / "pictures", counts)
        sweep.paths.root.mkdir(exist_ok=True)
        Path(manifest).rename(sweep.paths.manifest)
        sweep.keep([sweep.paths.manifest])
        return sweep, Manifest.read(sweep.paths.manifest)

    return chosen
