"""Predict a split under several crop policies with several models of one prefix; ``predict`` is a job for a worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.config import evaluated
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.images.policies import crop_names, distinct_crops
from trainers.networks.prefix import Prefix
from trainers.networks.prefix_index import features_description
from trainers.serving.crop_predictor import CropPredictor, SplitImages, TrainedModel, prefix_sample_s
from trainers.serving.parts import PredictionPart
from trainers.store.shelf import Shelf
from trainers.training import device
from trainers.training.cross_validation import fold_folder
from trainers.training.loop import open_network, read_weights
from trainers.training.steps import prefix_of


def predict(job: Mapping[str, Any]) -> PredictionPart:
    """Predict a split, or a part of it, under several policies with several models of one prefix.

    ``job``: ``models`` (id -> folder of a finished fit), ``policies``, ``manifest``, ``split``, ``threads``,
    ``gpu_memory_share``, ``precision``, and optionally

    - ``part``: (start, stop), a range of the split's images; all of them by default;
    - ``cache``: the store; without it, or with ``share`` False, no rows are read from it or written to it;
    - ``folds``: k (0 for none): the models are fits with k folds and ``split`` is "validation"; each image is predicted
      by the fit of its fold, which did not train on it.

    Seconds are those of each policy on its own: reading and decoding all images, cutting its crops, and running the
    prefix and each model over them at the measured speeds. Shared work is charged to each policy, and rows from the
    store as if computed. Raises TrainerError.
    """
    precision = device.prepare(job["threads"], job["gpu_memory_share"], job["precision"])
    manifest, folds = Manifest.read(Path(job["manifest"])), int(job.get("folds", 0))
    selected = _selected(manifest, job["split"], folds)
    start, stop = job.get("part") or (0, len(selected.table))
    here = slice(start, stop)
    hashes, labels = selected.table["sha256"].tolist()[here], selected.labels()[here]
    if not hashes:
        raise TrainerError(f"there is no image in the split {job['split']} to predict.")
    names = distinct_crops(job["policies"])
    shape = (len(hashes), len(names), len(manifest.classes))
    prefix, models, view = _open(job["models"], shape, precision, folds)
    images = SplitImages(selected.paths()[here], hashes, names, prefix.key.image_size, view)

    predictor = CropPredictor(images, prefix, models, prefix_sample_s(prefix, models))
    shelf = row_shelf(job, prefix, view)
    kept = predictor.kept(shelf)
    fold_of = selected.table["fold"].to_numpy()[here]
    for number in range(1, folds + 1) if folds else [0]:
        for model in models if number else []:
            model.network.load_state(read_weights(fold_folder(model.folder, number))[1])
        chosen = np.flatnonzero(fold_of == number) if number else np.arange(len(hashes))
        predictor.run(chosen, shelf, kept)
    part = _part(job["policies"], predictor, (start, labels))
    work = predictor.work
    return dataclasses.replace(
        part,
        decoded=work.images,
        computed=work.computed,
        read=work.read,
        precision=precision,
        device=device.kind(),
    )


def _part(policies: Sequence[str], predictor: CropPredictor, images: tuple[int, np.ndarray]) -> PredictionPart:
    """Average the predictions over each policy's crops, and attribute the seconds to policies."""
    start, labels = images
    names, work, models = predictor.images.names, predictor.work, predictor.models
    predictor.measure_cutting()
    probabilities: dict[str, dict[str, np.ndarray]] = {}
    shared_s: dict[str, float] = {}
    own_s: dict[str, dict[str, float]] = {}
    for policy in policies:
        its = [names.index(name) for name in crop_names(policy)]
        probabilities[policy] = {m.id: m.crops[:, its].mean(1) for m in models}
        shared_s[policy] = len(labels) * (work.clock.seconds_an_image(crop_names(policy)) + len(its) * work.prefix_s)
        own_s[policy] = {m.id: m.seconds * len(its) / len(names) for m in models}
    return PredictionPart(start, np.array(predictor.images.hashes), labels, probabilities, shared_s, own_s)


def row_shelf(job: Mapping[str, Any], prefix: Prefix, view: str) -> Shelf | None:
    """Return the shelf in which trials store the prefix's output for that view in full precision; None if not used.

    Rows rounded by ``store_dtype`` are not used: results must not depend on the state of the cache.
    """
    if prefix.is_identity or not job.get("cache") or not job.get("share", True):
        return None
    return Shelf(Path(job["cache"]), "features", features_description(prefix.description(), view, prefix.row_dtype))


def _selected(manifest: Manifest, split: str, folds: int) -> Manifest:
    """Return the images to predict: a split, or all images that are in a fold."""
    if not folds:
        return manifest.split(split)
    if split != "validation":
        raise TrainerError(f"fits with folds can only predict the split validation, not {split}.")
    if manifest.folds != folds:
        raise TrainerError(f"{folds} folds were requested, but the manifest has {manifest.folds or 'none'}.")
    return manifest.split("train")


def _open(
    folders: Mapping[str, str], shape: tuple[int, int, int], precision: str, folds: int
) -> tuple[Prefix, list[TrainedModel], str]:
    """Load the models, with arrays of ``shape`` (images, crops, classes); return prefix, models and view."""
    models: list[TrainedModel] = []
    prefixes: list[Prefix] = []
    views: set[str] = set()
    for name, folder in folders.items():
        fit, arrays = read_weights(fold_folder(Path(folder), 1) if folds else Path(folder))
        network = open_network(fit, arrays, shape[-1], precision)
        prefixes.append(prefix_of(network.architecture.prefix))
        views.add(evaluated(fit.config.framing))
        models.append(TrainedModel(name, Path(folder), network, np.zeros(shape, np.float32)))
    if not models:
        raise TrainerError("no model was given to predict with.")
    if len(views) > 1 or any(p.description() != prefixes[0].description() for p in prefixes):
        raise TrainerError("models of different prefixes or views cannot be predicted in one job.")
    return prefixes[0], models, views.pop()
