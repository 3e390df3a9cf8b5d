"""A whole leaderboard of a fixed configuration: ``python -m benchmarks.inference [--small]``.

Three seeds of MobileNet 1.0 at 224 px with ImageNet weights and 13 unfrozen layers, the depth of TrashNet's winner in
docs/results.md, and their ensemble, under every crop policy, on TrashNet's test split. Ours is the stage that a sweep
runs, from an empty store (``benchmarks.inference_stage``); the other side is ``benchmarks.peers.leaderboard_loops``.
Both are whole processes, timed from their start to their end, but for the loops' choice of their batch size.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import Result, record
from benchmarks.common.sides import hold_cores, run_module
from benchmarks.common.task import CORES, fewer_photos, trashnet
from benchmarks.common.versus import parse
from orchestrator.ledger.ledger import Ledger
from orchestrator.paths import SweepPaths
from orchestrator.spec.load import load_spec
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import prepare_data
from orchestrator.sweep.probabilities import read_probabilities
from trainers.config import canonical
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.images.policies import crop_names, distinct_crops

TARGET = 3.0
TOLERANCE = 1e-5
POLICIES = ("whole", "centre", "flip", "ten_crop", "random_5", "pyramid")
SEEDS = 3
NOTES = """The seeds are trained for two epochs, on neither side's clock, and saved as Keras models for the loops: each
is one graph from uint8 pixels to probabilities. The loops cut the crops with the same code, decode each photo once a
policy while the network runs on the batch before, and give every batch to the three seeds. Before their clock starts
they measure `predict_on_batch`, a traced call and one by XLA at several batch sizes and take the quickest; they keep
each seed's probabilities for the ensemble. Both sides are processes of their own on two cores: the loops with two
threads, ours with Ray and two workers of one.

Ours decodes a photo once, sends each distinct crop through the frozen part once for all seeds and policies, and runs
only the unfrozen layers once a seed. The more is frozen, the more that saves; without frozen layers only the crops that
policies have in common are saved."""


@dataclass(frozen=True)
class Setting:
    """The backbone at its native size, how much of it is unfrozen, and how many test photos there are (0: all)."""

    size: str
    backbone: str
    unfrozen_layers: int
    photos: int
    target: float | None


FULL = Setting("full", "mobilenet_1.0", 13, 0, TARGET)
SMALL = Setting("small", "mobilenet_0.25", 13, 48, None)


def main(arguments: list[str] | None = None) -> int:
    """Run and record it; 1 where the target is missed. Exits with a sentence where the two sides' figures differ."""
    asked = parse("A leaderboard of three seeds under every crop policy, against plain Keras loops.", arguments)
    if asked.keep is not None and asked.keep.exists():
        raise SystemExit(f"{asked.keep} exists already; name a new folder with --keep.")
    hold_cores()
    folder = Path(asked.keep or tempfile.mkdtemp(prefix="orch-bench-")).resolve()
    try:
        return 0 if record(compare(SMALL if asked.small else FULL, folder)) else 1
    finally:
        if asked.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def compare(setting: Setting, folder: Path) -> Result:
    """Both sides, one after the other."""
    sweep = open_sweep(setting, folder)
    manifest = prepare_data(sweep)
    photos = manifest.split("test")
    fits = train(sweep, setting, folder)

    theirs, report = run_loops(photos, fits, folder)
    sweep.ledger.close()
    places = {"ORCH_CACHE": str(folder / "store")}
    began, ended = run_module(["benchmarks.inference_stage", str(folder), *fits], folder / "stage", places)
    ours_s = ended - began
    differences = [
        float(np.abs(theirs[f"{name}/{fit}"] - probabilities).max())
        for name in POLICIES
        for fit, probabilities in read(sweep, fits, name).items()
    ]
    if not max(differences) <= TOLERANCE:  # NaN is no agreement either
        raise SystemExit(f"the two sides' probabilities differ by {max(differences):.1e}, more than {TOLERANCE:.0e}.")

    count, distinct = len(photos.table), len(distinct_crops(POLICIES))
    asked = sum(len(crop_names(name)) for name in POLICIES)
    rows = (
        (
            "inference: task",
            f"{count} photos, {SEEDS} seeds of {setting.backbone}, {setting.unfrozen_layers} layers "
            f"unfrozen, {len(POLICIES)} policies",
        ),
        ("inference: plain Keras loops", f"{report['total_s']:.1f} s ({report['call']}, batches of {report['batch']})"),
        ("inference: of that before the first prediction", f"{report['start_s']:.1f} s"),
        ("inference: ours", f"{ours_s:.1f} s (two workers of one core each)"),
        ("inference: crops a photo through the frozen part", f"theirs {asked * SEEDS}, ours {distinct}"),
        ("inference: largest difference of a probability", f"{max(differences):.1e}"),
    )
    return Result("inference", report["total_s"] / ours_s, "x", setting.target, True, setting.size, rows, NOTES)


