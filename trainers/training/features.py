"""The rows that a fit reads: one per image or augmented copy, computed once and shared through the store.

A row is the decoded image (uint8) if nothing is frozen or training mixes images, else the prefix's output for it.
Decides whether rows are read from the store, computed into it, or, if they do not fit on disk or are not shared,
computed again each time they are read.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np

from trainers.config import TrialConfig, evaluated, parts_of
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.images.decoder import BATCH_IMAGES, Decoder, ImageCopy, in_order
from trainers.images.fresh_draws import FreshDraws
from trainers.networks.prefix import Prefix
from trainers.networks.prefix_index import features_description, known_images, stored_dtype
from trainers.store.eviction import NoRoom
from trainers.store.shelf import Shelf
from trainers.training.balance import occurrences
from trainers.training.examples import ExampleSet, example_sets, inference_set, read_teacher, row_keys

PREFIX_BATCH = BATCH_IMAGES
"""Images per batch through the prefix. A row does not depend on its batch, except for rounding."""


class ReadRows(Protocol):
    """Rows in a given order; ``trainers.store.rows.Rows`` is one implementation."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class RowSubset:
    """A view of the rows at ``places``, int (n,), of a larger set, without copying."""

    rows: ReadRows
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype:
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.places)

    def take(self, indices: np.ndarray) -> np.ndarray:
        """A copy of the rows at ``indices``, shape (len(indices), *shape)."""
        return self.rows.take(self.places[indices])


@dataclass(frozen=True)
class RecomputedRows:
    """Rows that are not stored: ``compute`` runs each time they are taken, on the indices, and yields batches of rows.

    ``ahead``: whether a reader may take the next rows on another thread while it uses the present ones.
    """

    compute: Callable[[np.ndarray], Iterator[np.ndarray]]
    shape: tuple[int, ...]
    dtype: np.dtype
    count: int
    ahead: bool = False

    def __len__(self) -> int:
        return self.count

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows at ``indices``, shape (len(indices), *shape)."""
        out = np.empty((len(indices), *self.shape), self.dtype)
        start = 0
        for batch in self.compute(indices):
            out[start : start + len(batch)] = batch
            start += len(batch)
        return out


@dataclass(frozen=True)
class FreshRows:
    """Images (n, size, size, 3) as ``epoch`` (from 0) sees them, drawn each time they are taken, by ``threads``.

    ``pictures``: the n originals and copies. ``decoded``: the original of each; None if the files are read.
    ``occurrences``: how often each came before in the epoch, int (n,); None for never. ``ahead`` and ``chunk_bytes``:
    see ``trainers.training.chunks``; training waits for an epoch's first chunk, so it is small.
    """

    draws: FreshDraws
    pictures: Sequence[ImageCopy]
    decoded: ReadRows | None
    threads: int = 1
    epoch: int = 0
    occurrences: np.ndarray | None = None
    ahead: ClassVar[bool] = True
    chunk_bytes: ClassVar[int] = 8 * 2**20

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.draws.size, self.draws.size, 3)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("uint8")

    def __len__(self) -> int:
        return len(self.pictures)

    def in_epoch(self, epoch: int) -> Self:
        """Return the same images as another epoch sees them."""
        return replace(self, epoch=epoch)

    def ordered(self, order: np.ndarray) -> Self:
        """Return the images at ``order``, int (n,), in that order; one that comes again there is drawn again."""
        decoded = None if self.decoded is None else RowSubset(self.decoded, order)
        pictures = [self.pictures[place] for place in order.tolist()]
        return replace(self, pictures=pictures, decoded=decoded, occurrences=occurrences(order))

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The images at ``indices``, shape (len(indices), size, size, 3)."""
        squares = None if self.decoded is None else self.decoded.take(indices)
        out = np.empty((len(indices), *self.shape), np.uint8)

        def draw(place: int) -> np.ndarray:
            picture = self.pictures[indices[place]]
            occurrence = 0 if self.occurrences is None else int(self.occurrences[indices[place]])
            return self.draws.image(picture, self.epoch, None if squares is None else squares[place], occurrence)

        for place, image in enumerate(in_order(draw, range(len(indices)), self.threads)):
            out[place] = image
        return out


@dataclass(frozen=True)
class LabelledRows:
    """Rows and their labels, int32 (n,).

    ``originals``: number of rows that are no copies; None for all. ``teacher``: a teacher's probabilities, float32
    (n, classes); None without one. ``measured``: the originals as inference sees them, by which batch norms are
    measured; None where ``rows`` begins with them.
    """

    rows: ReadRows
    labels: np.ndarray
    originals: int | None = None
    teacher: np.ndarray | None = None
    measured: ReadRows | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def original_count(self) -> int:
        """Number of rows that are no copies; they come first."""
        return len(self) if self.originals is None else self.originals

    def in_epoch(self, epoch: int) -> ReadRows:
        """Return the rows as ``epoch`` (from 0) reads them; others than ``FreshRows`` are the same in each."""
        return self.rows.in_epoch(epoch) if isinstance(self.rows, FreshRows) else self.rows

    def of_epoch(self, epoch: int, order: np.ndarray) -> ReadRows:
        """Return the rows at ``order``, int (n,), in that order, as ``epoch`` (from 0) trains on them.

        Others than ``FreshRows`` are the same each time that they come in ``order``.
        """
        rows = self.in_epoch(epoch)
        return rows.ordered(order) if isinstance(rows, FreshRows) else RowSubset(rows, order)


