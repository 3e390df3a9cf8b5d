"""From a photo's file to the pixels that a network reads, augmented or not. Free of TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from trainers.config import parts_of
from trainers.errors import TrainerError
from trainers.files.plain import Unreadable, read_plain
from trainers.images.augment import augment
from trainers.images.decode import DecodedPhoto

BATCH_IMAGES = 32
"""Images of one batch."""
COPIES_AT_ONCE = 16
"""Maximum copies of a photo that one thread makes before it hands them over; more are made from another decoding."""
AHEAD_PER_THREAD = 4
"""Maximum pieces of work per thread that ``in_order`` has begun or finished ahead of its reader."""
AHEAD_BYTES = 8 * 2**20
"""Maximum bytes per thread of images that are made ahead of their reader: of 7 copies at 600 px, of 55 at 224 px."""

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class ImageCopy:
    """Copy ``copy`` (0: the original) of the image of this hash at ``path``, relative to the data's root."""

    path: str
    sha256: str
    copy: int


@dataclass(frozen=True)
class Decoder:
    """Pictures -> batches of uint8 images (n, size, size, 3). ``seed``: the data's.

    ``view``: a ``TrialConfig.framing``.

    Files are read, hashed, decoded and augmented by ``threads`` threads, up to AHEAD_BYTES each ahead of the reader.
    Copies of one photo that follow each other are made from one decoding, up to ``copies_at_once``. A recipe of the
    user's own is called by several threads.
    """

    root: Path
    recipe: str
    view: str
    size: int
    seed: int
    threads: int = 1

    def __call__(self, pictures: Sequence[ImageCopy]) -> Iterator[np.ndarray]:
        begun: deque[np.ndarray] = deque()
        done = 0
        work = self._places(pictures, begun)
        for made in in_order(self._fill, work, self.threads, lambda piece: len(piece[0]) * self._image_bytes):
            done += made
            while begun and done >= len(begun[0]):
                done -= len(begun[0])
                yield begun.popleft()

    def each(self, pictures: Sequence[ImageCopy]) -> Generator[np.ndarray, None, None]:
        """Yield the images one by one, in order. Raises TrainerError for the first that cannot be read."""
        work = _same_photo(pictures, self.copies_at_once)
        for made in in_order(self._made, work, self.threads, lambda copies: len(copies) * self._image_bytes):
            yield from made

    @property
    def copies_at_once(self) -> int:
        """Maximum copies of a photo that are made from one decoding: COPIES_AT_ONCE, or fewer large ones."""
        return max(1, min(COPIES_AT_ONCE, AHEAD_BYTES // self._image_bytes))

    @property
    def _image_bytes(self) -> int:
        return self.size**2 * 3

    def _places(
        self, pictures: Sequence[ImageCopy], begun: deque[np.ndarray]
    ) -> Iterator[tuple[Sequence[ImageCopy], list[np.ndarray]]]:
        """Yield the copies of each photo and their places in batches; append each new batch to ``begun``."""

        def places() -> Iterator[np.ndarray]:
            for start in range(0, len(pictures), BATCH_IMAGES):
                count = min(BATCH_IMAGES, len(pictures) - start)
                begun.append(np.empty((count, self.size, self.size, 3), np.uint8))
                yield from begun[-1]

        free = places()
        for copies in _same_photo(pictures, self.copies_at_once):
            yield copies, [*itertools.islice(free, len(copies))]

    def _fill(self, work: tuple[Sequence[ImageCopy], list[np.ndarray]]) -> int:
        copies, places = work
        for place, image in zip(places, self._made(copies), strict=True):
            place[...] = image
        return len(copies)

    def _made(self, copies: Sequence[ImageCopy]) -> list[np.ndarray]:
        """Return the images of copies of one photo, which is decoded once."""
        photo = copies[0]
        path = self.root / photo.path
        data = bytes_of(path, photo.sha256)
        random = parts_of(self.view)[0] == "random_crop"
        crops = [int(photo.sha256[:8], 16) + each.copy if random else None for each in copies]
        with named(path):
            squares = DecodedPhoto(data).squares(self.size, self.view, crops)
        return [
            augment(square.copy(), each.sha256, each.copy, self.recipe, self.seed) if each.copy else square
            for square, each in zip(squares, copies, strict=True)
        ]


def _same_photo(pictures: Sequence[ImageCopy], most: int) -> Iterator[Sequence[ImageCopy]]:
    """Divide ``pictures`` where the photo changes, and after ``most`` copies."""
    for _, run in itertools.groupby(pictures, lambda each: (each.path, each.sha256)):
        while part := [*itertools.islice(run, most)]:
            yield part


def in_order(
    work: Callable[[Item], Made], items: Iterable[Item], threads: int, size_of: Callable[[Item], int] = lambda item: 0
) -> Iterator[Made]:
    """Yield ``work(item)`` for each of ``items``, in order, computed by ``threads`` threads ahead of the reader.

    ``size_of``: bytes of an item's result. Results that wait for the reader are at most AHEAD_PER_THREAD per thread,
    and together of AHEAD_BYTES per thread, or one alone; the one begun last comes on top. The first error, by the order
    of ``items``, is raised when its turn comes. No thread is left when the iterator ends, fails or is closed.
    """
    threads = max(threads, 1)
    pool = ThreadPoolExecutor(threads, "decode")
    waiting: deque[tuple[Future[Made], int]] = deque()
    held = 0
    try:
        for item in items:
            waiting.append((pool.submit(work, item), size_of(item)))
            held += waiting[-1][1]
            while len(waiting) > AHEAD_PER_THREAD * threads or (held > AHEAD_BYTES * threads and len(waiting) > 1):
                future, size = waiting.popleft()
                held -= size
                yield future.result()
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Make an Unreadable that is raised inside name ``path`` instead of bytes."""
    try:
        yield
    except Unreadable as error:
        raise Unreadable(str(path), error.reason) from error


def bytes_of(path: Path, sha256: str) -> bytes:
    """Read the file. Raise TrainerError if its hash is not the manifest's."""
    data = read_plain(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise TrainerError(
            f"{path} changed since the manifest was made; put the file back as it was, or start a new sweep, which "
            "reads the images again."
        )
    return data
