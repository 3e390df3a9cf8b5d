"""Our side: the decoder and the store, read as a fit reads them, each batch as a tensor."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.feed.cases import FEATURES, FILES, MAPS
from benchmarks.feed.photos import hashed
from trainers.images.decoder import Decoder, ImageCopy
from trainers.networks.prefix_index import known_images
from trainers.store.rows import Rows
from trainers.store.shelf import Shelf
from trainers.training.chunks import chunks

BATCH = 32
FRAMING = "squash+needed"


def deliver(task: dict[str, Any], threads: int) -> tuple[int, float]:
    """(images delivered, seconds) of one pass."""
    if task["source"] == FILES:
        return _from_files(task, threads)
    rows = _features(task["folder"]) if task["source"] in (FEATURES, MAPS) else _decoded(task["folder"], task["size"])
    order = np.random.default_rng(task["seed"]).permutation(np.repeat(np.arange(len(rows)), task["passes"]))
    batches = np.array_split(order, -(-len(order) // BATCH))
    began = time.perf_counter()
    count = 0
    for chunk in chunks(rows, batches):
        count += int(tf.convert_to_tensor(chunk.rows).shape[0])
    return count, time.perf_counter() - began


def _from_files(task: dict[str, Any], threads: int) -> tuple[int, float]:
    decode = Decoder(Path(task["folder"]), task["recipe"], FRAMING, task["size"], 0, threads)
    pictures = [ImageCopy(*photo, k) for photo in _photos(task["folder"]) for k in range(task["copies"])]
    began = time.perf_counter()
    count = sum(int(tf.convert_to_tensor(batch).shape[0]) for batch in decode(pictures))
    return count, time.perf_counter() - began


@functools.cache
def _photos(folder: str) -> list[tuple[str, str]]:
    return hashed(Path(folder))


@functools.cache
def _decoded(folder: str, size: int) -> Rows:
    photos = _photos(folder)
    decode = Decoder(Path(folder), "flips", FRAMING, size, 0, 2)
    shelf = known_images(Path(folder).parent / "store", size, FRAMING).shelf(Path(folder).parent / "store")
    return shelf.rows([sha for _, sha in photos], lambda here: decode([ImageCopy(*photos[i], 0) for i in here]))


@functools.cache
def _features(file: str) -> Rows:
    values = np.load(file, mmap_mode="r")

    def compute(places: Sequence[int]) -> Iterator[np.ndarray]:
        for place in places:
            yield np.array(values[place : place + 1])

    shelf = Shelf(Path(file).parent / "store", "features", {"file": Path(file).name})
    return shelf.rows([f"{place:064x}" for place in range(len(values))], compute)
