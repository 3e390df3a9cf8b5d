"""What the trials of a sweep that 42b062d ran become if they are trained by today's code: the same figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.ledger.folder import read_sweep
from tests.support.since_42b062d import unpack
from trainers.config import TrialConfig
from trainers.contract import FitJob
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.training.loop import open_fit

TRIALS = 3


def test_trials_of_then_train_to_the_same_figures(tmp_path: Path) -> None:
    """Trained batch norms among them. Equal to the last digit on one processor; another one's rounding, which training
    amplifies, is allowed for. With another momentum of the batch norms, accuracies differ by 0.1."""
    sweep = read_sweep(unpack(tmp_path, "finished") / "finished")
    digits, _ = build_manifest(DataSource("builtin:digits", (0.6, 0.2, 0.2), tmp_path / "cache"))
    manifest = tmp_path / "manifest.parquet"
    dataclasses.replace(Manifest.read(sweep.paths.manifest, files=False), root=digits.root).write(manifest)
    seen = 0
    for record in sweep.trials:
        config = TrialConfig(**record.config)
        assert config.non_defaults() == {k: v for k, v in record.config.items() if v != getattr(TrialConfig(), k)}
        job = FitJob(record.id, config, 0, str(manifest), weights="none", cache=str(tmp_path / "cache"), threads=1)
        fit = open_fit(job)
        for was in record.epochs:
            now = fit.run_epoch()
            assert now.loss == pytest.approx(was["loss"], rel=2e-3 if now.epoch == 1 else 2e-2)
            assert now.val_accuracy == pytest.approx(was["val_accuracy"], abs=0.06)
            seen += 1
    assert seen == TRIALS * 2
