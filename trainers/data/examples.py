"""Which rows a fit reads and what each is called. Free of TensorFlow, so that a plan can count them.

A row's key is the image's sha256 and the number of the copy, so trials, epochs, retrainings and later sweeps share it.
A copy's key also names its recipe and the data's seed, and says what the code of a recipe of the user's own was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainers.code_digest import digest_of
from trainers.config import TrialConfig
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.images.augment import RECIPES, Recipe, find_recipe, plan_copies


@dataclass(frozen=True, slots=True)
class Example:
    """One example: a row of the manifest and the number of its copy, 0 for the original."""

    row: int
    copy: int


@dataclass(frozen=True)
class ExampleSet:
    """Examples that are read together, in order: ``items`` of ``manifest``, made square by ``view``."""

    manifest: Manifest
    items: list[Example]
    view: str


def training_examples_of(manifest: Manifest, multiplier: float) -> list[Example]:
    """Every original, then the copies that the multiplier asks for, class by class as even as they can be."""
    copies = plan_copies(manifest.labels(), multiplier)
    return originals(manifest) + [Example(row, k) for row, count in enumerate(copies) for k in range(1, count + 1)]


def originals(manifest: Manifest) -> list[Example]:
    """Every image once, never augmented."""
    return [Example(row, 0) for row in range(len(manifest.table))]


def judged_view(config: TrialConfig) -> str:
    """How an image becomes square where a network is judged: a random crop becomes the centre crop."""
    return "centre_crop" if config.view == "random_crop" else config.view


def training_set(manifest: Manifest, config: TrialConfig) -> ExampleSet:
    """The examples of one epoch: ``manifest`` holds the training images alone."""
    return ExampleSet(manifest, training_examples_of(manifest, config.multiplier), config.view)


def judged_set(manifest: Manifest, config: TrialConfig) -> ExampleSet:
    """Every image of ``manifest`` once, as it is judged."""
    return ExampleSet(manifest, originals(manifest), judged_view(config))


def example_sets(job: FitJob, manifest: Manifest) -> list[tuple[ExampleSet, ExampleSet | None]]:
    """What the fit of ``job`` trains on and what it is validated on (None where that is trained on), for each fold.

    Without folds the list holds one pair. Raises TrainerError where the manifest's folds are not what the job asks for.
    """
    config = job.config
    if job.folds:
        return list(fold_sets(_folds(job, manifest), config))
    train = training_set(manifest.split(*job.train_splits), config)
    if "validation" in job.train_splits:
        return [(train, None)]
    return [(train, judged_set(manifest.split("validation"), config))]


def fold_sets(folds: Sequence[Manifest], config: TrialConfig) -> list[tuple[ExampleSet, ExampleSet]]:
    """What each fold trains on and what it is validated on, from that fold's own splits. Raises TrainerError."""
    pairs = [
        (training_set(fold.split("train"), config), judged_set(fold.split("validation"), config)) for fold in folds
    ]
    if any(not part.items for pair in pairs for part in pair):
        raise TrainerError("a fold has no image to train on or to be judged by; ask for fewer folds.")
    return pairs


def _folds(job: FitJob, manifest: Manifest) -> list[Manifest]:
    """The manifest's folds, each with its own split."""
    if manifest.folds != job.folds:
        raise TrainerError(f"{job.folds} folds were asked for, but {job.manifest} has {manifest.folds or 'none'}.")
    if job.train_splits != ("train",):
        raise TrainerError("a fit with folds is validated on each fold, so it trains on the split train alone.")
    return [manifest.fold(number) for number in range(1, job.folds + 1)]


def row_keys(part: ExampleSet, recipe: str) -> list[str]:
    """The key of each item's row. An original has the same pixels under every recipe and seed."""
    hashes = part.manifest.table["sha256"].tolist()
    tail = f"{recipe}:{part.manifest.seed}"
    if recipe not in RECIPES and any(item.copy for item in part.items):
        tail += f":{_digest_of_recipe(find_recipe(recipe))}"
    return [f"{hashes[i.row]}:{i.copy}:{tail}" if i.copy else hashes[i.row] for i in part.items]


def _digest_of_recipe(recipe: Recipe) -> str:
    """Taken once in a process, before ``recipe`` is first used: an object may remember what it did."""
    if id(recipe) not in _DIGESTS:
        _DIGESTS[id(recipe)] = recipe, digest_of(recipe.apply)
    return _DIGESTS[id(recipe)][1]


_DIGESTS: dict[int, tuple[Recipe, str]] = {}
"""Of recipes by their ids, which they keep by being held here."""


def keys_by_view(pairs: Sequence[tuple[ExampleSet, ExampleSet | None]], recipe: str) -> dict[str, list[str]]:
    """View -> the key of every row that these parts read, each once, in the order of their first use."""
    found: dict[str, dict[str, None]] = {}
    for part in [part for pair in pairs for part in pair if part is not None]:
        found.setdefault(part.view, {}).update(dict.fromkeys(row_keys(part, recipe)))
    return {view: list(keys) for view, keys in found.items()}
