"""Count what a fit reads, computes and writes before it runs. Pure."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from orchestrator.plan.calibration import PartKey, PartSpeed
from orchestrator.plan.estimates import Speeds, cost_of
from orchestrator.spec.sections.data import SplitRatios
from trainers.config import (
    MEASURED_IMAGES,
    PrefixConfig,
    StepKind,
    TrialConfig,
    evaluated,
    head_first,
    parts_of,
)
from trainers.data.manifest import Manifest
from trainers.images.augment import plan_copies
from trainers.images.policies import crop_names, distinct_crops, needs_canvas

TRAIN, VALIDATION = "train", "validation"
HEAD_BYTES, OPTIMIZER_COPIES = 4, {"sgd": 1, "adam": 2, "rmsprop": 1}
CANVASES = 2
"""Square versions of a photo for the crop policies: at the network's size, and larger to cut crops from."""


@dataclass(frozen=True)
class PhotoCounts:
    """Images per class. With folds ``train`` counts the images of all folds, and ``folds`` those of each."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    folds: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        def counts(labels: np.ndarray) -> tuple[int, ...]:
            return tuple(np.bincount(labels, minlength=len(manifest.classes)).tolist())

        folds = manifest.table["fold"].to_numpy() if manifest.folds else np.zeros(0, int)
        train, validation, test = (counts(manifest.split(name).labels()) for name in (TRAIN, VALIDATION, "test"))
        return cls(
            train,
            validation,
            test,
            folds=tuple(counts(manifest.labels()[folds == k]) for k in range(1, manifest.folds + 1)),
        )

    @classmethod
    def even(cls, images: int, classes: int, shares: SplitRatios | None = None, folds: int = 0) -> Self:
        """Return counts of hypothetical photos in equal classes; with folds train and validation are pooled.

        ``shares``: None for the default split.
        """
        shares = shares or SplitRatios()
        each = [images // classes + (place < images % classes) for place in range(classes)]
        test = [round(count * shares.test) for count in each]
        if folds:
            pooled = [count - tested for count, tested in zip(each, test, strict=True)]
            parts = [tuple(n // folds + (k < n % folds) for n in pooled) for k in range(folds)]
            return cls(tuple(pooled), (0,) * classes, tuple(test), tuple(parts))
        validation = [round(count * shares.validation) for count in each]
        train = [n - v - t for n, v, t in zip(each, validation, test, strict=True)]
        return cls(tuple(train), tuple(validation), tuple(test))

    @property
    def classes(self) -> int:
        return len(self.train)

    @property
    def total(self) -> int:
        return sum(self.train) + sum(self.validation) + sum(self.test)

    @property
    def to_choose_on(self) -> int:
        """Number of images that a trial is validated on."""
        return sum(self.train) if self.folds else sum(self.validation)


@dataclass(frozen=True)
class PlannedShelf:
    """Rows of one kind in the store. ``layer``: "" for decoded images. ``what``: readable name.

    Two fits whose features are the same function of the same images have equal shelves.
    """

    what: str
    view: str
    image_size: int
    row_bytes: int
    layer: str = ""
    backbone: str = ""
    details: tuple[Hashable, ...] = ()

    @functools.cached_property
    def name(self) -> str:
        """Text that identifies the shelf."""
        return " ".join(map(str, (self.what, self.row_bytes, *self.details)))


@dataclass(frozen=True)
class PlannedRows:
    """``count`` rows of one ``shelf``: the originals of a split, or copies of a ``recipe``, spread as in ``copies``.

    ``prefix_s``: seconds that the prefix takes for one, 0 for decoded images.
    The copies of a smaller multiplier are among those of a larger one, so a count identifies them.
    """

    shelf: PlannedShelf
    split: str
    count: int
    recipe: str = ""
    copies: str = "even"
    prefix_s: float = dataclasses.field(default=0.0, compare=False)

    @functools.cached_property
    def place(self) -> str:
        """Text that identifies what is counted; of two equal places the larger count contains the smaller."""
        spread = "" if self.copies == "even" else f"{self.copies} "
        copied = f" {spread}copies by {self.recipe}" if self.recipe else ""
        return f"{self.shelf.name}: {self.split}{copied}"

    @property
    def bytes(self) -> int:
        return self.count * self.shelf.row_bytes


@dataclass(frozen=True)
class EpochReads:
    """What one fit reads in an epoch.

    ``train``: examples that it trains on, copies included; ``originals``: without copies. ``judged``: images that it is
    validated on. ``rows``: (view, split, recipe, count).
    """

    train: int
    originals: int
    judged: int
    rows: tuple[tuple[str, str, str, int], ...]


@functools.lru_cache(maxsize=1024)
def reads_of(
    photos: PhotoCounts, view: str, multiplier: float, recipe: str, refit: tuple[str, ...] = (), spread: str = "even"
) -> EpochReads:
    """Return what a trial reads, or with ``refit`` a fit on those splits, which is not validated on them.

    With folds a trial reads every fold k - 1 times to train and once to validate, from rows that are stored once.
    """
    judged_view = evaluated(view)
    if photos.folds and not refit:
        parts = [np.array(photos.train) - np.array(fold) for fold in photos.folds]
        copied = [_copies(tuple(part.tolist()), multiplier, spread) for part in parts]
        images = np.array(photos.train)
        # Each class has as many copies per image as in the fold with the most.
        most = np.max([c / np.maximum(part, 1) for c, part in zip(copied, parts, strict=True)], axis=0)
        originals = sum(int(part.sum()) for part in parts)
        train = originals + sum(int(c.sum()) for c in copied)
        rows = [(view, TRAIN, "", int(images.sum())), (view, TRAIN, recipe, round(float((most * images).sum())))]
        rows += [(judged_view, TRAIN, "", int(images.sum()))] if judged_view != view else []
        return EpochReads(train, originals, int(images.sum()), _nonempty(rows))
    if refit:
        splits = {TRAIN: photos.train, VALIDATION: photos.validation}
        counts = tuple(np.sum([splits[name] for name in refit], axis=0).tolist())
        copies = int(_copies(counts, multiplier, spread).sum())
        rows = [(view, name, "", sum(splits[name])) for name in refit] + [(view, TRAIN, recipe, copies)]
        judged = 0 if VALIDATION in refit else sum(photos.validation)
        rows += [(judged_view, VALIDATION, "", judged)]
        return EpochReads(sum(counts) + copies, sum(counts), judged, _nonempty(rows))
    copies, judged = int(_copies(photos.train, multiplier, spread).sum()), sum(photos.validation)
    rows = [(view, TRAIN, "", sum(photos.train)), (view, TRAIN, recipe, copies), (judged_view, VALIDATION, "", judged)]
    return EpochReads(sum(photos.train) + copies, sum(photos.train), judged, _nonempty(rows))


def _nonempty(rows: Iterable[tuple[str, str, str, int]]) -> tuple[tuple[str, str, str, int], ...]:
    return tuple(row for row in rows if row[3] > 0)


@functools.lru_cache(maxsize=1024)
def _copies(counts: tuple[int, ...], multiplier: float, spread: str) -> np.ndarray:
    """Return the copies per class, int64 (classes,)."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(labels, weights=plan_copies(labels, multiplier, spread), minlength=len(counts)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class FitWork:
    """The costs of one fit; compared by identity.

    ``images``, ``features``: the rows that it reads from the store, decoded and through the prefix; ``head_features``:
    those by which its head is trained first, and ``head_s``: the seconds of that. ``epoch_s``: seconds of an epoch that
    reads the store; ``live_epoch_s``: of one that runs the prefix again; ``bare_epoch_s``: at the best speed of the
    trainable part; ``drawn_s``: the part of each that draws images anew. ``network``, ``architecture``: what a worker
    opens and traces once for all fits with equal values. ``model_bytes``: of the trained weights; ``state_bytes``: of a
    checkpoint. ``memory_bytes``: of training, without the process itself.
    """

    key: PartKey
    speed: PartSpeed
    images: tuple[PlannedRows, ...]
    features: tuple[PlannedRows, ...]
    epoch_s: float
    live_epoch_s: float
    bare_epoch_s: float
    network: Hashable
    architecture: Hashable
    prefix: Hashable
    model_bytes: int
    state_bytes: int
    memory_bytes: int
    head_features: tuple[PlannedRows, ...] = ()
    head_s: float = 0.0
    drawn_s: float = 0.0

    @property
    def has_prefix(self) -> bool:
        return bool(self.features)

    @property
    def rows(self) -> tuple[PlannedRows, ...]:
        """Return all rows that it reads."""
        return (*self.images, *self.features, *self.head_features)

    @property
    def head_features_s(self) -> float:
        """Seconds to compute ``head_features``."""
        return sum(rows.count * rows.prefix_s for rows in self.head_features)


