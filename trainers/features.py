"""What a fit reads: for each image or augmented copy one row, computed once and shared through the store.

Nothing frozen, or images that training mixes: the row is the decoded image (uint8). Else it is the prefix's output
for that image (float32).
A row's key is the image's sha256 and the number of the copy, so trials, epochs, retrainings and later sweeps share it.
A copy's key also names its recipe, and says what the code of a recipe of the user's own was.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Protocol

import numpy as np

from trainers.augment import RECIPES, augment, find_recipe, plan_copies
from trainers.contract import TrainerError, TrialConfig
from trainers.images import Unreadable, square
from trainers.manifest import Manifest
from trainers.model import Prefix
from trainers.store import Rows, Shelf

PREFIX_BATCH = 32
"""Images the frozen part sees at a time. A row does not depend on its neighbours, but for rounding."""


class ReadRows(Protocol):
    """Rows in an order, as ``trainers.store.Rows`` has them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Chosen:
    """Some of the rows of a set, in an order of their own, nothing copied. ``places``: int (n,)."""

    rows: Rows
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the rows at ``indices``, shape (len(indices), *shape)."""
        return self.rows.take(self.places[indices])


@dataclass(frozen=True)
class Examples:
    """Rows in order, and their labels, int32 (n,)."""

    rows: ReadRows
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Item:
    """One training example: a row of the manifest and the number of its copy, 0 for the original."""

    row: int
    copy: int


def training_items(manifest: Manifest, multiplier: float) -> list[Item]:
    """Every original, then the copies that the multiplier asks for, class by class as even as they can be."""
    copies = plan_copies(manifest.labels(), multiplier)
    originals = [Item(row, 0) for row in range(len(copies))]
    return originals + [Item(row, k) for row, count in enumerate(copies) for k in range(1, count + 1)]


def training_examples(manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path) -> Examples:
    """The examples of one epoch: ``manifest`` holds the training images alone."""
    items = training_items(manifest, config.multiplier)
    return _examples([(manifest, items)], config, prefix, cache, config.view)[0]


def evaluation_examples(manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path) -> Examples:
    """Every image once, never augmented; a random crop becomes the centre crop."""
    return _examples([(manifest, _originals(manifest))], config, prefix, cache, _judged_view(config))[0]


def folded_examples(
    folds: Sequence[Manifest], config: TrialConfig, prefix: Prefix, cache: Path
) -> list[tuple[Examples, Examples]]:
    """What each fold trains on and is validated on, as the two functions above give it for that fold's own splits.

    Folds overlap, so all read one set of rows: memory holds it once and not once a fold.
    """
    trained = [fold.split("train") for fold in folds]
    judged = [fold.split("validation") for fold in folds]
    if any(not len(part.table) for part in (*trained, *judged)):
        raise TrainerError("a fold has no image to train on or to be judged by; ask for fewer folds.")
    to_train = [(part, training_items(part, config.multiplier)) for part in trained]
    to_judge = [(part, _originals(part)) for part in judged]
    if config.view == _judged_view(config):
        both = _examples(to_train + to_judge, config, prefix, cache, config.view)
        return list(zip(both[: len(folds)], both[len(folds) :], strict=True))
    training = _examples(to_train, config, prefix, cache, config.view)
    return list(zip(training, _examples(to_judge, config, prefix, cache, _judged_view(config)), strict=True))


def _originals(manifest: Manifest) -> list[Item]:
    return [Item(row, 0) for row in range(len(manifest.table))]


def _judged_view(config: TrialConfig) -> str:
    return "centre_crop" if config.view == "random_crop" else config.view


def _examples(
    parts: Sequence[tuple[Manifest, list[Item]]], config: TrialConfig, prefix: Prefix, cache: Path, view: str
) -> list[Examples]:
    """Each part's examples, all from one set of rows that holds every key once. The parts are of one manifest."""
    pictures: dict[str, _Picture] = {}
    numbers: dict[str, int] = {}  # a picture's row in the set
    places: list[np.ndarray] = []
    whole = parts[0][0]
    # An original has the same pixels under every recipe; only copies depend on it and on the data's seed.
    tail = f"{config.recipe}:{whole.seed}"
    if config.recipe not in RECIPES and any(item.copy for _, items in parts for item in items):
        tail += f":{_digest_of(find_recipe(config.recipe).apply)}"
    for manifest, items in parts:
        hashes, paths = manifest.table["sha256"].tolist(), manifest.table["path"].tolist()
        here = np.empty(len(items), np.int64)
        for position, item in enumerate(items):
            sha256 = hashes[item.row]
            key = f"{sha256}:{item.copy}:{tail}" if item.copy else sha256
            here[position] = numbers.setdefault(key, len(numbers))
            if key not in pictures:
                pictures[key] = _Picture(paths[item.row], sha256, item.copy)
        places.append(here)
    size = prefix.architecture.image_size
    rows = _rows(pictures, _Decoder(whole.root, config.recipe, view, size, whole.seed), prefix, cache)
    return [
        Examples(Chosen(rows, here), manifest.labels()[[item.row for item in items]])
        for (manifest, items), here in zip(parts, places, strict=True)
    ]


