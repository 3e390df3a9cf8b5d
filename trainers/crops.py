"""Crop policies: an image -> crops -> the mean of their probabilities.

Crops are cut from a *canvas*: the image made square by the configuration's view, larger than the network's input
by 1 / 0.875. ``predict`` is the job that a worker runs; models that share a prefix share its work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainers import device
from trainers.arrays import write_arrays
from trainers.contract import FitJob, TrainerError
from trainers.folds import fold_folder
from trainers.images import square
from trainers.manifest import Manifest
from trainers.model import Architecture, Network, Prefix
from trainers.policies import policy as find_policy
from trainers.training import prefix_of, read_weights

ZOOM = 0.875
"""Side of a centre or corner crop over the canvas's side (Krizhevsky et al. 2012: 224 of 256)."""
PYRAMID_SCALES = (1.0, 0.875, 0.75)
SMALLEST_RANDOM_CROP = 0.7
BATCH_CROPS = 64


def crops(source: Path | bytes, size: int, view: str, policy: str, sha256: str) -> np.ndarray:
    """The crops of one image under ``policy``, uint8 (crops, size, size, 3), a pure function of its arguments."""
    view = "centre_crop" if view == "random_crop" else view
    if policy == "whole":
        return square(source, size, view)[None]
    if policy == "flip":
        whole = square(source, size, view)
        return np.stack([whole, whole[:, ::-1]])
    side = round(size / ZOOM)
    canvas = square(source, side, view)
    if policy == "centre":
        return _cut(canvas, size, (0.5, 0.5))[None]
    if policy == "ten_crop":
        corners = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
        five = [_cut(canvas, size, corner) for corner in corners]
        return np.stack(five + [crop[:, ::-1] for crop in five])
    if policy == "pyramid":
        scales = [_zoom(canvas, scale, (0.5, 0.5), size) for scale in PYRAMID_SCALES]
        return np.stack(scales + [crop[:, ::-1] for crop in scales])
    return _random_crops(canvas, size, find_policy(policy).crops, sha256)


def _cut(canvas: np.ndarray, size: int, place: tuple[float, float]) -> np.ndarray:
    top, left = (round((canvas.shape[0] - size) * p) for p in place)
    return canvas[top : top + size, left : left + size]


def _zoom(canvas: np.ndarray, scale: float, place: tuple[float, float], size: int) -> np.ndarray:
    side = max(round(canvas.shape[0] * scale), 1)
    crop = Image.fromarray(_cut(canvas, side, place))
    return np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))


def _random_crops(canvas: np.ndarray, size: int, count: int, sha256: str) -> np.ndarray:
    draw = np.random.default_rng(int(sha256[:16], 16))
    out = []
    for _ in range(count):
        scale, top, left = draw.uniform(SMALLEST_RANDOM_CROP, 1.0), draw.random(), draw.random()
        out.append(_zoom(canvas, scale, (top, left), size))
    return np.stack(out)


@dataclass
class _Model:
    """One trained network above its prefix. ``folder``: of its fit; it holds a folder for each fold, if any."""

    id: str
    folder: Path
    network: Network
    probabilities: np.ndarray
    seconds: float = 0.0


@dataclass(frozen=True)
class _Pictures:
    """What is to be predicted: places in the output, files and hashes."""

    places: np.ndarray
    paths: list[Path]
    hashes: list[str]


