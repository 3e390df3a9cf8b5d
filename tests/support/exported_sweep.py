"""A finished sweep of tiny networks on disk, ready to be exported."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import jobs as cluster_jobs
from orchestrator.cluster import ray_session
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.segments import EventKind
from orchestrator.paths import SweepPaths
from orchestrator.sweep.judged import JudgedWinner
from tests.support.tiny_fits import predict_into, write_manifest
from tests.trainers.serving.test_model import finish, put_together
from trainers.calibration import Calibration, Level
from trainers.errors import TrainerError
from trainers.export import export

TFLITE = ("tflite", "tflite-fp16", "tflite-int8")
WITHOUT_EXTRAS = ("savedmodel", *TFLITE)
POLICY = "flip"
PHOTOS = 24
CALIBRATION = Calibration(0.7, (Level(0.0, 1.0, 0.9, 0.82), Level(0.6, 0.5, 0.97, 0.91)), 200)


def write_sweep(root: Path, members: int = 2, **trial: Any) -> SweepPaths:
    """A finished sweep whose winner is an ensemble of ``members`` networks, trained for an epoch."""
    paths = SweepPaths(root)
    made = write_manifest(root.parent / f"{root.name}-pictures", {"train": 24, "validation": 4, "test": PHOTOS // 3})
    root.mkdir()
    shutil.copy(made, paths.manifest)
    values = {"backbone": "small_cnn", "view": "squash", "head": "softmax", "unfrozen_layers": 3} | trial
    fits = [
        finish(paths.manifest, root / "models", f"fit-{seed}", seed, "none", **values) for seed in range(1, members + 1)
    ]
    models = {Path(f).name: f for f in fits}
    outputs = {POLICY: {name: str(paths.probabilities(name, "test", POLICY)) for name in models}}
    predict_into(outputs, models=models, manifest=str(paths.manifest), split="test")
    put_together(fits, paths.winner, POLICY, CALIBRATION.to_dict())
    with Ledger(paths.ledger) as ledger:
        winner = {"trial": "fit-0", "model": "ensemble", "policy": POLICY}
        ledger.append(EventKind.STAGE, stage="select", state="ENDED", payload={"winner": winner})
        judged = JudgedWinner(winner, {"model": "winner/ensemble", "policy": POLICY}, tuple(models))
        ledger.append(EventKind.STAGE, stage="leaderboard", state="BEGUN", payload={"reads_test": 1})
        ledger.append(EventKind.STAGE, stage="leaderboard", state="ENDED", payload=judged.to_dict())
        ledger.append(EventKind.SWEEP, state="FINISHED")
    return paths


def export_here(patch: pytest.MonkeyPatch) -> None:
    """Have exports run in this process instead of on Ray's workers."""

    def here(function: str, jobs: list[dict[str, Any]], cpus: float, **more: Any) -> list[dict[str, Any]]:
        assert function == "trainers.export.export:export"
        try:
            return [export.export({**job, "threads": int(cpus)}) for job in jobs]
        except TrainerError as error:
            raise OrchError(str(error)) from error

    patch.setattr(cluster_jobs, "run_jobs", here)
    patch.setattr(ray_session, "ray_session", lambda address: contextlib.nullcontext())