def _rows(pictures: Mapping[str, _Picture], decode: _Decoder, prefix: Prefix, cache: Path) -> Rows:
    """The rows of ``pictures`` by their keys, in order: decoded images, or what the prefix makes of them."""
    keys, wanted = list(pictures), list(pictures.values())
    images = Shelf(cache, "images", {"size": decode.size, "view": decode.view})
    if prefix.is_identity:
        return images.rows(keys, lambda positions: decode([wanted[p] for p in positions]))

    def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
        here = [wanted[p] for p in positions]
        decoded = images.rows([keys[p] for p in positions], lambda inner: decode([here[i] for i in inner]))
        for start in range(0, len(positions), PREFIX_BATCH):
            chosen = np.arange(start, min(start + PREFIX_BATCH, len(positions)))
            yield prefix(decoded.take(chosen)).numpy()

    shelf = Shelf(cache, "features", {**prefix.description(), "view": decode.view})
    return shelf.rows(keys, compute)


@dataclass(frozen=True, slots=True)
class _Picture:
    """Copy ``copy`` (0: the original) of the image of this hash at ``path``, relative to the data's root."""

    path: str
    sha256: str
    copy: int


@dataclass(frozen=True)
class _Decoder:
    """Pictures -> batches of uint8 images (n, size, size, 3). ``seed`` is the data's."""

    root: Path
    recipe: str
    view: str
    size: int
    seed: int

    def __call__(self, pictures: Sequence[_Picture]) -> Iterator[np.ndarray]:
        for start in range(0, len(pictures), PREFIX_BATCH):
            yield np.stack([self._one(picture) for picture in pictures[start : start + PREFIX_BATCH]])

    def _one(self, picture: _Picture) -> np.ndarray:
        crop_seed = int(picture.sha256[:8], 16) + picture.copy if self.view == "random_crop" else None
        path = self.root / picture.path
        data = _bytes_of(path, picture.sha256)
        try:
            image = square(data, self.size, self.view, crop_seed)
        except Unreadable as error:
            raise Unreadable(str(path), error.reason) from error
        return augment(image, picture.sha256, picture.copy, self.recipe, self.seed) if picture.copy else image


def _bytes_of(path: Path, sha256: str) -> bytes:
    """What the file holds. Raises TrainerError where that is not the image the manifest was made of."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise Unreadable(str(path), "there is no such file") from error
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise TrainerError(
            f"{path} changed since the manifest was made; put the file back as it was, or start a new sweep, which "
            "reads the images anew."
        )
    return data


def _digest_of(function: Any) -> str:
    """Of a recipe's function: other code under an old name must not find the old copies. What it calls is not read."""
    digest = hashlib.sha256()
    while isinstance(function, functools.partial):
        digest.update(repr((function.args, sorted(function.keywords.items()))).encode())
        function = function.func
    if not inspect.isroutine(function):  # an object that can be called
        function = type(function).__call__
    try:
        digest.update(inspect.getsource(function).encode())
    except (OSError, TypeError):  # made at run time, or compiled
        code = getattr(function, "__code__", None)
        digest.update(_bytes_in(code) if code is not None else repr(function).encode())
    return digest.hexdigest()[:16]


def _bytes_in(code: CodeType) -> bytes:
    """The instructions of ``code``, the names and constants they use, and those of the functions inside."""
    inner = [_bytes_in(c) if isinstance(c, CodeType) else repr(c).encode() for c in code.co_consts]
    return b"|".join([code.co_code, repr(code.co_names).encode(), *inner])
