"""Predict a split under crop policies: each photo decoded once, each distinct crop through the frozen part once.

``predict`` is the job that a worker runs. Models that share a prefix share its work, and so do policies: the mirror
image of ``flip``, the centre of ``ten_crop`` and the middle scale of ``pyramid`` are crops with a name
(``trainers.images.policies.crop_names``), and a policy is a mean over some of them. What the prefix gives for a crop
is kept in the store where that pays, beside what trials read of the whole images, so that other models do not need it
again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.images.crops import READ, Clock, cut
from trainers.images.decoder import bytes_of, named
from trainers.images.policies import WHOLE, crop_names, distinct_crops
from trainers.networks.network import Architecture, Network
from trainers.networks.prefix import Prefix
from trainers.networks.prefix_index import features_description
from trainers.serving.parts import PredictionPart
from trainers.store.eviction import NoRoom
from trainers.store.rows import Rows
from trainers.store.shelf import Shelf
from trainers.training import device
from trainers.training.cross_validation import fold_folder
from trainers.training.loop import read_weights
from trainers.training.steps import prefix_of

BATCH_CROPS = 64
"""Crops that a network sees at a time. On CPUs any size from 16 to 128 takes as long."""
STORE_BYTES_PER_S = 200e6
"""What a disk that is not fast writes and reads."""
CROPS_KEPT, WHOLE_KEPT = 0.05, 0.25
"""Rows are kept that take at most this share of the prefix's time to write: those of every crop, which nobody may need
again, or of the whole images alone, which are few and which trials read too. MobileNet 1.0's pooled features take
0.001 of it, its maps of 7 x 7 x 1024 0.06, those of 14 x 14 x 512 0.12: keeping all of these made the first leaderboard
a tenth dearer."""
SAMPLE_IMAGES, SAMPLE_CROPS = 2, 8
"""How many are cut, and run through the prefix, to know what was not measured because it came from the store."""


@dataclass
class _Model:
    """One trained network above its prefix. ``folder``: of its fit; it holds a folder for each fold, if any.

    ``crops``: float32 (images, crops, classes).
    """

    id: str
    folder: Path
    network: Network
    crops: np.ndarray
    seconds: float = 0.0


@dataclass(frozen=True)
class _Pictures:
    """The images of one part, in order, and the crops wanted of each."""

    paths: list[Path]
    hashes: list[str]
    names: tuple[str, ...]
    size: int
    view: str

    def keys(self, positions: np.ndarray) -> list[str]:
        """Keys in the store; the whole image has the one under which trials find it. ``positions`` as in ``_Crops``."""
        each = [("" if name == WHOLE else f":{name}") for name in self.names]
        return [self.hashes[p // len(each)] + each[p % len(each)] for p in positions]


@dataclass
class _Spent:
    """What was measured. ``prefix_s`` is a crop's, before any ran in earnest that of a sample."""

    clock: Clock = field(default_factory=Clock)
    prefix_s: float = 0.0
    images: int = 0
    computed: int = 0
    read: int = 0
    computing_s: float = 0.0


def predict(job: Mapping[str, Any]) -> PredictionPart:
    """Predict one split, or a part of it, under several policies with several models of one prefix.

    ``job``: ``models`` (id -> folder of a finished fit), ``policies``, ``manifest``, ``split``, ``threads``,
    ``gpu_memory_share``, ``precision``, and if need be

    - ``part``: (start, stop), a range of the split's images; without it all of them;
    - ``cache``: the store; without it, and with ``share`` False, nothing is read from there or kept;
    - ``folds``: k (0 for none): the models are fits with k folds and ``split`` is "validation"; each image that lies in
      a fold is predicted by the fit that did not train on it.

    Seconds are those of each policy alone: reading and decoding in full, the squares and crops that it needs, the
    prefix at its measured speed over its crops, and each model at its own over them. What others share is charged to
    each, and what came from the store is charged as if computed. Raises TrainerError.
    """
    policy_in_force = device.prepare(job["threads"], job["gpu_memory_share"], job["precision"])
    manifest, folds = Manifest.read(Path(job["manifest"])), int(job.get("folds", 0))
    asked = _asked(manifest, job["split"], folds)
    start, stop = job.get("part") or (0, len(asked.table))
    here = slice(start, stop)
    hashes, labels = asked.table["sha256"].tolist()[here], asked.labels()[here]
    if not hashes:
        raise TrainerError(f"there is no image in the split {job['split']}, so nothing can be predicted.")
    names = distinct_crops(job["policies"])
    shape = (len(hashes), len(names), len(manifest.classes))
    prefix, models, view = _open(job["models"], shape, policy_in_force, folds)
    pictures = _Pictures(asked.paths()[here], hashes, names, prefix.key.image_size, view)

    crops = _Crops(pictures, prefix, models, _sampled(prefix, models))
    shelf = _shelf(job, prefix, view)
    kept = crops.kept(shelf)
    fold_of = asked.table["fold"].to_numpy()[here]
    for number in range(1, folds + 1) if folds else [0]:
        for model in models if number else []:
            model.network.load_state(read_weights(fold_folder(model.folder, number))[1])
        chosen = np.flatnonzero(fold_of == number) if number else np.arange(len(hashes))
        crops.run(chosen, shelf, kept)
    return _part(job["policies"], crops, (start, labels))


