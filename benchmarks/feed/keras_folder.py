"""``keras.utils.image_dataset_from_directory``, cached and prefetched; it has no decoding at a ratio."""

from __future__ import annotations

import functools
import time
from typing import Any

import keras
import tensorflow as tf

from benchmarks.feed.cases import CACHE, FILES
from benchmarks.feed.tf_data import BATCH, consume, tuned


def deliver(task: dict[str, Any], threads: int) -> tuple[int, float]:
    """(images delivered, seconds) of one pass."""
    data = _dataset(task["source"], task["folder"], task["size"], task["interpolation"], threads)
    if task["source"] != FILES:
        consume(data)  # fills the cache
    began = time.perf_counter()
    count = sum(consume(data) for _ in range(task["passes"]))
    return count, time.perf_counter() - began


@functools.cache
def _dataset(source: str, folder: str, size: int, interpolation: str, threads: int) -> tf.data.Dataset:
    about = {"image_size": (size, size), "interpolation": interpolation, "label_mode": None, "shuffle": False}
    if source != CACHE:
        return tuned(keras.utils.image_dataset_from_directory(folder, batch_size=BATCH, **about), threads)
    data = keras.utils.image_dataset_from_directory(folder, batch_size=None, **about)
    data = data.map(lambda pixels: tf.cast(pixels + 0.5, tf.uint8), num_parallel_calls=threads).cache()
    return tuned(data.shuffle(int(data.cardinality())).batch(BATCH), threads)
