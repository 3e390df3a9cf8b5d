"""Configurations for trashnet.yaml, compared on photos of TrashNet that no test part of the five splits holds.

    python -m benchmarks.training.candidates FOLDER --cache CACHE
    python -m benchmarks.training.candidates FOLDER --only "224 px, concat" --only "320 px"

FOLDER is that of ``benchmarks.training.five_splits make``. Trains on the photos of the five test parts and validates on
the other quarter, so what is chosen here has seen no photo on which it is reported. Appends a row for each fit to
candidates.csv; rows that are there are not trained again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.training.five_splits import SPLITS
from benchmarks.training.words import append, read, trained
from orchestrator.spec.practice import PRACTICE

TABLE = Path(__file__).with_name("candidates.csv")
COLUMNS = ("name", "seed", "val_accuracy", "val_loss", "seconds", "date")
SEEDS = (0, 1, 2)
MOBILENET = {
    **PRACTICE,
    **{
        "weight_decay": 1e-4,
        "dropout": 0.2,
        "backbone": "mobilenet_1.0",
        "unfrozen_layers": 13,
        "multiplier": 2,
        "recipe": "flips",
    },
    **{"image_size": 224, "smoothing": 0.1, "learning_rate": 0.001, "epochs": 8},
}
LITE = {**MOBILENET, "backbone": "efficientnet_lite0", "unfrozen_layers": 20}
CANDIDATES: dict[str, Mapping[str, Any]] = {
    "224 px": MOBILENET,
    "224 px, concat": {**MOBILENET, "feature_fusion": "concat"},
    "224 px, sum": {**MOBILENET, "feature_fusion": "sum"},
    "224 px, concat, rich": {**MOBILENET, "feature_fusion": "concat", "recipe": "rich"},
    "224 px, concat, normface": {**MOBILENET, "feature_fusion": "concat", "head": "normface", "scale": 16},
    "320 px": {**MOBILENET, "image_size": 320},
    "320 px, concat": {**MOBILENET, "image_size": 320, "feature_fusion": "concat"},
    "lite0, 224 px, concat": {**LITE, "feature_fusion": "concat"},
    "lite2, 260 px, concat": {
        **LITE,
        **{"backbone": "efficientnet_lite2", "image_size": 260, "feature_fusion": "concat"},
    },
    "160 px, 43 layers": {**MOBILENET, "image_size": 160, "unfrozen_layers": 43},
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Configurations for trashnet.yaml, on photos that are never tested.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="where features are stored; else in the folder")
    parser.add_argument("--only", choices=CANDIDATES, action="append", help="these alone; else all")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append", help="these seeds alone; else all")
    asked = parser.parse_args()
    cache = asked.cache or asked.folder / "cache"
    manifest = design_manifest(asked.folder, cache)
    for seed in asked.seed or SEEDS:
        for name in asked.only or CANDIDATES:
            if (name, str(seed)) not in {(row["name"], row["seed"]) for row in read(TABLE)}:
                row = trained(CANDIDATES[name], seed, manifest, cache)
                append({"name": name, "seed": seed, **row}, TABLE, COLUMNS)
    for line in report(read(TABLE)):
        print(line)


def design_manifest(folder: Path, cache: Path) -> Path:
    """Write the manifest whose validation photos are those that no test part holds, and whose training photos are the
    others."""
    from trainers.data.build import build_manifest
    from trainers.data.data_source import DataSource

    path = folder / "candidates.parquet"
    if not path.is_file():
        tables = [pd.read_csv(folder / f"split-{number}.csv").set_index("path") for number in range(SPLITS)]
        tested = np.any([(table["split"] == "test").reindex(tables[0].index) for table in tables], axis=0)
        splits = dict(zip(tables[0].index, np.where(tested, "train", "validation"), strict=True))
        manifest, _ = build_manifest(DataSource(str(folder / "split-0.csv"), "auto", cache))
        replace(manifest, table=manifest.table.assign(split=manifest.table["path"].map(splits))).write(path)
    return path


def report(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """A line for each candidate: the mean over its seeds, and its seconds."""
    for name in CANDIDATES:
        own = [row for row in rows if row["name"] == name]
        if own:
            accuracy = np.mean([float(row["val_accuracy"]) for row in own])
            seconds = np.mean([float(row["seconds"]) for row in own])
            yield f"{name:28s} {accuracy:.4f}  {seconds:5.0f} s, seeds {', '.join(row['seed'] for row in own)}"


if __name__ == "__main__":
    main()
