"""``tf.data`` as its guide says: parallel map, decoding at a ratio, cache, shuffle, batch, prefetch."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.feed.cases import CACHE, FILES

BATCH = 32


def deliver(task: dict[str, Any], threads: int) -> tuple[int, float]:
    """(images delivered, seconds) of one pass."""
    data, passes = _dataset(_frozen(task), threads), task["passes"]
    if task["source"] != FILES:
        consume(data)  # fills the cache
    began = time.perf_counter()
    count = sum(consume(data) for _ in range(passes))
    return count, time.perf_counter() - began


def consume(data: tf.data.Dataset) -> int:
    """Count the images of one pass."""
    return sum(int(batch.shape[0]) for batch in data)


def tuned(data: tf.data.Dataset, threads: int) -> tf.data.Dataset:
    """Give a dataset ``threads`` threads of its own, and let it deliver in any order."""
    options = tf.data.Options()
    options.deterministic = False
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return data.with_options(options).prefetch(tf.data.AUTOTUNE)


def _frozen(task: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    kept = ("source", "folder", "size", "ratio", "copies", "recipe", "fast", "dtype", "antialias")
    return tuple((name, task.get(name)) for name in kept)


@functools.cache
def _dataset(task_items: tuple[tuple[str, Any], ...], threads: int) -> tf.data.Dataset:
    task = dict(task_items)
    if task["source"] not in (FILES, CACHE):
        values = np.load(task["folder"])
        return tuned(tf.data.Dataset.from_tensor_slices(values).shuffle(len(values)).batch(BATCH), threads)
    files = sorted(str(path) for path in Path(task["folder"]).rglob("*.jpg"))
    data = tf.data.Dataset.from_tensor_slices(files)
    data = data.map(lambda path: _examples(_decode(path, task), task), num_parallel_calls=threads, deterministic=False)
    if task["source"] == CACHE:
        return tuned(data.cache().shuffle(len(files)).batch(BATCH), threads)
    if task["copies"] == 1:
        return tuned(data.batch(BATCH), threads)
    size = task["size"]
    flat = data.batch(BATCH).map(lambda rows: tf.reshape(rows, (-1, size, size, 3)), num_parallel_calls=threads)
    return tuned(flat.rebatch(BATCH), threads)


def _decode(path: tf.Tensor, task: dict[str, Any]) -> tf.Tensor:
    """float32 or uint8 (size, size, 3)."""
    faster = {"fancy_upscaling": False, "dct_method": "INTEGER_FAST"} if task["fast"] else {}
    pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, ratio=task["ratio"], **faster)
    square = tf.image.resize(pixels, (task["size"], task["size"]), antialias=task["antialias"] is not False)
    square = tf.ensure_shape(square, (task["size"], task["size"], 3))
    return tf.cast(square + 0.5, tf.uint8) if task["dtype"] == "uint8" else square


def _examples(square: tf.Tensor, task: dict[str, Any]) -> tf.Tensor:
    """The square, or with copies (copies, size, size, 3): decoded once for all, as an expert would."""
    if task["copies"] == 1:
        return square
    make = flips if task["recipe"] == "flips" else colour
    return tf.stack([square, *(make(square, k) for k in range(1, task["copies"]))])


def flips(square: tf.Tensor, k: int) -> tf.Tensor:
    """As ``trainers.images.augment.flips``: mirrored left to right, upside down, both, then shifted."""
    if k < 4:
        return tf.reverse(square, [axis for axis, wanted in ((1, k in (1, 3)), (0, k in (2, 3))) if wanted])
    side = square.shape[0]
    most = max(1, round(side / 10))
    far = tf.random.uniform((), 1, most + 1, tf.int32)
    padded = tf.pad(square, ((0, 0), (most, most), (0, 0)), "SYMMETRIC")
    return tf.ensure_shape(tf.slice(padded, (0, most - far, 0), (side, side, 3)), square.shape)


def colour(square: tf.Tensor, k: int) -> tf.Tensor:
    """As ``trainers.images.augment.colour``: mirrored half the time, brightness, contrast and saturation changed."""
    pixels = tf.image.random_flip_left_right(tf.cast(square, tf.float32))
    light, contrast, saturation = tf.unstack(tf.random.uniform((3,), 0.7, 1.3))
    pixels = tf.clip_by_value(pixels * light, 0, 255)
    grey = _grey(pixels)
    pixels = tf.clip_by_value(tf.reduce_mean(grey) * (1 - contrast) + pixels * contrast, 0, 255)
    pixels = tf.clip_by_value(_grey(pixels) * (1 - saturation) + pixels * saturation, 0, 255)
    return tf.cast(pixels, square.dtype)


def _grey(pixels: tf.Tensor) -> tf.Tensor:
    red, green, blue = tf.unstack(pixels, axis=-1)
    return (0.299 * red + 0.587 * green + 0.114 * blue)[..., None]