def fit_work(
    config: TrialConfig,
    photos: PhotoCounts,
    speeds: Speeds,
    refit: tuple[str, ...] = (),
    settings: StoreSettings | None = None,
) -> FitWork:
    """Return the costs of a fit. ``refit``: the splits of a refit; () for a trial of the search, with all folds."""
    settings = settings or StoreSettings()
    key = PartKey.of(config, settings.precision)
    cost, speed = cost_of(key), speeds.of(key)
    reads = reads_of(photos, config.framing, config.multiplier, config.recipe, refit, config.copies)
    train, read = reads.originals if config.steps == "originals" else reads.train, _with_measured(config, reads.rows)
    images = tuple(
        PlannedRows(_image_shelf(view, key.image_size), split, n, recipe, config.copies)
        for view, split, recipe, n in read
        if not _is_drawn(config, view, recipe)
    )
    features: tuple[PlannedRows, ...] = ()
    if not cost.is_identity:
        shelves = {view: _feature_shelf(key, view, settings.value_bytes) for view, *_ in read}
        features = tuple(
            PlannedRows(shelves[view], split, n, recipe, config.copies, speed.prefix_s)
            for view, split, recipe, n in read
        )
    predicted = reads.judged + (min(reads.originals, MEASURED_IMAGES) if config.batch_norm == "measured" else 0)
    drawn_s = _drawn_s(config, reads, speeds)
    epoch_s = train * speed.train_s + predicted * speed.predict_s + drawn_s
    prefix = config.prefix(settings.precision)
    folds = len(photos.folds) if photos.folds and not refit else 1
    wide = config.hidden * (cost.width + 1) if config.hidden else 0
    head_weights = wide + (config.hidden or cost.width) * photos.classes
    weights = cost.tail_weights + head_weights
    trained = cost.trainable + head_weights
    kept = math.ceil(config.batch_size / config.accumulation_steps) * cost.kept_values * 4
    return FitWork(
        key=key,
        speed=speed,
        images=images,
        features=features,
        epoch_s=epoch_s,
        live_epoch_s=epoch_s + (train + predicted) * speed.prefix_s,
        bare_epoch_s=train * speed.bare_train_s + predicted * speed.predict_s + drawn_s,
        network=(key.backbone, key.image_size, key.output_stride),
        architecture=(prefix, config.hidden, config.head, config.batch_norm, StepKind.of(config)),
        prefix=(prefix, config.framing),
        model_bytes=folds * weights * HEAD_BYTES,
        state_bytes=folds * (weights + OPTIMIZER_COPIES[config.optimizer] * trained) * HEAD_BYTES,
        memory_bytes=int(kept + 3 * trained * HEAD_BYTES),
        drawn_s=drawn_s,
        **_head_costs(config, photos, speeds, refit, settings),
    )


