"""What every side of a comparison is given: photos, a list of trials, and the cores."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from trainers.backbones import backbone, weight_file

DATA, WEIGHTS = "ORCH_DATA", "ORCH_WEIGHTS"
CORES = 2
"""So many cores are used by every side."""


@dataclass(frozen=True)
class Trial:
    """One configuration and the epochs it is trained for. ``config``: fields of ``trainers.contract.TrialConfig``."""

    name: str
    epochs: int
    config: dict[str, Any]

    @property
    def kind(self) -> tuple[str, int | str]:
        """(backbone, unfrozen layers): trials of one kind take about the same time an epoch."""
        return self.config["backbone"], self.config["unfrozen_layers"]


@dataclass(frozen=True)
class Task:
    """``table``: CSV of path, label and split, the photos next to it. ``weights``: folder of weight files.

    Every trial trains at a constant learning rate with Adam, so that what an epoch does never depends on how many
    there are, and on ``image_size`` pixels a side in batches of ``batch_size``. ``steps_per_execution`` and
    ``jit_compile`` are the peers' arguments of ``Model.compile``.
    """

    name: str
    table: Path
    weights: Path
    image_size: int
    trials: tuple[Trial, ...]
    batch_size: int = 32
    steps_per_execution: int = 8
    jit_compile: bool = False

    def first(self, count: int, epochs: int | None = None) -> Task:
        """The first ``count`` trials alone, all of ``epochs`` where that is given."""
        chosen = self.trials[:count]
        if epochs is not None:
            chosen = tuple(dataclasses.replace(trial, epochs=epochs) for trial in chosen)
        return dataclasses.replace(self, trials=chosen)

    def only(self, names: Sequence[str], multiple: int = 1) -> Task:
        """The trials called ``names`` (none: all), and the next ones of the list until there is a multiple of
        ``multiple``, so that none of so many workers idles at the end."""
        if not names:
            return self
        chosen = [trial for trial in self.trials if trial.name in names]
        others = [trial for trial in self.trials if trial.name not in names]
        kept = {trial.name for trial in [*chosen, *others[: -len(chosen) % multiple]]}
        return dataclasses.replace(self, trials=tuple(trial for trial in self.trials if trial.name in kept))

    def write(self, path: Path, threads: int, concurrent: int) -> None:
        """The file that a peer's script reads; its cache and scratch folders lie next to it."""
        names = {trial.config["backbone"] for trial in self.trials}
        task = {
            "table": str(self.table),
            "weights": {name: str(weight_file(backbone(name), self.weights, self.image_size)) for name in names},
            "image_size": self.image_size,
            "batch_size": self.batch_size,
            "steps_per_execution": self.steps_per_execution,
            "jit_compile": self.jit_compile,
            "trials": [dataclasses.asdict(trial) for trial in self.trials],
            "cache": str(path.parent / "images"),
            "scratch": str(path.parent / "scratch"),
            "cores": CORES,
            "threads": threads,
            "concurrent": concurrent,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(task, indent=1), encoding="utf-8")

    def sweep_file(self, path: Path, cpus: int, scheduler: str | Mapping[str, Any] = "none") -> None:
        """The same as a file for ``orch sweep``, with ``scheduler`` in its budget. Trials of different epochs need
        ``benchmarks.common.recorded_sweep``."""
        configurations = [{"name": trial.name, **trial.config} for trial in self.trials]
        fields = {"batch_size": self.batch_size, "optimizer": "adam", "schedule": "constant", "warmup": 0}
        content = {
            "name": self.name.replace("_", "-"),
            "data": {"source": str(self.table), "splits": "own"},
            "search": {
                **fields,
                "clip_norm": 0,
                "image_size": self.image_size,
                "configurations": configurations,
            },
            "budget": {"epochs": max(trial.epochs for trial in self.trials), "scheduler": scheduler},
            "resources": {"cpus": cpus},
            "weights": str(self.weights),
        }
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def trashnet() -> tuple[Path, Path]:
    """(TrashNet's split.csv, the folder of weights), as ORCH_DATA and ORCH_WEIGHTS name them. Exits with a sentence."""
    missing = [name for name in (DATA, WEIGHTS) if not os.environ.get(name)]
    if missing:
        raise SystemExit(
            f"{' and '.join(missing)} must be set: {DATA} names a folder that holds trashnet/split.csv, {WEIGHTS} "
            "one of MobileNet weight files (see search_spaces/trashnet.yaml)."
        )
    table = Path(os.environ[DATA]).expanduser().resolve() / "trashnet" / "split.csv"
    if not table.is_file():
        raise SystemExit(f"there is no {table}; {DATA} must name the folder that holds trashnet/split.csv.")
    return table, Path(os.environ[WEIGHTS]).expanduser().resolve()


def fewer_photos(table: Path, folder: Path, train: int, others: int) -> Path:
    """A table in ``folder`` with about ``train`` training photos and ``others`` of each other split, as even over the
    classes as the originals are; the photos are linked."""
    rows = pd.read_csv(table)
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for split, part in rows.groupby("split", sort=True):
        share = min(1.0, (train if split == "train" else others) / len(part))
        for _, same in part.groupby("label", sort=True):
            parts.append(same.iloc[: max(1, round(share * len(same)))])
    chosen = pd.concat(parts)
    for top in sorted({Path(path).parts[0] for path in chosen["path"]}):
        link = folder / top
        if not link.exists():
            link.symlink_to(table.parent / top)
    chosen.to_csv(folder / "split.csv", index=False)
    return folder / "split.csv"
