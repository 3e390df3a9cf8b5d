"""What each word of training brings on validation, over seeds, by which its default is chosen.

    python -m benchmarks.training.words --study batch_norm
    python -m benchmarks.training.words --report

Needs TrashNet and Clothing in ORCH_DATA and weights in ORCH_WEIGHTS. Rows that words.csv holds already are not trained
again, so a run that was stopped goes on, and a configuration that two studies share is trained once. The test splits
are never read.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).with_name("words.csv")
COLUMNS = ("study", "data", "base", "value", "seed", "val_accuracy", "val_loss", "seconds", "date")
DATA = {"trashnet": "trashnet/split.csv", "clothing": "clothing"}
SEEDS = (0, 1, 2)
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """Each of ``values`` on top of each of ``bases``; the first value is what the others are compared with."""

    bases: Mapping[str, Values]
    values: Mapping[str, Values]


SMALL = {"image_size": 128, "epochs": 6}
DEEP = {
    "mobilenet_1.0, 20 layers": {"backbone": "mobilenet_1.0", "unfrozen_layers": 20, **SMALL},
    "mobilenet_0.25, all": {"backbone": "mobilenet_0.25", "unfrozen_layers": "all", **SMALL},
}
COPIED = {
    **{"backbone": "mobilenet_0.25", "unfrozen_layers": "all", "image_size": 128, "epochs": 10},
    **{"batch_norm": "adapted", "multiplier": 2},
}
STUDIES: dict[str, Study] = {
    "batch_norm": Study(
        {
            "mobilenet_v2, 5 layers": {"backbone": "mobilenet_v2", "unfrozen_layers": 5, **SMALL},
            "mobilenet_v2, 30 layers": {"backbone": "mobilenet_v2", "unfrozen_layers": 30, **SMALL},
            "mobilenet_1.0, 5 layers": {"backbone": "mobilenet_1.0", "unfrozen_layers": 5, **SMALL},
            "mobilenet_1.0, 20 layers": {"backbone": "mobilenet_1.0", "unfrozen_layers": 20, **SMALL},
            "mobilenet_0.25, all": {"backbone": "mobilenet_0.25", "unfrozen_layers": "all", **SMALL},
        },
        {mode: {"batch_norm": mode} for mode in ("inherited", "adapted", "measured", "frozen")},
    ),
    "bottom_rate": Study(
        DEEP,
        {str(rate): {"bottom_rate": rate, "batch_norm": "adapted"} for rate in (1.0, 0.3, 0.1, 0.03)},
    ),
    "warm_head": Study(
        DEEP,
        {str(epochs): {"warm_head": epochs, "batch_norm": "adapted"} for epochs in (0, 3, 10)},
    ),
    "ema": Study(
        DEEP,
        {str(decay): {"ema": decay, "batch_norm": "adapted"} for decay in (0.0, 0.9, 0.99)},
    ),
    "margin_warmup": Study(
        {
            "mobilenet_0.25, all, hidden 512": {
                **{"backbone": "mobilenet_0.25", "unfrozen_layers": "all", "hidden": 512, "head": "sphereface"},
                **{"batch_norm": "adapted", **SMALL},
            },
            "mobilenet_1.0, 20 layers": {
                **{"backbone": "mobilenet_1.0", "unfrozen_layers": 20, "head": "sphereface"},
                **{"batch_norm": "adapted", **SMALL},
            },
        },
        {str(share): {"margin_warmup": share} for share in (0.0, 0.25, 0.5, 1.0)},
    ),
    "draws": Study(
        {
            **{
                f"mobilenet_0.25, all, {recipe} x2": {**COPIED, "recipe": recipe}
                for recipe in ("flips", "contest", "rand", "crop")
            },
            "mobilenet_0.25, all, random crops": {**COPIED, "multiplier": 1, "epochs": 20, "view": "random_crop"},
        },
        {draws: {"draws": draws} for draws in ("fixed", "fresh")},
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="What the words of training bring on validation.")
    parser.add_argument("--study", choices=STUDIES, action="append", help="these studies alone; else all")
    parser.add_argument("--data", choices=DATA, action="append", help="these photos alone; else both")
    parser.add_argument("--base", action="append", help="these bases alone; else all of each study")
    parser.add_argument("--cache", type=Path, help="where features are stored; else a temporary folder")
    parser.add_argument("--report", action="store_true", help="train nothing; print the table")
    asked = parser.parse_args()
    if not asked.report:
        with tempfile.TemporaryDirectory() as folder:
            for name in asked.study or STUDIES:
                run(
                    name, asked.data or list(DATA), asked.base or list(STUDIES[name].bases), asked.cache or Path(folder)
                )
    for line in report(read()):
        print(line)


def read(path: Path = TABLE) -> list[dict[str, str]]:
    """The rows of a table; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(name: str, data: Sequence[str], bases: Sequence[str], cache: Path) -> None:
    """Train what the table lacks of the study called ``name``; append a row for each fit.

    A configuration that another study has trained on the same photos with the same seed is copied from its row.
    """
    study = STUDIES[name]
    for source in data:
        manifest = manifest_of(source, cache)
        for base, value, seed in product(study.bases, study.values, SEEDS):
            rows = read()
            known = {tuple(row[c] for c in COLUMNS[:5]) for row in rows}
            if base not in bases or (name, source, base, value, str(seed)) in known:
                continue
            row = shared(name, source, base, value, seed, rows)
            row = row or trained({**study.bases[base], **study.values[value]}, seed, manifest, cache)
            append({"study": name, "data": source, "base": base, "value": value, "seed": seed, **row})