def _with_measured(
    config: TrialConfig, rows: tuple[tuple[str, str, str, int], ...]
) -> tuple[tuple[str, str, str, int], ...]:
    """Return ``EpochReads.rows`` with those that batch norms are measured on, where training sees random crops."""
    view = evaluated(config.framing)
    if config.batch_norm != "measured" or view == config.framing:
        return rows
    originals = [(split, count) for own, split, recipe, count in rows if own == config.framing and not recipe]
    return tuple(dict.fromkeys([*rows, *((view, split, "", count) for split, count in originals)]))


def _is_drawn(config: TrialConfig, view: str, recipe: str) -> bool:
    """Return whether such rows are drawn in each epoch instead of stored: copies, and random crops of the originals,
    except those by which a head is trained first."""
    if config.draws != "fresh":
        return False
    return bool(recipe) or (parts_of(view)[0] == "random_crop" and not config.warm_head)


def _drawn_s(config: TrialConfig, reads: EpochReads, speeds: Speeds) -> float:
    """Return the seconds to draw an epoch's images on one thread. Copies are made from stored images, random crops from
    the files."""
    if config.draws != "fresh":
        return 0.0
    size = config.resolved_image_size
    drawn = reads.originals if config.steps == "originals" else reads.train
    copies = drawn * (1 - reads.originals / reads.train)
    seconds = copies * speeds.augment_s(config.recipe, size) if copies else 0.0
    if config.view == "random_crop":
        seconds += drawn * speeds.decode_s(config.framing, size)
    return seconds


