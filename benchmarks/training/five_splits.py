"""Accuracy of two versions of a sweep on five splits of TrashNet whose test parts are disjoint.

    python -m benchmarks.training.five_splits make FOLDER
    python -m benchmarks.training.five_splits run FOLDER SIDE --file trashnet.yaml --checkout CHECKOUT
    python -m benchmarks.training.five_splits report FOLDER

Needs TrashNet in ORCH_DATA and weights in ORCH_WEIGHTS. ``make`` copies the photos to FOLDER and writes a table for
each split. ``run`` sweeps the splits that SIDE ("base" or "candidate") lacks, with the code of CHECKOUT, and resumes
what was interrupted; the file's own data are replaced by the split. ``report`` pools the test photos of the splits
that both sides have, and writes each photo's answers to five_splits.csv. Everything is chosen on validation by each
sweep itself; the test part of a split is read once, for its winner.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

TABLE = Path(__file__).with_name("five_splits.csv")
SPLITS = 5
SHARE = 0.15
"""Share of the photos in each test part, and in each validation part."""
SIDES = ("base", "candidate")
SEED = 20261130
"""Seed of the test parts; split k draws its validation part with the next ones."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Two versions of a sweep on five splits of TrashNet.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("make", "run", "report"):
        verbs.add_parser(verb).add_argument("folder", type=Path)
    run_parser = verbs.choices["run"]
    run_parser.add_argument("side", choices=SIDES)
    run_parser.add_argument("--file", type=Path, required=True, help="the YAML file")
    run_parser.add_argument("--checkout", type=Path, required=True, help="the code that runs it")
    run_parser.add_argument("--split", type=int, choices=range(SPLITS), action="append", help="these splits alone")
    asked = parser.parse_args()
    if asked.verb == "make":
        make(asked.folder)
    elif asked.verb == "run":
        for number in asked.split or range(SPLITS):
            run(asked.folder, asked.side, number, asked.file, asked.checkout)
    else:
        for line in report(asked.folder):
            print(line)


