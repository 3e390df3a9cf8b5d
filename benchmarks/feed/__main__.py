"""What the input side delivers with training left out: ``python -m benchmarks.feed [--small]``.

Ours against ``tf.data`` and ``keras.utils.image_dataset_from_directory``, which deliver the same squares in batches of
32, from files, from a cache of decoded photos and from stored features. Each side runs in processes of its own on the
same cores, one side at a time, in turns; figures are medians. All files are in the page cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common.results import Result, figure_text, record
from benchmarks.common.sides import ROOT, hold_cores
from benchmarks.common.task import trashnet
from benchmarks.common.versus import parse
from benchmarks.feed.cases import (
    FEATURES,
    FILES,
    KERAS,
    LARGE,
    MAPS,
    NUMPY,
    OURS,
    SMALL,
    TF_DATA,
    VARIANTS,
    Case,
    against,
    cases,
    feeds,
    mark_of,
)
from benchmarks.feed.photos import link_small, make_large

PLAIN = "(tf.data, not antialiased)"
KERAS_PLAIN = "(Keras, not antialiased)"
TITLES = ("feed_large", "feed_copies", "feed_stored", "feed")
NOTES = """Each figure is the worst of its cases: our median rate over that of the better peer. `feed`: photos of
512 x 384 from files. `feed_large`: photos of 12 megapixels from files. `feed_copies`: five examples of each photo,
decoded once by every side. `feed_stored`: shuffled rows of stored features over numpy.take of the same rows.
tf.data decodes at the largest ratio that leaves the pixels needed, with the better of libjpeg's transforms and of
uint8 and float32, found by a probe; Keras decodes whole photos, with interpolation "area", its only one that
antialiases. Sides in brackets do less work and do not count.

GPUs: images of 224 px a second in training ResNet50 v1.5 (TensorFlow, XLA, one GPU) as NVIDIA publishes them in
DeepLearningExamples, TensorFlow/Classification/ConvNets/resnet50v1.5/README.md: V100 16 GB 412 (float32) and 1270
(mixed precision), A100 909 (TF32) and 2375 (mixed precision); other sizes are scaled by area."""


class Sides:
    """Processes that wait for tasks, one for each side and number of threads."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w", encoding="utf-8")
        self._running: dict[tuple[str, int], subprocess.Popen[str]] = {}

    def rate(self, side: str, task: dict[str, Any]) -> float:
        """Return images a second of one delivery."""
        running = self._process(side, task["threads"])
        assert running.stdin is not None
        assert running.stdout is not None
        print(json.dumps(task), file=running.stdin, flush=True)
        line = running.stdout.readline()
        if not line:
            raise SystemExit(f"{side} failed; the end of {self._log.name} says why.")
        answer = json.loads(line)
        return float(answer["images"]) / float(answer["seconds"])

    def _process(self, side: str, threads: int) -> subprocess.Popen[str]:
        key = side, threads
        if key not in self._running:
            path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
            self._running[key] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.feed.side", side, str(threads)],
                env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        return self._running[key]

    def close(self) -> None:
        for running in self._running.values():
            assert running.stdin is not None
            running.stdin.close()
            running.wait()
        self._log.close()


def tasks_of(case: Case, folders: dict[str, Path], sides: Sides, seed: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (side, task) of what is measured in ``case``; ``tf.data`` with its best variant by a short probe."""
    files = case.source == FILES
    place = folders[case.photos or case.source]
    task = {**case.to_dict(), "folder": str(place), "seed": seed, "passes": 1 if files else 3}
    found = {OURS: (OURS, task)}
    if not case.photos:
        return {**found, NUMPY: (NUMPY, task), TF_DATA: (TF_DATA, {**task, **VARIANTS[0]})}
    tried = VARIANTS if files else VARIANTS[:1]
    best = max(tried, key=lambda variant: max(sides.rate(TF_DATA, {**task, **variant}) for _ in range(2)))
    found[TF_DATA] = TF_DATA, {**task, **best}
    if case.copies == 1:
        found[KERAS] = KERAS, {**task, "interpolation": "area"}
    if files and case.copies == 1:
        found[PLAIN] = TF_DATA, {**task, **best, "antialias": False}
        found[KERAS_PLAIN] = KERAS, {**task, "interpolation": "bilinear"}
    return found


def measure(case: Case, folders: dict[str, Path], sides: Sides, repeats: int) -> dict[str, list[float]]:
    """Side -> images a second, the sides taking turns; the first turn warms up and is left out."""
    tasks = tasks_of(case, folders, sides, 0)
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(repeats + 1):
        for name, (side, task) in tasks.items():
            rate = sides.rate(side, {**task, "seed": number})
            if number:
                rates[name].append(rate)
    return rates


def prepare(folder: Path, table: Path, counts: tuple[int, int, int, int]) -> dict[str, Path]:
    """Make the photos and the rows: (small photos, large photos, features, feature maps)."""
    folders = {SMALL: folder / "small", LARGE: folder / "large"}
    folders |= {FEATURES: folder / "features.npy", MAPS: folder / "maps.npy"}
    link_small(table, folders[SMALL], counts[0])
    make_large(folders[SMALL], folders[LARGE], counts[1])
    draw = np.random.default_rng(0)
    np.save(folders[FEATURES], draw.random((counts[2], 2048), np.float32))
    np.save(folders[MAPS], draw.random((counts[3], 7, 7, 1024), np.float32))
    return folders


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and record it; 1 where a target is missed."""
    asked = parse("What the input side delivers, against tf.data and Keras.", arguments)
    hold_cores()
    size, repeats = ("small", 1) if asked.small else ("full", 3)
    counts = (64, 4, 512, 64) if asked.small else (128, 16, 8192, 1536)
    chosen = cases((64,), (1,)) if asked.small else cases((224, 600), (1, 2))
    folder = Path(asked.keep or tempfile.mkdtemp(prefix="orch-feed-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["ORCH_CACHE_GB"] = "20"
    sides = Sides(folder / "sides.txt")
    rows: list[tuple[str, str]] = []
    worst: dict[str, float] = {}
    targets: dict[str, float] = {}
    try:
        folders = prepare(folder, trashnet()[0], counts)
        for case in chosen:
            rates = measure(case, folders, sides, repeats)
            ratio, best = against(case, rates)
            rows.append((case.name, _words(case, rates, ratio, best)))
            print(*rows[-1], sep=": ", flush=True)
            if mark := mark_of(case):
                worst[mark[0]] = min(ratio, worst.get(mark[0], ratio))
                targets[mark[0]] = mark[1]
    finally:
        sides.close()
        if asked.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    reached = []
    for name in TITLES:
        shown = tuple(rows) if name == "feed" else (("all rows", "under feed"),)
        target = None if asked.small else targets[name]
        notes = NOTES if name == "feed" else ""
        reached.append(record(Result(name, worst[name], "x", target, True, size, shown, notes)))
    return 0 if all(reached) else 1


def _words(case: Case, rates: dict[str, list[float]], ratio: float, best: str) -> str:
    shown = ", ".join(f"{side} {median(values):,.0f}" for side, values in rates.items())
    gpu = f"; {feeds(median(rates[OURS]), case.size)}" if case.photos else ""
    what = "images" if case.photos else "rows"
    return f"{figure_text(ratio, 'x')} {best} ({what} a second: {shown}{gpu})"


if __name__ == "__main__":
    sys.exit(main())