def open_sweep(setting: Setting, folder: Path) -> SweepContext:
    """A sweep of the data, nothing in it yet, whose store is empty."""
    table, weights = trashnet()
    folder.mkdir(parents=True, exist_ok=True)
    if setting.photos:
        table = fewer_photos(table, folder / "photos", 2 * setting.photos, setting.photos)
    os.environ["ORCH_CACHE"] = str(folder / "store")
    file = folder / "sweep.yaml"
    content = {
        "name": "inference",
        "data": {"source": str(table), "splits": "own"},
        "search": {"backbone": setting.backbone, "unfrozen_layers": setting.unfrozen_layers},
        "budget": {"trials": 1, "epochs": 2},
        "final": {"seeds": SEEDS, "policies": list(POLICIES)},
        "weights": str(weights),
    }
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")
    SweepPaths(folder / "sweep").root.mkdir()
    return sweep_in(folder)


def sweep_in(folder: Path) -> SweepContext:
    """The sweep that ``open_sweep`` has made in ``folder``, opened by this process."""
    paths = SweepPaths(folder / "sweep")
    spec = load_spec(str(folder / "sweep.yaml"))
    return SweepContext(paths, spec, Ledger(paths.ledger), lambda event: None)


def train(sweep: SweepContext, setting: Setting, folder: Path) -> list[str]:
    """The names of the trained fits; each is a Keras file too. Their store is another than the one measured."""
    config = canonical({"backbone": setting.backbone, "unfrozen_layers": setting.unfrozen_layers, "epochs": 2})
    fits = [f"seed-{seed}" for seed in range(SEEDS)]
    jobs: list[dict[str, Any]] = []
    for seed, fit in enumerate(fits):
        job: FitJob = sweep.fit_job(fit, config, seed, ("train",))
        jobs.append(dataclasses.replace(job, cache=str(folder / "training-store"), threads=CORES).to_dict())
    (folder / "seeds.json").write_text(json.dumps({"jobs": jobs, "models": str(folder / "keras")}), encoding="utf-8")
    run_module(["benchmarks.inference_seeds", str(folder / "seeds.json")], folder / "training")
    return fits


def run_loops(photos: Manifest, fits: list[str], folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(policy/fit -> probabilities, what the loops report), the whole process timed but for their own tuning."""
    task = {
        "photos": [[str(path), sha256] for path, sha256 in zip(photos.paths(), photos.table["sha256"], strict=True)],
        "models": {fit: str(folder / "keras" / f"{fit}.keras") for fit in fits},
        "policies": list(POLICIES),
        "threads": CORES,
        "output": str(folder / "loops.npz"),
        "report": str(folder / "loops.json"),
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    began, ended = run_module(["benchmarks.peers.leaderboard_loops", str(folder / "task.json")], folder / "loops")
    report = json.loads((folder / "loops.json").read_text(encoding="utf-8"))
    report["total_s"] = ended - began - report["tuning_s"]
    with np.load(folder / "loops.npz") as stored:
        return dict(stored), report


def read(sweep: SweepContext, fits: list[str], name: str) -> dict[str, np.ndarray]:
    """Each fit's probabilities under the policy ``name``."""
    return {fit: read_probabilities(sweep.kept(), fit, "test", name)["probabilities"] for fit in fits}


if __name__ == "__main__":
    sys.exit(main())