def _head_costs(
    config: TrialConfig, photos: PhotoCounts, speeds: Speeds, refit: tuple[str, ...], settings: StoreSettings
) -> dict[str, Any]:
    """Return ``head_features`` and ``head_s`` of a fit, which trains its head on the originals first."""
    if not config.warm_head or config.unfrozen_layers == 0:
        return {}
    work = fit_work(head_first(config), photos, speeds, refit, settings)
    trained = reads_of(photos, config.framing, 1.0, "", refit).originals
    rows = tuple(r for r in work.features if r.split in (refit or (TRAIN,)) and r.shelf.view == config.framing)
    seconds = config.warm_head * trained * work.speed.train_s + work.speed.open_s + work.speed.trace_s
    return {"head_features": rows, "head_s": seconds}


@dataclass(frozen=True)
class StoreSettings:
    """``precision``: dtype policy of the workers. ``value_bytes``: bytes per stored feature value."""

    precision: str = "float32"
    value_bytes: int = 4


def _image_shelf(view: str, size: int) -> PlannedShelf:
    return PlannedShelf(f"images at {size} px{_view_words(view)}", view, size, size * size * 3)


@functools.lru_cache(maxsize=4096)
def _feature_shelf(key: PartKey, view: str, value_bytes: int) -> PlannedShelf:
    """Return the shelf, named as in the prefill's record: "mobilenet_1.0 at 224 px to conv_pw_11_relu"."""
    cost = cost_of(key)
    pooled = len(cost.row_shape) == 1
    details = {field.name: getattr(key, field.name) for field in dataclasses.fields(PrefixConfig)} | {
        # Keys with the same features have equal shelves, so these fields are replaced by what they decide.
        "unfrozen_layers": cost.layer,
        "output_stride": 16 if cost.refined else 32,
        "feature_fusion": key.feature_fusion != "none" and pooled,
        "pooling": key.pooling if pooled else "",
    }
    what = f"{key.backbone} at {key.image_size} px to {cost.layer}{_view_words(view)}"
    size = cost.row_bytes(value_bytes)
    return PlannedShelf(what, view, key.image_size, size, cost.layer, key.backbone, tuple(details.values()))


def _view_words(framing: str) -> str:
    view, _ = parts_of(framing)
    return "" if view == "squash" else f", {view.replace('_', ' ')}"


def judging_s(works: Sequence[FitWork], speeds: Speeds, images: int, policies: Sequence[str], share: bool) -> float:
    """Return the worker-seconds to predict ``images`` with the models of ``works`` under every policy.

    With ``share`` each photo's crops are cut once per view and size, each unique crop runs once through each prefix,
    and every model runs its own part. Without it every model predicts every policy separately.
    """
    counts = [len(crop_names(name)) for name in policies]
    if not share:
        return sum(images * sum(_decode_s(w, speeds) + n * _crop_s(w) for n in counts) for w in works)
    distinct = distinct_crops(policies)
    crops, canvases = len(distinct), CANVASES if needs_canvas(distinct) else 1
    first = {work.prefix: work for work in works}
    cut_s = sum(canvases * _decode_s(work, speeds) + crops * work.speed.prefix_s for work in first.values())
    return images * (cut_s + crops * sum(work.speed.predict_s for work in works))


def _crop_s(work: FitWork) -> float:
    return work.speed.prefix_s + work.speed.predict_s


def _decode_s(work: FitWork, speeds: Speeds) -> float:
    return speeds.decode_s(work.images[0].shelf.view, work.key.image_size) if work.images else 0.0