def shared(
    name: str, source: str, base: str, value: str, seed: int, rows: Sequence[Mapping[str, str]]
) -> dict[str, str]:
    """The figures of the row in ``rows`` with the same configuration, photos and seed; empty if there is none."""
    from trainers.config import canonical

    def configuration(study: str, base: str, value: str) -> Any:
        return canonical({**STUDIES[study].bases[base], **STUDIES[study].values[value]})

    wanted = configuration(name, base, value)
    for row in rows:
        is_same_data = (row["data"], row["seed"]) == (source, str(seed))
        if is_same_data and configuration(row["study"], row["base"], row["value"]) == wanted:
            return {column: row[column] for column in ("val_accuracy", "val_loss", "seconds")}
    return {}


def manifest_of(source: str, cache: Path) -> Path:
    """Write the manifest of the photos called ``source``, with their own splits."""
    from trainers.data.build import build_manifest
    from trainers.data.data_source import DataSource

    path = cache / f"{source}.parquet"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        manifest, _ = build_manifest(DataSource(str(Path(os.environ["ORCH_DATA"]) / DATA[source]), "auto", cache))
        manifest.write(path)
    return path


def trained(values: Values, seed: int, manifest: Path, cache: Path) -> dict[str, Any]:
    """Train one configuration; return the last epoch's figures on validation."""
    from trainers.config import canonical
    from trainers.contract import FitJob
    from trainers.errors import Diverged
    from trainers.training.loop import open_fit

    config = canonical(values)
    weights = os.environ["ORCH_WEIGHTS"]
    job = FitJob("words", config, seed, str(manifest), weights=weights, cache=str(cache))
    began_s = time.perf_counter()
    accuracy = loss = float("nan")
    try:
        fit = open_fit(job)
        for _ in range(config.epochs):
            metrics = fit.run_epoch()
        accuracy, loss = metrics.val_accuracy, metrics.val_loss
    except Diverged as error:
        print(error, flush=True)
    seconds = time.perf_counter() - began_s
    return {"val_accuracy": f"{accuracy:.4f}", "val_loss": f"{loss:.4f}", "seconds": f"{seconds:.1f}"}


def append(row: Mapping[str, Any], path: Path = TABLE, columns: Sequence[str] = COLUMNS) -> None:
    """Add ``row`` with today's date to a table, and print it."""
    is_new = not path.is_file()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, columns)
        if is_new:
            table.writeheader()
        table.writerow({**row, "date": time.strftime("%Y-%m-%d")})
    print(*(f"{name}={value}" for name, value in row.items()), flush=True)


def report(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """A line for each study, photos, base and value: the mean over seeds, and the mean paired difference with its
    standard error."""
    found: dict[tuple[str, str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["study"], row["data"], row["base"]][row["value"]][row["seed"]] = float(row["val_accuracy"])
    for (study, data, base), by_value in found.items():
        first = by_value[next(iter(STUDIES[study].values))]
        for value, by_seed in by_value.items():
            paired = [by_seed[seed] - first[seed] for seed in by_seed if seed in first]
            error = np.std(paired, ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else float("nan")
            mean, difference = np.mean([*by_seed.values()]), np.mean(paired)
            yield (
                f"{study:14s} {data:9s} {base:34s} {value:10s} {mean:.3f}  {100 * difference:+5.1f} "
                f"(± {100 * error:.1f}) points, {len(by_seed)} seeds"
            )


if __name__ == "__main__":
    main()
