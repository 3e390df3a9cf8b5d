"""The images and augmented copies that a fit reads, and their rows' keys. Free of TensorFlow: a plan counts them too.

A row's key is the image's sha256 and the number of the copy, so trials, epochs, retrainings and later sweeps share it.
A copy's key also holds its recipe, the data's seed and, for a recipe of the user's own, a digest of its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainers.code_digest import digest_of
from trainers.config import TrialConfig, evaluated
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.files.arrays import DAMAGED, write_arrays
from trainers.images.augment import RECIPES, Recipe, find_recipe, plan_copies
from trainers.images.decoder import ImageCopy


@dataclass(frozen=True)
class ExampleSet:
    """Labelled images that are read together, in order, each made square by ``view`` (``TrialConfig.framing``).

    ``labels``: int32 (images,). ``root``: folder of the images' paths. ``seed``: the data's.
    """

    images: list[ImageCopy]
    labels: np.ndarray
    view: str
    root: Path
    seed: int


def training_set(manifest: Manifest, config: TrialConfig) -> ExampleSet:
    """Return one epoch's examples: every image of ``manifest``, then the copies that the multiplier adds."""
    originals, copies = _originals(manifest, config.framing), augmented_set(manifest, config)
    labels = np.concatenate([originals.labels, copies.labels])
    return ExampleSet(originals.images + copies.images, labels, config.framing, manifest.root, manifest.seed)


def augmented_set(manifest: Manifest, config: TrialConfig) -> ExampleSet:
    """Return only the copies that the multiplier adds to ``manifest``, spread over the classes by ``config.copies``."""
    originals = _originals(manifest, config.framing)
    counts = plan_copies(originals.labels, config.multiplier, config.copies)
    images = [
        ImageCopy(image.path, image.sha256, number)
        for image, count in zip(originals.images, counts.tolist(), strict=True)
        for number in range(1, count + 1)
    ]
    return ExampleSet(images, np.repeat(originals.labels, counts), config.framing, manifest.root, manifest.seed)


def evaluation_set(manifest: Manifest, config: TrialConfig) -> ExampleSet:
    """Return every image of ``manifest`` once, not augmented; a random crop becomes the centre crop."""
    return _originals(manifest, evaluated(config.framing))


def inference_set(examples: ExampleSet) -> ExampleSet:
    """Return the originals of ``examples``, which come first, made square as those that are predicted."""
    images = [image for image in examples.images if not image.copy]
    return replace(examples, images=images, labels=examples.labels[: len(images)], view=evaluated(examples.view))


def _originals(manifest: Manifest, view: str) -> ExampleSet:
    rows = zip(manifest.table["path"].tolist(), manifest.table["sha256"].tolist(), strict=True)
    images = [ImageCopy(path, sha256, 0) for path, sha256 in rows]
    return ExampleSet(images, manifest.labels(), view, manifest.root, manifest.seed)


def example_sets(job: FitJob, manifest: Manifest) -> list[tuple[ExampleSet, ExampleSet | None]]:
    """Return (training set, validation set) of each fold of ``job``; without folds, of the one fit.

    The validation set is None if the fit trains on it. Raises TrainerError if ``manifest`` lacks the job's folds.
    """
    config = job.config
    if job.folds:
        return list(fold_sets(_folds(job, manifest), config))
    train = training_set(manifest.split(*job.train_splits), config)
    if "validation" in job.train_splits:
        return [(train, None)]
    return [(train, evaluation_set(manifest.split("validation"), config))]


def fold_sets(folds: Sequence[Manifest], config: TrialConfig) -> list[tuple[ExampleSet, ExampleSet]]:
    """Return (training set, validation set) of each of ``folds``, by its own splits. Raises TrainerError."""
    pairs = [
        (training_set(fold.split("train"), config), evaluation_set(fold.split("validation"), config)) for fold in folds
    ]
    if any(not examples.images for pair in pairs for examples in pair):
        raise TrainerError("a fold has no image to train on or to be judged by; ask for fewer folds.")
    return pairs


def _folds(job: FitJob, manifest: Manifest) -> list[Manifest]:
    """Return ``manifest`` once per fold, with that fold's splits."""
    if manifest.folds != job.folds:
        raise TrainerError(f"{job.folds} folds were asked for, but {job.manifest} has {manifest.folds or 'none'}.")
    if job.train_splits != ("train",):
        raise TrainerError("a fit with folds is validated on each fold, so it trains on the split train alone.")
    return [manifest.fold(number) for number in range(1, job.folds + 1)]


def row_keys(examples: ExampleSet, recipe: str) -> list[str]:
    """Return the key of each example's row. An original has the same pixels under every recipe and seed."""
    tail = f"{recipe}:{examples.seed}"
    if recipe not in RECIPES and any(image.copy for image in examples.images):
        tail += f":{_digest_of_recipe(find_recipe(recipe))}"
    return [f"{i.sha256}:{i.copy}:{tail}" if i.copy else i.sha256 for i in examples.images]


def read_teacher(file: Path, keys: Sequence[str]) -> np.ndarray:
    """Return a teacher's probabilities on the examples of these keys, float32 (n, classes), as ``write_teacher`` stored
    them. Raises TrainerError if they are missing, damaged or of other examples."""
    try:
        with np.load(file) as stored:
            known, probabilities = stored["sha256"].tolist(), np.asarray(stored["probabilities"], np.float32)
    except DAMAGED as error:
        raise TrainerError(f"the teacher's answers in {file} cannot be read ({type(error).__name__}).") from error
    if known != list(keys):
        raise TrainerError(f"the teacher's answers in {file} are on other examples than those of this fit.")
    return probabilities


def write_teacher(file: Path, keys: Sequence[str], probabilities: np.ndarray) -> None:
    """Write a teacher's probabilities (n, classes) on the examples of these keys."""
    write_arrays(file, {"sha256": np.array(keys), "probabilities": np.asarray(probabilities, np.float32)})


def keys_by_view(pairs: Sequence[tuple[ExampleSet, ExampleSet | None]], recipe: str) -> dict[str, list[str]]:
    """Map each view to the keys of all rows that ``pairs`` read, without repeats, in the order of first use."""
    found: dict[str, dict[str, None]] = {}
    for examples in [each for pair in pairs for each in pair if each is not None]:
        found.setdefault(examples.view, {}).update(dict.fromkeys(row_keys(examples, recipe)))
    return {view: list(keys) for view, keys in found.items()}


def _digest_of_recipe(recipe: Recipe) -> str:
    """Return the digest of ``recipe``'s code, taken once per process, before it may keep state of its own."""
    if id(recipe) not in _DIGESTS:
        _DIGESTS[id(recipe)] = recipe, digest_of(recipe.apply)
    return _DIGESTS[id(recipe)][1]


_DIGESTS: dict[int, tuple[Recipe, str]] = {}
"""Digest per recipe, keyed by ``id``; holding the recipe keeps its id valid."""