def make(folder: Path) -> None:
    """Copy the photos and write ``split-0.csv`` to ``split-4.csv``."""
    from trainers.data.build import build_manifest
    from trainers.data.data_source import DataSource

    source = Path(os.environ["ORCH_DATA"]) / "trashnet"
    shutil.copytree(source, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    manifest, _ = build_manifest(DataSource(str(folder / "split.csv"), "auto", folder / "cache"))
    table = manifest.table.sort_values("path", ignore_index=True)
    for number, splits in enumerate(disjoint_splits(table["label"].to_numpy(), table["group"].to_numpy())):
        rows = pd.DataFrame({"path": table["path"], "label": table["label"], "split": splits, "group": table["group"]})
        rows.to_csv(folder / f"split-{number}.csv", index=False)


def disjoint_splits(labels: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Return, for each of ``SPLITS``, "train", "validation" or "test" for each image.

    Of every class, a share ``SHARE`` is in each test part, no image is in two of them, and a group is never divided.
    """
    part = _dealt(labels, groups, np.full(SPLITS, SHARE), SEED)
    found = []
    for number in range(SPLITS):
        splits = np.where(part == number, "test", "train").astype(object)
        rest = np.flatnonzero(part != number)
        chosen = _dealt(labels[rest], groups[rest], np.array([SHARE / (1 - SHARE)]), SEED + 1 + number) == 0
        splits[rest[chosen]] = "validation"
        found.append(splits)
    return found


def _dealt(labels: np.ndarray, groups: np.ndarray, shares: np.ndarray, seed: int) -> np.ndarray:
    """Number of the part that each image is dealt to, -1 for none: of each class, ``shares`` of its images.

    A group counts to the class of its first image.
    """
    draw = np.random.default_rng(seed)
    part = np.full(len(labels), -1)
    _, first, members = np.unique(groups, return_index=True, return_inverse=True)
    sizes = np.bincount(members)
    for label in np.unique(labels):
        own = draw.permutation(np.flatnonzero(labels[first] == label))
        ends = np.cumsum(sizes[own])
        bounds = np.round(np.cumsum(shares) * ends[-1])
        places = np.searchsorted(bounds, ends - sizes[own] / 2, side="right")
        for group, place in zip(own, places, strict=True):
            part[members == group] = place if place < len(shares) else -1
    return part


def run(folder: Path, side: str, number: int, file: Path, checkout: Path) -> None:
    """Sweep one split, or go on with it; its wall-clock seconds are added to ``seconds.txt`` of the sweep's folder.

    Raises CalledProcessError if the sweep fails.
    """
    out = folder / f"{side}-{number}"
    if (out / "winner" / "model.json").is_file():
        return
    own = [f"data.source={folder / f'split-{number}.csv'}", "data.splits=own"]
    command = [sys.executable, "-m", "orchestrator", "sweep", str(file.resolve())]
    command += [word for each in own for word in ("--set", each)]
    command += ["--out", str(out), *(["--resume"] if out.exists() else [])]
    place = folder / f"{side}-home"
    place.mkdir(exist_ok=True)
    began_s = time.monotonic()
    try:
        # os.environ holds what benchmarks/__init__.py sets, so both sides have the same kernels.
        subprocess.run(command, cwd=place, env={**os.environ, "PYTHONPATH": str(checkout.resolve())}, check=True)
    finally:
        if out.is_dir():
            with (out / "seconds.txt").open("a") as lines:
                lines.write(f"{time.monotonic() - began_s:.0f}\n")


def answers(sweep: Path) -> pd.DataFrame:
    """The winner's answers on its test photos: sha256, label and predicted, as class numbers."""
    about = json.loads((sweep / "winner" / "model.json").read_text())
    stored = [np.load(sweep / "probabilities" / fit / f"test-{about['policy']}.npz") for fit in about["fits"]]
    mean = np.mean([each["probabilities"].astype(np.float64) for each in stored], axis=0)
    return pd.DataFrame({"sha256": stored[0]["sha256"], "label": stored[0]["labels"], "predicted": mean.argmax(1)})


def report(folder: Path) -> Iterator[str]:
    """Yield a line for each split, and the pooled accuracies and their paired difference; write ``TABLE``."""
    parts = []
    for number in range(SPLITS):
        sweeps = [folder / f"{side}-{number}" for side in SIDES]
        if not all((sweep / "winner" / "model.json").is_file() for sweep in sweeps):
            yield f"split {number}: not yet"
            continue
        base, candidate = (answers(sweep) for sweep in sweeps)
        both = base.merge(candidate[["sha256", "predicted"]], on="sha256", suffixes=("_base", "_candidate"))
        if not len(both) == len(base) == len(candidate):
            raise SystemExit(f"split {number}: the sides were judged on different photos")
        manifest = pd.read_parquet(sweeps[1] / "manifest.parquet", columns=["sha256", "path", "group"])
        both = both.merge(manifest.drop_duplicates("sha256"), on="sha256").assign(split=number)
        parts.append(both)
        right = [(both[f"predicted_{side}"] == both["label"]).mean() for side in SIDES]
        yield f"split {number}: base {right[0]:.4f}, candidate {right[1]:.4f}, {len(both)} photos{_minutes(sweeps)}"
    if parts:
        table = pd.concat(parts)
        table.drop(columns="sha256").to_csv(TABLE, index=False)
        yield from pooled(table)


def _minutes(sweeps: Sequence[Path]) -> str:
    spent = [sum(map(float, (sweep / "seconds.txt").read_text().split())) / 60 for sweep in sweeps]
    return f", {spent[0]:.0f} and {spent[1]:.0f} minutes"


def pooled(table: pd.DataFrame) -> Iterator[str]:
    """Yield the accuracies over all photos of ``table`` and their paired difference with its interval, by groups of
    photos, and, since the networks of a split err together, by splits."""
    from orchestrator.evaluation.intervals import student

    right = [(table[f"predicted_{side}"] == table["label"]).to_numpy() for side in SIDES]
    yield f"pooled: base {right[0].mean():.4f}, candidate {right[1].mean():.4f}, {len(table)} photos"
    yield difference_line(right[0], right[1], table["group"].to_numpy())
    gain = pd.Series(right[1].astype(float) - right[0])
    gains = gain.groupby(table["split"].to_numpy()).mean()
    if len(gains) > 1:
        half = float(student(len(gains) - 1)) * gains.std() / np.sqrt(len(gains))
        yield f"by splits: {100 * gains.mean():+.2f} ± {100 * half:.2f} points, t on {len(gains)} splits"


def difference_line(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> str:
    """Say by how much ``second``, bool (n,), is right more often than ``first`` on the same photos of ``groups``."""
    from orchestrator.evaluation.intervals import paired_difference
    from orchestrator.evaluation.variance import Groups

    found = paired_difference(first, second, Groups.of(groups, len(groups)))
    low, high = 100 * found.low, 100 * found.high
    return f"difference {100 * found.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"


if __name__ == "__main__":
    main()