def predict(job: Mapping[str, Any]) -> dict[str, Any]:
    """Predict one split under one policy with several models of one prefix.

    ``job``: ``models`` (id -> folder of a finished fit), ``outputs`` (id -> .npz to write), ``manifest``, ``split``,
    ``policy``, ``threads``, ``gpu_memory_share``, ``precision``. Each .npz holds ``sha256`` (n,), ``probabilities``
    float32 (n, classes), ``labels`` int32 (n,), ``seconds``, what that model alone would have taken, and
    ``shared_seconds``, the part of it that models of one prefix have in common: decoding, crops, prefix.

    With ``folds``: k (absent or 0 for none) the models are fits with k folds and ``split`` is "validation": each
    image that lies in a fold is predicted by the fit that did not train on it, and the .npz holds all of them in the
    manifest's order.

    Returns ``{"seconds": id -> seconds, "images": n}``. Raises TrainerError.
    """
    policy_in_force = device.prepare(job["threads"], job["gpu_memory_share"], job["precision"])
    manifest, folds = Manifest.read(Path(job["manifest"])), int(job.get("folds", 0))
    part = _asked(manifest, job["split"], folds)
    hashes, labels = part.table["sha256"].tolist(), part.labels()
    if not hashes:
        raise TrainerError(f"there is no image in the split {job['split']}, so nothing can be predicted.")
    prefix, models, view = _open(job["models"], len(manifest.classes), len(hashes), policy_in_force, folds)
    size = prefix.architecture.image_size

    warm = prefix(np.zeros((1, size, size, 3), np.uint8))  # traces are made before the clock starts
    for model in models:
        model.network.predict(warm)
    shared_s = 0.0
    for number in range(1, folds + 1) if folds else [0]:
        for model in models if number else []:
            model.network.load_state(read_weights(fold_folder(model.folder, number))[1])
        pictures = _pictures(part, number)
        for batch in _batches(pictures, max(BATCH_CROPS // find_policy(job["policy"]).crops, 1)):
            shared_s += _predict_batch(batch, (size, view, job["policy"]), prefix, models)

    for model in models:
        arrays = {
            "sha256": np.array(hashes),
            "probabilities": model.probabilities,
            "labels": labels,
            "seconds": np.float64(shared_s + model.seconds),
            "shared_seconds": np.float64(shared_s),
        }
        write_arrays(Path(job["outputs"][model.id]), arrays)
    return {"seconds": {m.id: shared_s + m.seconds for m in models}, "images": len(hashes)}


def _asked(manifest: Manifest, split: str, folds: int) -> Manifest:
    """The images to predict: a split, or all that lie in a fold."""
    if not folds:
        return manifest.split(split)
    if split != "validation":
        raise TrainerError(f"fits with folds predict the split validation, fold by fold, not {split}.")
    if manifest.folds != folds:
        raise TrainerError(f"{folds} folds were asked for, but the manifest has {manifest.folds or 'none'}.")
    return manifest.split("train")


def _pictures(part: Manifest, fold: int) -> _Pictures:
    """All images of ``part``, or with ``fold`` above 0 those of that fold."""
    places = np.flatnonzero(part.table["fold"].to_numpy() == fold) if fold else np.arange(len(part.table))
    paths, hashes = part.paths(), part.table["sha256"].tolist()
    return _Pictures(places, [paths[p] for p in places], [hashes[p] for p in places])


def _predict_batch(batch: _Pictures, cut: tuple[int, str, str], prefix: Prefix, models: Sequence[_Model]) -> float:
    """Fill in every model's probabilities for ``batch``; returns the seconds of what they share.

    ``cut``: size, view and policy of the crops.
    """
    started = time.perf_counter()
    pixels = np.stack([crops(path, *cut, name) for path, name in zip(batch.paths, batch.hashes, strict=True)])
    features = prefix(pixels.reshape(-1, *pixels.shape[2:]))
    shared_s = time.perf_counter() - started
    for model in models:
        started = time.perf_counter()
        each = model.network.predict(features).reshape(*pixels.shape[:2], -1)
        model.probabilities[batch.places] = each.mean(1)
        model.seconds += time.perf_counter() - started
    return shared_s


def _open(
    folders: Mapping[str, str], classes: int, images: int, precision: str, folds: int
) -> tuple[Prefix, list[_Model], str]:
    models: list[_Model] = []
    prefixes: list[Prefix] = []
    views: set[str] = set()
    for name, folder in folders.items():
        fit, arrays = read_weights(fold_folder(Path(folder), 1) if folds else Path(folder))
        network = open_network(fit, arrays, classes, precision)
        prefixes.append(prefix_of(network.architecture))
        views.add(fit.config.view)
        models.append(_Model(name, Path(folder), network, np.zeros((images, classes), np.float32)))
    if not models:
        raise TrainerError("no model was named to predict with.")
    if len(views) > 1 or any(p.description() != prefixes[0].description() for p in prefixes):
        raise TrainerError("models of different prefixes or views cannot be predicted in one job.")
    return prefixes[0], models, views.pop()


def open_network(fit: FitJob, arrays: list[np.ndarray], classes: int, precision: str = "float32") -> Network:
    """The trained network of a finished fit."""
    architecture = Architecture.of(fit.config, fit.weights, classes, precision)
    network = Network(architecture, prefix_of(architecture))
    network.set_numbers(fit.config)
    network.load_state(arrays)
    return network


def _batches(pictures: _Pictures, size: int) -> Iterator[_Pictures]:
    for start in range(0, len(pictures.paths), size):
        chosen = slice(start, start + size)
        yield _Pictures(pictures.places[chosen], pictures.paths[chosen], pictures.hashes[chosen])
