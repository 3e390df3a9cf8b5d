"""A leaderboard as a careful user writes it: loops over policies, batches of photos and models.

Tried to make it quick: the whole network is one traced graph that takes uint8; photos are decoded once a policy, not
once a model, in a second thread while the network runs; ``predict_on_batch``, a traced ``tf.function`` and one
compiled by XLA are measured at several batch sizes before the clock starts and the quickest is used; TensorFlow has
every core. ``model.predict`` was slower than any. The crops are cut by ``trainers.images.crops``, as they must show
the same pixels.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.peers.network import use_threads
from trainers.files.arrays import write_arrays
from trainers.images.crops import crops

BATCHES = (32, 64, 128, 256)
TRIES = 2

Predict = Callable[[np.ndarray], np.ndarray]


def ways_to_call(model: keras.Model) -> dict[str, Predict]:
    """Name -> uint8 pixels to probabilities."""
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)
    traced = tf.function(lambda pixels: model(pixels, training=False), input_signature=[spec])
    by_xla = tf.function(lambda pixels: model(pixels, training=False), jit_compile=True)
    return {
        "predict_on_batch": model.predict_on_batch,
        "tf.function": lambda pixels: traced(pixels).numpy(),
        "tf.function by XLA": lambda pixels: by_xla(tf.constant(pixels)).numpy(),
    }


def quickest(ways: dict[str, Predict], size: int) -> tuple[str, int]:
    """(name of the call, batch size) that takes least for a picture."""
    found: dict[tuple[str, int], float] = {}
    for batch in BATCHES:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
        for name, call in ways.items():
            call(pixels)
            for _ in range(TRIES):
                began = time.perf_counter()
                call(pixels)
                seconds = (time.perf_counter() - began) / batch
                found[name, batch] = min(seconds, found.get((name, batch), seconds))
    return min(found, key=lambda way: found[way])


def batches(photos: list[list[str]], size: int, policy: str, batch: int) -> Iterator[np.ndarray]:
    """The crops of some photos, uint8 (photos, crops, size, size, 3), cut in another thread a batch ahead."""
    each = len(crops(Path(photos[0][0]), size, "squash", policy, photos[0][1]))
    step = max(batch // each, 1)

    def cut(start: int) -> np.ndarray:
        return np.stack([crops(Path(path), size, "squash", policy, sha) for path, sha in photos[start : start + step]])

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(cut, 0)
        for start in range(step, len(photos) + step, step):
            pixels = waiting.result()
            if start < len(photos):
                waiting = ahead.submit(cut, start)
            yield pixels


def main(file: str) -> None:
    """Do the task of ``file``; write policy/model -> probabilities, and a report."""
    began = time.perf_counter()
    task: dict[str, Any] = json.loads(Path(file).read_text(encoding="utf-8"))
    use_threads(task["threads"])
    models = {name: keras.models.load_model(path) for name, path in task["models"].items()}
    size = next(iter(models.values())).input_shape[1]
    calls = {name: ways_to_call(model) for name, model in models.items()}

    tuning = time.perf_counter()
    way, batch = quickest(next(iter(calls.values())), size)
    tuning_s = time.perf_counter() - tuning

    found: dict[str, np.ndarray] = {}
    start_s = time.perf_counter() - began - tuning_s
    for policy in task["policies"]:
        rows: dict[str, list[np.ndarray]] = {name: [] for name in models}
        for pixels in batches(task["photos"], size, policy, batch):
            flat = pixels.reshape(-1, *pixels.shape[2:])
            for name in models:
                rows[name].append(calls[name][way](flat).reshape(*pixels.shape[:2], -1).mean(1))
        found |= {f"{policy}/{name}": np.concatenate(parts) for name, parts in rows.items()}
        np.mean([found[f"{policy}/{name}"] for name in models], 0)  # the ensemble

    write_arrays(Path(task["output"]), found)
    report = {"call": way, "batch": batch, "tuning_s": tuning_s, "start_s": start_s}
    Path(task["report"]).write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