@dataclass
class ReadCost:
    """Work done to read rows, added up as they are computed. ``decode_s``: spent waiting for decoded images, which come
    from other threads while the prefix runs. ``stored``: every row read is in the store now;
    ``refused``: the message of the error that kept rows out of it, if any."""

    images: int = 0
    features: int = 0
    bytes: int = 0
    decode_s: float = 0.0
    prefix_s: float = 0.0
    stored: bool = True
    refused: str = ""


@dataclass(frozen=True)
class ReadSettings:
    """How rows are stored and read. ``share``, ``store_dtype`` and ``threads``, which decode and draw: see ``FitJob``;
    ``seed``: of fresh draws."""

    share: bool = True
    store_dtype: str = "float32"
    threads: int = 1
    cost: ReadCost = field(default_factory=ReadCost)
    seed: int = 0


def fit_examples(
    job: FitJob, manifest: Manifest, prefix: Prefix, cost: ReadCost | None = None
) -> list[tuple[LabelledRows, LabelledRows | None]]:
    """Read what each fold of ``job`` trains on and is validated on (None if the fit trains on that too).

    Folds overlap, so they share one set of rows in memory. Where batch norms are measured and training sees random
    crops, the originals are read as centre crops, too. Raises TrainerError.
    """
    pairs = example_sets(job, manifest)
    wanted = [examples for pair in pairs for examples in pair if examples is not None]
    of_measured = job.config.batch_norm == "measured" and evaluated(job.config.framing) != job.config.framing
    inferred = [inference_set(train) for train, _ in pairs] if of_measured else []
    reading = ReadSettings(job.share, job.store_dtype, job.threads, cost or ReadCost(), job.seed)
    read = iter(read_sets([*wanted, *inferred], job.config, prefix, Path(job.cache), reading))
    rows_of = {id(examples): next(read) for examples in wanted}
    for (train, _), found in zip(pairs, read, strict=False):
        rows_of[id(train)] = replace(rows_of[id(train)], measured=found.rows)
    if job.distillation is not None:
        for train, _ in pairs:
            answers = read_teacher(Path(job.distillation.teacher), row_keys(train, job.config.recipe))
            rows_of[id(train)] = replace(rows_of[id(train)], teacher=answers)
    return [(rows_of[id(train)], None if held_out is None else rows_of[id(held_out)]) for train, held_out in pairs]


def read_sets(
    sets: Sequence[ExampleSet], config: TrialConfig, prefix: Prefix, cache: Path, reading: ReadSettings | None = None
) -> list[LabelledRows]:
    """Read the rows of each of ``sets``; those of one view share one set of rows, which holds every key once.

    All ``sets`` are of one data set. Of fresh draws only the originals' images are shared, and none of a random crop.
    """
    reading = reading or ReadSettings()
    if config.draws == "fresh":
        return _fresh_sets(sets, config, prefix, cache, reading)
    found: dict[int, LabelledRows] = {}
    for view in dict.fromkeys(examples.view for examples in sets):
        images: dict[str, ImageCopy] = {}
        row_of: dict[str, int] = {}
        places: dict[int, np.ndarray] = {}
        here = [number for number, examples in enumerate(sets) if examples.view == view]
        for number in here:
            keys = row_keys(sets[number], config.recipe)
            for key, image in zip(keys, sets[number].images, strict=True):
                images.setdefault(key, image)
            places[number] = np.array([row_of.setdefault(key, len(row_of)) for key in keys], np.int64)
        first = sets[here[0]]
        decode = Decoder(first.root, config.recipe, view, prefix.key.image_size, first.seed, reading.threads)
        rows = _RowReader(images, decode, prefix, cache, reading).rows()
        for number in here:
            originals = sum(image.copy == 0 for image in sets[number].images)
            found[number] = LabelledRows(RowSubset(rows, places[number]), sets[number].labels, originals)
    return [found[number] for number in range(len(sets))]


def _fresh_sets(
    sets: Sequence[ExampleSet], config: TrialConfig, prefix: Prefix, cache: Path, reading: ReadSettings
) -> list[LabelledRows]:
    """``read_sets`` of a configuration that draws anew in each epoch what is no original or is cropped at random."""
    fixed = replace(config, draws="fixed")
    stored = [replace(each, images=[replace(image, copy=0) for image in each.images]) for each in sets]
    squares = [each for each in stored if parts_of(each.view)[0] != "random_crop"]
    read = iter(read_sets(squares, fixed, prefix, cache, reading))
    found = []
    for examples in sets:
        draws = FreshDraws(examples.root, config.recipe, examples.view, prefix.key.image_size, reading.seed)
        decoded = None if draws.reads_files else next(read).rows
        originals = sum(image.copy == 0 for image in examples.images)
        rows: ReadRows = FreshRows(draws, examples.images, decoded, reading.threads)
        if decoded is not None and originals == len(examples.images):
            rows = decoded
        found.append(LabelledRows(rows, examples.labels, originals))
    return found


