"""Memory of a warm worker over many small trials of many architectures, with recycling off.

    python -m benchmarks.training.worker_memory
    python -m benchmarks.training.worker_memory --trials 60 --to FILE

Trains on some of scikit-learn's digits, without weights or a download. Writes worker_memory.csv, with the resident set
size after every trial, and ends with exit code 1 unless it is flat: after the first ``WARM`` trials no median of
``WINDOW`` trials is more than ``GROWTH`` above that of the ``WINDOW`` trials from there on.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).with_name("worker_memory.csv")
COLUMNS = ("trial", "architecture", "rss_mb", "seconds")
TRIALS = 500
WARM = 100
"""Trials after which the memory is to be flat."""
WINDOW = 25
GROWTH = 0.10
PHOTOS = 6
"""Photos of each class and split."""


def architectures() -> list[dict[str, Any]]:
    """Twenty architectures of two backbones: values of a configuration each."""
    small: dict[str, Any] = {"backbone": "small_cnn", "image_size": 16}
    mobile: dict[str, Any] = {"backbone": "mobilenet_0.25", "image_size": 32}
    depths = ((small, (0, 3, 7, "all")), (mobile, (0, 6, 20, "all")))
    found = [
        {**base, "unfrozen_layers": n, "hidden": hidden, "batch_norm": "adapted" if n else "inherited"}
        for base, some in depths
        for n in some
        for hidden in (0, 16)
    ]
    found += [
        {**base, "unfrozen_layers": 6, "head": head} for base in (small, mobile) for head in ("cosface", "arcface")
    ]
    return found


def order(trials: int, count: int, seed: int = 0) -> list[int]:
    """Numbers of the architectures in the order in which trials draw them: each first once, then at random."""
    drawn = np.random.default_rng(seed).integers(0, count, max(0, trials - count)).tolist()
    return [*range(min(trials, count)), *drawn]


def growth(rss_mb: Sequence[float], warm: int = WARM, window: int = WINDOW) -> float:
    """Highest median of ``window`` trials after the first ``warm``, over that of the first of them, minus 1.

    NaN if there are fewer trials than ``warm`` and two windows.
    """
    after = rss_mb[warm:]
    medians = [statistics.median(after[at : at + window]) for at in range(0, len(after) - window + 1, window)]
    return max(medians[1:]) / medians[0] - 1 if len(medians) > 1 else float("nan")


def run(trials: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Train one trial after another in this process; yield a row of ``COLUMNS`` after each."""
    import psutil

    from trainers.config import canonical
    from trainers.contract import FitJob
    from trainers.errors import Diverged
    from trainers.training.loop import open_fit

    manifest, kinds = _manifest(folder), architectures()
    draw = np.random.default_rng(1)
    process = psutil.Process()
    for number, kind in enumerate(order(trials, len(kinds))):
        free = {"learning_rate": float(10 ** draw.uniform(-4, -2)), "dropout": float(draw.uniform(0, 0.5))}
        config = canonical({**kinds[kind], **free, "batch_size": 16, "epochs": 1})
        began_s = time.perf_counter()
        job = FitJob(f"trial-{number}", config, number, str(manifest), "none", cache=str(folder / "cache"))
        fit = open_fit(replace(job, output=str(folder / "fit")))
        with contextlib.suppress(Diverged):  # a worker goes on, too
            for _ in range(config.epochs):
                fit.run_epoch()
            fit.finish()
        del fit
        seconds = time.perf_counter() - began_s
        rss = process.memory_info().rss / 10**6
        yield {"trial": number + 1, "architecture": kind, "rss_mb": f"{rss:.1f}", "seconds": f"{seconds:.2f}"}


def _manifest(folder: Path) -> Path:
    from trainers.data.build import build_manifest
    from trainers.data.data_source import DataSource

    whole, _ = build_manifest(DataSource("builtin:digits", "auto", folder / "cache"))
    some = whole.table.groupby(["label", "split"]).head(PHOTOS).reset_index(drop=True)
    path = folder / "manifest.parquet"
    replace(whole, table=some).write(path)
    return path


def main() -> None:
    """Run the benchmark; exit code 1 if the memory grows."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, default=TRIALS)
    options.add_argument("--to", type=Path, default=TABLE, help="the table to write")
    chosen = options.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, chosen.to.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row in run(chosen.trials, Path(folder)):
            rows.append(row)
            table.writerow(row)
            file.flush()
            if row["trial"] % WINDOW == 0:
                print(f"{row['trial']:4d} trials  {float(row['rss_mb']):,.0f} MB", flush=True)
    grown = growth([float(row["rss_mb"]) for row in rows])
    print(*report([float(row["rss_mb"]) for row in rows]), sep="\n")
    raise SystemExit(1 if grown > GROWTH else 0)


def report(rss_mb: Sequence[float]) -> list[str]:
    """Medians of ``WINDOW`` trials in MB, and the growth after the first ``WARM``."""
    medians = [statistics.median(some) for some in (rss_mb[at : at + WINDOW] for at in range(0, len(rss_mb), WINDOW))]
    return [
        "median MB of each 25 trials: " + " ".join(f"{value:.0f}" for value in medians),
        f"growth after {WARM} trials: {100 * growth(rss_mb):+.1f} %, at most {100 * GROWTH:.0f} %",
    ]


if __name__ == "__main__":
    main()
