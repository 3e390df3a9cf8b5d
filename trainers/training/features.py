"""What a fit reads: for each image or augmented copy one row, computed once and shared through the store.

Nothing frozen, or images that training mixes: the row is the decoded image (uint8). Else it is the prefix's output
for that image. What does not fit on the disk, or is not to be shared, is computed anew each time it is read.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from trainers.config import TrialConfig
from trainers.contract import FitJob
from trainers.data.examples import ExampleSet, example_sets, judged_set, row_keys, training_set
from trainers.data.manifest import Manifest
from trainers.images.decoder import Decoder, ImageCopy
from trainers.networks.prefix import Prefix
from trainers.networks.prefix_index import features_description, known_images, stored_dtype
from trainers.store.eviction import NoRoom
from trainers.store.shelf import Shelf

PREFIX_BATCH = 32
"""Images the frozen part sees at a time. A row does not depend on its neighbours, but for rounding."""


class ReadRows(Protocol):
    """Rows in an order, as ``trainers.store.Rows`` has them."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class RowSubset:
    """Some of the rows of a set, in an order of their own, nothing copied. ``places``: int (n,)."""

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
class LiveRows:
    """Rows that nobody keeps: ``compute`` makes those at the given places each time they are taken, 32 at a time."""

    compute: Callable[[np.ndarray], np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype
    count: int

    def __len__(self) -> int:
        return self.count

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows at ``indices``, shape (len(indices), *shape)."""
        out = np.empty((len(indices), *self.shape), self.dtype)
        for start in range(0, len(indices), PREFIX_BATCH):
            chosen = slice(start, start + PREFIX_BATCH)
            out[chosen] = self.compute(indices[chosen])
        return out


@dataclass(frozen=True)
class LabelledRows:
    """Rows in order, and their labels, int32 (n,)."""

    rows: ReadRows
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass
class ReadCost:
    """What reading cost: counted up as rows are computed. ``stored``: every row that is read was, or is now, in the
    store; ``refused``: what kept some out of it, a sentence, where they were tried."""

    images: int = 0
    features: int = 0
    bytes: int = 0
    decode_s: float = 0.0
    prefix_s: float = 0.0
    stored: bool = True
    refused: str = ""


@dataclass(frozen=True)
class ReadSettings:
    """How rows are kept. ``share`` and ``store_dtype`` are ``FitJob``'s."""

    share: bool = True
    store_dtype: str = "float32"
    meter: ReadCost = field(default_factory=ReadCost)


def training_examples(
    manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path, reading: ReadSettings | None = None
) -> LabelledRows:
    """The examples of one epoch: ``manifest`` holds the training images alone."""
    return read_parts([training_set(manifest, config)], config, prefix, cache, reading)[0]


def evaluation_examples(
    manifest: Manifest, config: TrialConfig, prefix: Prefix, cache: Path, reading: ReadSettings | None = None
) -> LabelledRows:
    """Every image once, never augmented; a random crop becomes the centre crop."""
    return read_parts([judged_set(manifest, config)], config, prefix, cache, reading)[0]


def fit_examples(
    job: FitJob, manifest: Manifest, prefix: Prefix, meter: ReadCost | None = None
) -> list[tuple[LabelledRows, LabelledRows | None]]:
    """What the fit of ``job`` trains on and is validated on (None where that is trained on): one pair for each fold.

    Folds overlap, so all read one set of rows: memory holds it once and not once a fold. Raises TrainerError.
    """
    pairs = example_sets(job, manifest)
    wanted = [part for pair in pairs for part in pair if part is not None]
    reading = ReadSettings(job.share, job.store_dtype, meter or ReadCost())
    read = iter(read_parts(wanted, job.config, prefix, Path(job.cache), reading))
    by_part = {id(part): next(read) for part in wanted}
    return [(by_part[id(train)], None if judged is None else by_part[id(judged)]) for train, judged in pairs]


def read_parts(
    parts: Sequence[ExampleSet], config: TrialConfig, prefix: Prefix, cache: Path, reading: ReadSettings | None = None
) -> list[LabelledRows]:
    """Each part's examples; those of one view come from one set of rows, which holds every key once.

    The parts are of one data set.
    """
    found: dict[int, LabelledRows] = {}
    for view in dict.fromkeys(part.view for part in parts):
        pictures: dict[str, ImageCopy] = {}
        numbers: dict[str, int] = {}  # a picture's row in the set
        places: dict[int, np.ndarray] = {}
        here = [number for number, part in enumerate(parts) if part.view == view]
        for number in here:
            part = parts[number]
            hashes, paths = part.manifest.table["sha256"].tolist(), part.manifest.table["path"].tolist()
            places[number] = np.empty(len(part.items), np.int64)
            for position, (item, key) in enumerate(zip(part.items, row_keys(part, config.recipe), strict=True)):
                places[number][position] = numbers.setdefault(key, len(numbers))
                if key not in pictures:
                    pictures[key] = ImageCopy(paths[item.row], hashes[item.row], item.copy)
        whole = parts[here[0]].manifest
        decode = Decoder(whole.root, config.recipe, view, prefix.key.image_size, whole.seed)
        rows = _Source(pictures, decode, prefix, cache, reading or ReadSettings()).rows()
        for number in here:
            labels = parts[number].manifest.labels()[[item.row for item in parts[number].items]]
            found[number] = LabelledRows(RowSubset(rows, places[number]), labels)
    return [found[number] for number in range(len(parts))]


class _Source:
    """Where the rows of ``pictures`` (by their keys, in order) come from."""

    def __init__(
        self, pictures: Mapping[str, ImageCopy], decode: Decoder, prefix: Prefix, cache: Path, reading: ReadSettings
    ) -> None:
        self.keys, self.pictures = list(pictures), list(pictures.values())
        self.decode, self.prefix, self.cache = decode, prefix, cache
        self.reading, self.meter = reading, reading.meter
        self.images = known_images(cache, decode.size, decode.view).shelf(cache)

    def rows(self) -> ReadRows:
        """Decoded images, or what the prefix makes of them: from the store where they may be kept and have room."""
        rows: ReadRows | None
        if self.prefix.is_identity:
            rows = self._decoded(range(len(self.keys)))
        else:
            rows = self._kept()
            if rows is None:  # what the store had opened for it is closed now, so images may have room again
                self.__dict__.pop("_images_have_room", None)
                rows = self._live()
        self.meter.stored &= not isinstance(rows, LiveRows)
        return rows

    def _kept(self) -> ReadRows | None:
        """The prefix's output in the store; None where it is not to be kept, or there is no room for all of it."""
        if not self.reading.share:
            return None
        spec, dtype = self.prefix.spec, stored_dtype(self.prefix.row_dtype, self.reading.store_dtype)
        described = features_description(self.prefix.description(), self.decode.view, dtype)
        shelf = Shelf(self.cache, "features", described)
        row_bytes = int(np.prod(spec.shape[1:])) * np.dtype(dtype).itemsize
        if not self._have_room(shelf, row_bytes):
            return None
        try:
            rows = shelf.rows(self.keys, self._features, dtype)
        except NoRoom as error:
            self.meter.refused = str(error)
            return None
        finally:
            self.meter.bytes += shelf.written * row_bytes
        self.prefix.note(self.cache)
        return rows

    def _have_room(self, shelf: Shelf, row_bytes: int) -> bool:
        """Whether all rows are there, or fit on the disk as far as can be foreseen."""
        # Counting first: it reads lists of keys that are needed anyway, the other looks at all that the cache holds.
        return shelf.count(self.keys) == len(self.keys) or shelf.has_room_for(self.keys, row_bytes)

    @functools.cached_property
    def _images_have_room(self) -> bool:
        return self._have_room(self.images, self.decode.size**2 * 3)

    def _decoded(self, places: Sequence[int]) -> ReadRows:
        """The images of the pictures at ``places``: from the store, or decoded each time where that has no room."""
        pictures, keys = [self.pictures[p] for p in places], [self.keys[p] for p in places]
        shape = (self.decode.size, self.decode.size, 3)
        if self._images_have_room:
            written = self.images.written
            try:
                return self.images.rows(keys, lambda here: self._decode([pictures[i] for i in here]))
            except NoRoom as error:
                self.meter.refused = str(error)
                self._images_have_room = False
            finally:
                self.meter.bytes += (self.images.written - written) * int(np.prod(shape))
        return LiveRows(
            lambda here: next(self._decode([pictures[i] for i in here])), shape, np.dtype("uint8"), len(keys)
        )

    def _decode(self, pictures: Sequence[ImageCopy]) -> Iterator[np.ndarray]:
        batches = self.decode(pictures)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self.meter.decode_s += time.perf_counter() - began
            if batch is None:
                return
            self.meter.images += len(batch)
            yield batch

    def _features(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        decoded = self._decoded(places)
        for start in range(0, len(places), PREFIX_BATCH):
            yield self._run(decoded.take(np.arange(start, min(start + PREFIX_BATCH, len(places)))))

    def _run(self, images: np.ndarray) -> np.ndarray:
        began = time.perf_counter()
        batch = self.prefix(images).numpy()
        self.meter.prefix_s += time.perf_counter() - began
        self.meter.features += len(batch)
        return batch

    def _live(self) -> LiveRows:
        """The prefix's output, run over the decoded images whenever rows are taken."""
        decoded, spec = self._decoded(range(len(self.keys))), self.prefix.spec
        return LiveRows(
            lambda here: self._run(decoded.take(here)), tuple(spec.shape[1:]), np.dtype("float32"), len(self.keys)
        )