class _RowReader:
    """Reads the rows of ``copies`` (by key, in order), from the store if possible."""

    def __init__(
        self, copies: Mapping[str, ImageCopy], decode: Decoder, prefix: Prefix, cache: Path, reading: ReadSettings
    ) -> None:
        self.keys, self.copies = list(copies), list(copies.values())
        self.decode, self.prefix, self.cache = decode, prefix, cache
        self.reading, self.cost = reading, reading.cost
        self.images = known_images(cache, decode.size, decode.view).shelf(cache)

    def rows(self) -> ReadRows:
        """Decoded images or the prefix's output for them, from the store if they may be stored there and fit."""
        rows: ReadRows | None
        if self.prefix.is_identity:
            rows = self._decoded(range(len(self.keys)))
        else:
            rows = self._stored_features()
            if rows is None:  # their segments are closed now, so images may fit again
                self.__dict__.pop("_images_fit", None)
                rows = self._recomputed_features()
        self.cost.stored &= not isinstance(rows, RecomputedRows)
        return rows

    def _stored_features(self) -> ReadRows | None:
        """The prefix's output in the store; None if it may not be stored or does not fit."""
        if not self.reading.share:
            return None
        spec, dtype = self.prefix.spec, stored_dtype(self.prefix.row_dtype, self.reading.store_dtype)
        described = features_description(self.prefix.description(), self.decode.view, dtype)
        shelf = Shelf(self.cache, "features", described)
        row_bytes = int(np.prod(spec.shape[1:])) * np.dtype(dtype).itemsize
        if not self._fits(shelf, row_bytes):
            return None
        try:
            rows = shelf.rows(self.keys, self._features, dtype)
        except NoRoom as error:
            self.cost.refused = str(error)
            return None
        finally:
            self.cost.bytes += shelf.written * row_bytes
        self.prefix.note(self.cache)
        return rows

    def _fits(self, shelf: Shelf, row_bytes: int) -> bool:
        """Whether all rows are stored already, or are expected to fit."""
        # Count first: that reads headers that are needed anyway, while the forecast lists the whole cache.
        return shelf.count(self.keys) == len(self.keys) or shelf.has_room_for(self.keys, row_bytes)

    @functools.cached_property
    def _images_fit(self) -> bool:
        return self._fits(self.images, self.decode.size**2 * 3)

    def _decoded(self, places: Sequence[int]) -> ReadRows:
        """The images of the copies at ``places``: from the store, or decoded on each read if they do not fit."""
        copies, keys = [self.copies[p] for p in places], [self.keys[p] for p in places]
        shape = (self.decode.size, self.decode.size, 3)
        if self._images_fit:
            written = self.images.written
            try:
                return self.images.rows(keys, lambda here: self._decode([copies[i] for i in here]))
            except NoRoom as error:
                self.cost.refused = str(error)
                self._images_fit = False
            finally:
                self.cost.bytes += (self.images.written - written) * int(np.prod(shape))
        return RecomputedRows(
            lambda here: self._decode([copies[i] for i in here]), shape, np.dtype("uint8"), len(keys), ahead=True
        )

    def _decode(self, copies: Sequence[ImageCopy]) -> Iterator[np.ndarray]:
        batches = self.decode(copies)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.cost.decode_s += time.perf_counter() - started
            if batch is None:
                return
            self.cost.images += len(batch)
            yield batch

    def _features(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        return map(self._run, _batches(self._decoded(places), np.arange(len(places))))

    def _run(self, images: np.ndarray) -> np.ndarray:
        started = time.perf_counter()
        batch = self.prefix(images).numpy()
        self.cost.prefix_s += time.perf_counter() - started
        self.cost.features += len(batch)
        return batch

    def _recomputed_features(self) -> RecomputedRows:
        """The prefix's output, computed from the decoded images on each read."""
        decoded, spec = self._decoded(range(len(self.keys))), self.prefix.spec
        return RecomputedRows(
            lambda here: map(self._run, _batches(decoded, here)),
            tuple(spec.shape[1:]),
            np.dtype("float32"),
            len(self.keys),
        )


def _batches(rows: ReadRows, indices: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows at ``indices``, PREFIX_BATCH at a time; those that are decoded for it, while the last are used."""
    if isinstance(rows, RecomputedRows):
        yield from rows.compute(indices)
        return
    for start in range(0, len(indices), PREFIX_BATCH):
        yield rows.take(indices[start : start + PREFIX_BATCH])