def _part(policies: Sequence[str], crops: _Crops, images: tuple[int, np.ndarray]) -> PredictionPart:
    """The means over each policy's crops, and what each policy alone would have taken."""
    start, labels = images
    names, spent, models = crops.pictures.names, crops.spent, crops.models
    crops.measure_cutting()
    probabilities: dict[str, dict[str, np.ndarray]] = {}
    shared_s: dict[str, float] = {}
    own_s: dict[str, dict[str, float]] = {}
    for policy in policies:
        its = [names.index(name) for name in crop_names(policy)]
        probabilities[policy] = {m.id: m.crops[:, its].mean(1) for m in models}
        shared_s[policy] = len(labels) * (spent.clock.seconds_an_image(crop_names(policy)) + len(its) * spent.prefix_s)
        own_s[policy] = {m.id: m.seconds * len(its) / len(names) for m in models}
    counts = {"decoded": spent.images, "computed": spent.computed, "read": spent.read}
    return PredictionPart(start, np.array(crops.pictures.hashes), labels, probabilities, shared_s, own_s, **counts)


class _Crops:
    """Every crop of some pictures through the prefix and the models.

    A crop's *position* is its image's place times the number of names, plus the place of its name.
    """

    def __init__(self, pictures: _Pictures, prefix: Prefix, models: Sequence[_Model], sampled_prefix_s: float) -> None:
        self.pictures, self.prefix, self.models = pictures, prefix, models
        self.spent = _Spent(prefix_s=sampled_prefix_s)

    def kept(self, shelf: Shelf | None) -> frozenset[str]:
        """The crops whose rows are read from the store and written to it.

        All of them, or the whole images, where that takes the disk little of the prefix's time and there is room; else
        the whole images if a search has stored every one and reading is quicker than computing.
        """
        if shelf is None:
            return frozenset()
        pictures, names = self.pictures, self.pictures.names
        whole = frozenset({WHOLE}.intersection(names))
        row_bytes = np.dtype(self.prefix.row_dtype).itemsize * int(np.prod(self.prefix.spec.shape[1:]))
        disk_share = row_bytes / STORE_BYTES_PER_S / self.spent.prefix_s
        for kept, most in ((frozenset(names), CROPS_KEPT), (whole, WHOLE_KEPT)):
            if kept and disk_share <= most:
                positions, _ = self._positions(np.arange(len(pictures.hashes)), kept)
                if shelf.has_room_for(pictures.keys(positions), row_bytes):
                    return kept
        stored = disk_share < 1 and whole and shelf.count(pictures.hashes) == len(set(pictures.hashes))
        return whole if stored else frozenset()

    def run(self, images: np.ndarray, shelf: Shelf | None, kept: frozenset[str]) -> None:
        """Fill in the models' answers for every crop of ``images``."""
        through, others = self._positions(images, kept)
        if shelf is not None and len(through):
            others = np.sort(np.concatenate([self._through(shelf, through), others]))
        for _ in self._compute(others):
            """Nothing is kept of these."""

    def _positions(self, images: np.ndarray, kept: frozenset[str]) -> tuple[np.ndarray, np.ndarray]:
        """Where the crops of ``images`` are that are kept, and the others."""
        names = self.pictures.names
        every = (images[:, None] * len(names) + np.arange(len(names))).ravel()
        is_kept = np.array([names[p % len(names)] in kept for p in every], bool)
        return every[is_kept], every[~is_kept]

    def _through(self, shelf: Shelf, positions: np.ndarray) -> np.ndarray:
        """Compute what ``shelf`` lacks and let it keep that; read the rest. Gives the positions that are left where it
        has no room."""
        done: set[int] = set()

        def compute(chosen: Sequence[int]) -> Iterator[np.ndarray]:
            wanted = positions[list(chosen)]
            for batch, features in self._compute(wanted):
                done.update(batch.tolist())
                yield features

        try:
            rows = shelf.rows(self.pictures.keys(positions), compute, self.prefix.row_dtype)
        except NoRoom:
            return positions[~np.isin(positions, list(done))]
        self._read(rows, positions, [place for place, p in enumerate(positions.tolist()) if p not in done])
        return positions[:0]

    def _read(self, rows: Rows, positions: np.ndarray, places: list[int]) -> None:
        for start in range(0, len(places), BATCH_CROPS):
            chosen = np.array(places[start : start + BATCH_CROPS])
            self._answer(positions[chosen], rows.take(chosen).astype(np.float32, copy=False))
        self.spent.read += len(places)

    def _compute(self, positions: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(positions, features) of crops cut and run here, batch by batch, in the order given."""
        for batch in self._batches(positions):
            pixels = self._cut(batch)
            started = time.perf_counter()
            features = self.prefix(pixels)
            kept = features.numpy()
            spent = self.spent
            spent.computing_s += time.perf_counter() - started
            spent.computed += len(batch)
            spent.prefix_s = spent.computing_s / spent.computed
            self._answer(batch, features)
            yield batch, kept

    def _batches(self, positions: np.ndarray) -> Iterator[np.ndarray]:
        """About BATCH_CROPS positions at a time; neighbours of one image stay together."""
        if not len(positions):
            return
        images = positions // len(self.pictures.names)
        edges = [0, *(np.flatnonzero(np.diff(images)) + 1), len(positions)]
        start = 0
        for edge, following in zip(edges[1:], [*edges[2:], None], strict=False):
            if following is None or following - start > BATCH_CROPS:
                yield positions[start:edge]
                start = edge

    def _cut(self, positions: np.ndarray) -> np.ndarray:
        """The pixels at ``positions``, uint8 (n, size, size, 3). An image is decoded once."""
        images = positions // len(self.pictures.names)
        parts = np.split(positions, np.flatnonzero(np.diff(images)) + 1)
        return np.concatenate([self._cut_image(part) for part in parts])

    def _cut_image(self, positions: np.ndarray) -> np.ndarray:
        pictures, clock = self.pictures, self.spent.clock
        image = int(positions[0]) // len(pictures.names)
        names = [pictures.names[p % len(pictures.names)] for p in positions]
        path, sha256 = pictures.paths[image], pictures.hashes[image]
        with clock.measure(READ):
            data = bytes_of(path, sha256)
        self.spent.images += 1
        with named(path):
            return cut(data, pictures.size, pictures.view, names, sha256, clock)

    def _answer(self, positions: np.ndarray, features: Any) -> None:
        """``features``: an array, or TensorFlow's own, which spares a copy for each model."""
        for model in self.models:
            started = time.perf_counter()
            answers = model.network.predict(features)
            model.crops.reshape(-1, answers.shape[1])[positions] = answers
            model.seconds += time.perf_counter() - started

    def measure_cutting(self) -> None:
        """Cut a few images where some crops came from the store, so that the clock knows every one."""
        names = self.pictures.names
        if not self.spent.clock.knows(names):
            images, counted = min(SAMPLE_IMAGES, len(self.pictures.hashes)), self.spent.images
            self._cut(np.arange(images * len(names)))
            self.spent.images = counted


def _sampled(prefix: Prefix, models: Sequence[_Model]) -> float:
    """Make all traces; the seconds of the prefix for a crop."""
    size = prefix.key.image_size
    pixels = np.zeros((SAMPLE_CROPS, size, size, 3), np.uint8)
    features = prefix(pixels)
    for model in models:
        model.network.predict(features)
    started = time.perf_counter()
    prefix(pixels).numpy()
    return (time.perf_counter() - started) / SAMPLE_CROPS


def _shelf(job: Mapping[str, Any], prefix: Prefix, view: str) -> Shelf | None:
    """Where trials keep what the prefix gives for whole images of that view, without loss.

    What ``store_dtype`` had rounded is computed again: figures must not depend on what a cache still holds.
    """
    if prefix.is_identity or not job.get("cache") or not job.get("share", True):
        return None
    return Shelf(Path(job["cache"]), "features", features_description(prefix.description(), view, prefix.row_dtype))


def _asked(manifest: Manifest, split: str, folds: int) -> Manifest:
    """The images to predict: a split, or all that lie in a fold."""
    if not folds:
        return manifest.split(split)
    if split != "validation":
        raise TrainerError(f"fits with folds predict the split validation, fold by fold, not {split}.")
    if manifest.folds != folds:
        raise TrainerError(f"{folds} folds were asked for, but the manifest has {manifest.folds or 'none'}.")
    return manifest.split("train")


def _open(
    folders: Mapping[str, str], shape: tuple[int, int, int], precision: str, folds: int
) -> tuple[Prefix, list[_Model], str]:
    """The prefix, the models with room for ``shape`` = (images, crops, classes), and the view that they judge by."""
    models: list[_Model] = []
    prefixes: list[Prefix] = []
    views: set[str] = set()
    for name, folder in folders.items():
        fit, arrays = read_weights(fold_folder(Path(folder), 1) if folds else Path(folder))
        network = open_network(fit, arrays, shape[-1], precision)
        prefixes.append(prefix_of(network.architecture.prefix))
        views.add(fit.config.view)
        models.append(_Model(name, Path(folder), network, np.zeros(shape, np.float32)))
    if not models:
        raise TrainerError("no model was named to predict with.")
    if len(views) > 1 or any(p.description() != prefixes[0].description() for p in prefixes):
        raise TrainerError("models of different prefixes or views cannot be predicted in one job.")
    return prefixes[0], models, "centre_crop" if views == {"random_crop"} else views.pop()


def open_network(fit: FitJob, arrays: list[np.ndarray], classes: int, precision: str = "float32") -> Network:
    """The trained network of a finished fit."""
    architecture = Architecture.of(fit.config, fit.weights, classes, precision)
    network = Network(architecture, prefix_of(architecture.prefix))
    network.set_numbers(fit.config)
    network.load_state(arrays)
    return network
