"""Photos decoded once into numpy files, which every trial and process maps into memory."""

from __future__ import annotations

import csv
import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SPLITS = ("train", "validation")
JUDGED_AT_ONCE = 128
"""Photos of a validation batch: no gradients are kept, so more fit in than of a training batch, on every side."""


def read_task(path: str | Path) -> dict[str, Any]:
    """What ``benchmarks.common.task.Task.write`` wrote: table, image_size, batch_size, weights, trials, cache ..."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def decode_once(task: dict[str, Any]) -> None:
    """Decode and resize the photos of both splits, two threads at a time, unless the files are there already."""
    folder, size = Path(task["cache"]), task["image_size"]
    if (folder / "classes.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    table = Path(task["table"])
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] in SPLITS]
    classes = sorted({row["label"] for row in rows})

    def decode(row: dict[str, str]) -> np.ndarray:
        with Image.open(table.parent / row["path"]) as image:
            return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))

    with ThreadPoolExecutor(task["cores"]) as threads:
        for split in SPLITS:
            chosen = [row for row in rows if row["split"] == split]
            np.save(folder / f"{split}-images.npy", np.stack(list(threads.map(decode, chosen))))
            np.save(folder / f"{split}-labels.npy", np.array([classes.index(row["label"]) for row in chosen]))
    (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")


@functools.lru_cache(maxsize=1)
def datasets(folder: str, batch_size: int) -> tuple[Any, Any, int]:
    """(training set, validation set, classes): uint8 batches and one-hot labels; made once a process."""
    import tensorflow as tf

    classes = len(json.loads((Path(folder) / "classes.json").read_text(encoding="utf-8")))
    found = []
    for split in SPLITS:
        images = np.load(Path(folder) / f"{split}-images.npy", mmap_mode="r")
        labels = np.eye(classes, dtype=np.float32)[np.load(Path(folder) / f"{split}-labels.npy")]
        rows = tf.data.Dataset.from_tensor_slices((images, labels))
        if split == "train":
            rows = rows.shuffle(len(images))
        found.append(rows.batch(batch_size if split == "train" else JUDGED_AT_ONCE).prefetch(tf.data.AUTOTUNE))
    return found[0], found[1], classes
