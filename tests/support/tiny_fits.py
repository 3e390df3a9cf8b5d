"""Data sets of a few tiny pictures that can be learnt, and the jobs that train on them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from trainers.backbones import Backbone
from trainers.config import TrialConfig, canonical
from trainers.contract import EpochMetrics, FitJob
from trainers.data.manifest import Manifest
from trainers.images.policies import Box, Policy
from trainers.serving.parts import PredictionPart, write_whole

if TYPE_CHECKING:
    import keras

CLASSES = ("blue", "green", "red")
TINY = Backbone("tiny", "trainers.backbones:build_small_cnn", "tf", 32, 8, 10, files="tiny_*.weights.h5")
"""``small_cnn`` once more, as one that has weight files: ``tests.support.tiny_fits:TINY``."""
RESIDUAL = Backbone("residual", "tests.support.tiny_fits:build_residual", "tf", 24, 8, 18, imagenet=False)
"""Two residual blocks of seven layers: ``tests.support.tiny_fits:RESIDUAL``."""
VIT = Backbone(
    "tiny_vit",
    "trainers.networks.architectures.vit:build_vit",
    "torch",
    native_size=16,
    smallest_size=8,
    layers=5,
    imagenet=False,
    arguments={"patch": 4, "grid": 4, "width": 32, "heads": 2, "depth": 2, "registers": 1},
    patch=4,
    tokens=2,
)
"""A vision transformer of two blocks with a register: ``tests.support.tiny_fits:VIT``."""
CONVNEXT = Backbone(
    "tiny_convnext",
    "trainers.networks.architectures.convnext_v2:build_convnext_v2",
    "torch",
    native_size=64,
    smallest_size=32,
    layers=38,
    imagenet=False,
    arguments={"depths": (1, 1, 1, 1), "widths": (4, 4, 8, 8)},
)
"""A narrow ConvNeXt V2: ``tests.support.tiny_fits:CONVNEXT``."""
GROUPED = Backbone("grouped", "tests.support.tiny_fits:build_grouped", "tf", 16, 8, 2, imagenet=False)
"""A convolution in groups, which Keras compiles with XLA: ``tests.support.tiny_fits:GROUPED``."""
OWN_POLICY = Policy("own", ("whole", Box(0, 0.25, 0.5), Box(0.5, 0.375, 0.5, mirrored=True)))
"""``tests.support.tiny_fits:OWN_POLICY``."""
COUNTS = {"train": 12, "validation": 5, "test": 4}


def build_residual(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    import keras
    from keras.layers import Add, BatchNormalization, Conv2D, ReLU

    inputs = keras.Input(input_shape)
    x = ReLU(name="start")(BatchNormalization()(Conv2D(8, 3, strides=2)(inputs)))
    for block in ("a", "b"):
        y = ReLU()(BatchNormalization()(Conv2D(8, 3, padding="same")(x)))
        y = BatchNormalization()(Conv2D(8, 3, padding="same", name=f"{block}_conv")(y))
        x = ReLU(name=f"{block}_out")(Add()([x, y]))
    return keras.Model(inputs, x)


def build_grouped(input_shape: tuple[int, int, int], include_top: bool, weights: None) -> keras.Model:
    import keras

    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Conv2D(6, 3, groups=3)(inputs))


def picture(label: int, seed: int, size: tuple[int, int] = (20, 24)) -> np.ndarray:
    """uint8 (height, width, 3): noise, with the label's colour somewhat stronger."""
    pixels = np.random.default_rng((label, seed)).integers(0, 160, (*size, 3))
    pixels[..., 2 - label] += 80
    return pixels.astype(np.uint8)


def write_manifest(folder: Path, counts: dict[str, int] | None = None, folds: int = 0) -> Path:
    """Pictures of each class in each split as PNG files (the first class has half as many in train); the manifest.

    With ``folds`` the images of train and validation are dealt to that many folds in turn.
    """
    rows = []
    for label, name in enumerate(CLASSES):
        for split, count in (counts or COUNTS).items():
            for i in range(count // 2 if (label, split) == (0, "train") else count):
                path = folder / name / f"{split}-{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = picture(label, hash_of(split) + i)
                Image.fromarray(pixels).save(path)
                sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
                height, width = pixels.shape[:2]
                rows.append((f"{name}/{path.name}", name, split, sha256, width, height, sha256[:16]))
    columns = ["path", "label", "split", "sha256", "width", "height", "group"]
    table = pd.DataFrame(rows, columns=columns).sort_values("path", ignore_index=True)
    table["fold"] = 0
    if folds:
        held = table["split"] != "test"
        table.loc[held, "split"] = "train"
        table.loc[held, "fold"] = np.arange(held.sum()) % folds + 1
    Manifest(folder, CLASSES, 0, table).write(folder / "manifest.parquet")
    return folder / "manifest.parquet"


def hash_of(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16)


def config(**values: Any) -> TrialConfig:
    """``small_cnn`` at 16 px, its last block unfrozen, three epochs; ``values`` on top."""
    small = {"backbone": "small_cnn", "image_size": 16, "unfrozen_layers": 3, "batch_size": 8, "epochs": 3}
    return canonical(small | {"learning_rate": 0.01} | values)


def job(manifest: Path, cache: Path, seed: int = 0, output: str = "", **values: Any) -> FitJob:
    """A job of ``config(**values)`` without weights."""
    return FitJob("tiny", config(**values), seed, str(manifest), weights="none", cache=str(cache), output=output)


def predict_into(outputs: dict[str, dict[str, str]], **job_values: Any) -> PredictionPart:
    """``predict`` of all images in this process, written to ``outputs`` (policy -> model -> .npz)."""
    from trainers.serving.predict import predict

    part = predict({"threads": 1, "gpu_memory_share": 0.0, "precision": "float32", "policies": [*outputs]} | job_values)
    write_whole(outputs, [part])
    return part


def figures(metrics: EpochMetrics) -> dict[str, float]:
    """An epoch without what depends on the clock, numbers alone: a fold's accuracy is ``fold_1_val_accuracy``."""
    clocked = ("seconds", "train_images_per_s", "images_per_s", "fold_val_accuracy")
    plain = {k: v for k, v in metrics.to_dict().items() if k not in clocked}
    return plain | {f"fold_{i}_val_accuracy": v for i, v in enumerate(metrics.fold_val_accuracy, 1)}
