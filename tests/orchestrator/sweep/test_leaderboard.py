"""Which models share the work of their frozen parts on the test split; what is kept of the winner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.cluster import jobs as cluster_jobs
from orchestrator.evaluation.calibration import LabelledAnswers, calibrate
from orchestrator.sweep import leaderboard
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.leaderboard import _measure_neighbours, _prefix_of, write_evidence
from orchestrator.sweep.refit import FinalModel
from orchestrator.sweep.select import Winner
from tests.support.printed_lines import PrintedLines
from tests.support.tiny_fits import config, job, write_manifest
from trainers.config import TrialConfig
from trainers.data.manifest import Manifest
from trainers.serving.neighbours import NEIGHBOURS_FILE, write_neighbours
from trainers.training.loop import open_fit


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        ({"head": "normface", "dropout": 0.5, "learning_rate": 0.1, "mixup": 0.0}, True),
        ({"output_stride": 16}, False),
        ({"feature_fusion": "sum"}, False),
        ({"mixup": 0.2}, False),
        ({"cutmix": 1.0}, False),
        ({"view": "centre_crop"}, False),
        ({"unfrozen_layers": 5}, False),
    ],
)
def test_what_models_share_when_they_predict(changes: dict[str, Any], shares: bool) -> None:
    assert (_prefix_of(TrialConfig()) == _prefix_of(TrialConfig(**changes))) == shares


def test_mixup_and_cutmix_share_with_each_other() -> None:
    assert _prefix_of(TrialConfig(mixup=0.2)) == _prefix_of(TrialConfig(mixup=0.4, cutmix=1.0))


@pytest.mark.parametrize("refit", ["train", "train+validation"])
def test_thresholds_count_the_trials_that_validation_chose_among(
    open_sweep: Callable[..., SweepContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refit: str
) -> None:
    """With ``refit: train`` and one seed the final network is the chosen trial again."""
    sweep = open_sweep()
    sweep = replace(
        sweep, spec=sweep.spec.model_copy(update={"final": sweep.spec.final.model_copy(update={"refit": refit})})
    )
    manifest = Manifest.read(write_manifest(tmp_path / "pictures", {"train": 2, "validation": 40, "test": 2}))
    labels, hashes = manifest.split("validation").labels(), manifest.split("validation").table["sha256"]
    right = np.eye(3)[np.where(np.arange(len(labels)) % 10 == 0, (labels + 1) % 3, labels)] * 0.6 + 0.4 / 3
    stored = {"sha256": hashes.to_numpy(str), "labels": labels, "probabilities": right}
    monkeypatch.setattr(leaderboard, "predict_missing", lambda *arguments, **more: None)
    monkeypatch.setattr(leaderboard, "read_probabilities", lambda kept, fit, split, policy: stored)
    winner = Winner("t", config(), "whole", "single", "it is the best.", (), chosen_among=3)
    found, facts = leaderboard._calibrate(sweep, manifest, winner, [FinalModel("winner/seed-0", "a1", config())])
    assert (facts["fits"], facts["chosen_among"]) == (["a1"] if refit == "train" else ["t"], 3)
    answers = LabelledAnswers(right, labels, manifest.split("validation").table["group"].tolist())
    assert found == calibrate(answers, 3)[0] != calibrate(answers, 1)[0]
    assert found.highest < calibrate(answers, 1)[0].highest


def test_another_form_of_the_winner_has_a_row_and_is_no_part_of_the_ensemble(
    open_sweep: Callable[..., SweepContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = {"a": 0.6, "b": 0.8, "s": 1.0}

    def stored(kept: object, fit: str, split: str, policy: str) -> dict[str, np.ndarray]:
        rows = np.array([[sure[fit], 1 - sure[fit]]])
        arrays = {"probabilities": rows, "labels": np.zeros(1, np.int32), "sha256": np.array(["x"])}
        return arrays | {"seconds": np.float64(2.0), "shared_seconds": np.float64(1.5)}

    monkeypatch.setattr(leaderboard, "read_probabilities", stored)
    names = {"winner/seed-0": "a", "winner/seed-1": "b", "winner/soup": "s"}
    models = [FinalModel(name, fit, config()) for name, fit in names.items()]
    predictions, _, _ = leaderboard._predictions(open_sweep(), models)
    whole = {p.model: (float(p.probabilities[0, 0]), p.seconds) for p in predictions if p.policy == "whole"}
    assert whole == {
        "winner/seed-0": (0.6, 2.0),
        "winner/seed-1": (0.8, 2.0),
        "winner/soup": (1.0, 2.0),
        "winner/ensemble": (pytest.approx(0.7), 2.5),
    }


def test_the_winner_keeps_distances_and_is_judged_without_them_where_photos_are_gone(
    open_sweep: Callable[..., SweepContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: PrintedLines
) -> None:
    sweep = open_sweep()
    sweep.paths.root.mkdir(exist_ok=True)
    write_manifest(tmp_path / "pictures").rename(sweep.paths.manifest)
    fit = open_fit(job(sweep.paths.manifest, tmp_path / "cache", output=str(sweep.paths.fit("a1")), epochs=1))
    fit.run_epoch()
    fit.finish()

    def here(function: str, jobs: list[dict[str, Any]], cpus: float, **more: Any) -> list[dict[str, Any]]:
        assert function == "trainers.serving.neighbours:write_neighbours"
        return [write_neighbours(each) for each in jobs]

    monkeypatch.setattr(cluster_jobs, "run_jobs", here)
    monkeypatch.setattr(SweepContext, "gpus_per_trial", lambda self: 0.0)
    manifest, winner = Manifest.read(sweep.paths.manifest), FinalModel("winner/seed-0", "a1", config())
    found = _measure_neighbours(sweep, winner)
    assert found is not None
    assert (sweep.paths.winner / NEIGHBOURS_FILE).is_file()
    test = manifest.split("test").table
    write_evidence(sweep, manifest, np.full((len(test), 3), 1 / 3), found)
    table = pd.read_parquet(sweep.paths.evidence).set_index("sha256")
    assert table.loc[test["sha256"], "distance"].tolist() == found.tolist()
    assert table["distance"].isna().sum() == len(table) - len(test)

    manifest.split("train").paths()[0].write_bytes(b"gone")
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "another"))
    assert _measure_neighbours(sweep, winner) is None
    assert "how far new photos are from these cannot be told later: " in " ".join(printed.lines)
    write_evidence(sweep, manifest, np.full((len(test), 3), 1 / 3))
    assert "distance" not in pd.read_parquet(sweep.paths.evidence)
