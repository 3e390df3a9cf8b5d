"""From a photo's file to pixels, augmented or not, with files that changed or cannot be read named."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.photos_on_disk import write_photo
from trainers.errors import TrainerError
from trainers.files.plain import Unreadable
from trainers.images import decoder as decoder_module
from trainers.images.augment import augment
from trainers.images.decode import square
from trainers.images.decoder import (
    AHEAD_BYTES,
    AHEAD_PER_THREAD,
    BATCH_IMAGES,
    COPIES_AT_ONCE,
    Decoder,
    ImageCopy,
    bytes_of,
    in_order,
    named,
)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    write_photo(tmp_path / "a.png", 1)
    return tmp_path / "a.png"


def test_pixels_come_in_batches_and_in_order(photo: Path) -> None:
    sha256 = hash_of(photo)
    copies = [ImageCopy("a.png", sha256, copy) for copy in range(BATCH_IMAGES + 2)]
    batches = [*Decoder(photo.parent, "rich", "squash", 16, seed=7)(copies)]
    assert [batch.shape for batch in batches] == [(BATCH_IMAGES, 16, 16, 3), (2, 16, 16, 3)]
    image = square(photo, 16, "squash")
    np.testing.assert_array_equal(batches[0][0], image)
    np.testing.assert_array_equal(batches[1][0], augment(image, sha256, BATCH_IMAGES, "rich", 7))


def test_every_copy_has_a_random_crop_of_its_own(photo: Path) -> None:
    sha256 = hash_of(photo)
    decoder = Decoder(photo.parent, "none", "random_crop", 16, seed=0)
    ((first, second),) = decoder([ImageCopy("a.png", sha256, copy) for copy in (0, 1)])
    np.testing.assert_array_equal(first, square(photo, 16, "random_crop", int(sha256[:8], 16)))
    assert not np.array_equal(first, second)


def test_a_photo_that_changed_is_named(photo: Path) -> None:
    sha256 = hash_of(photo)
    assert bytes_of(photo, sha256) == photo.read_bytes()
    photo.write_bytes(photo.read_bytes() + b"x")
    with pytest.raises(TrainerError, match=r"a\.png changed since the manifest was made; put the file back"):
        bytes_of(photo, sha256)


def test_what_is_no_image_is_named(photo: Path) -> None:
    photo.write_bytes(b"no picture")
    decode = Decoder(photo.parent, "flips", "squash", 16, 0)
    with pytest.raises(Unreadable, match=r"a\.png cannot be read: it is not an image of a known format\."):
        next(decode([ImageCopy("a.png", hash_of(photo), 0)]))
    with pytest.raises(Unreadable, match=r"^b\.png cannot be read: it is torn\."), named(Path("b.png")):
        raise Unreadable("the image", "it is torn")


@pytest.mark.parametrize("view", ["squash", "random_crop"])
def test_copies_of_a_photo_are_made_from_one_decoding_and_equal_those_made_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    copies = []
    for number in range(3):
        write_photo(tmp_path / f"{number}.png", number)
        sha256 = hash_of(tmp_path / f"{number}.png")
        copies += [ImageCopy(f"{number}.png", sha256, copy) for copy in range(COPIES_AT_ONCE + 1)]
    read: list[str] = []

    def noting(path: Path, sha256: str) -> bytes:
        read.append(path.name)
        return bytes_of(path, sha256)

    monkeypatch.setattr(decoder_module, "bytes_of", noting)
    for recipe in ("rich", "colour", "flips"):
        read.clear()
        alone = np.stack([next(Decoder(tmp_path, recipe, view, 16, 7)([copy]))[0] for copy in copies])
        assert len(read) == len(copies)
        for threads in (1, 3):
            read.clear()
            together = np.concatenate([*Decoder(tmp_path, recipe, view, 16, 7, threads)(copies)])
            np.testing.assert_array_equal(together, alone)
            assert len(read) == 6  # each photo twice: COPIES_AT_ONCE, and the one that is left


def test_the_first_broken_photo_by_order_is_named_whatever_the_threads(tmp_path: Path) -> None:
    copies = []
    for number in range(20):
        path = tmp_path / f"{number:02d}.png"
        write_photo(path, number)
        if number in (11, 12):
            path.write_bytes(f"no picture {number}".encode())
        copies.append(ImageCopy(path.name, hash_of(path), 0))
    for threads in (1, 4):
        images = Decoder(tmp_path, "flips", "squash", 16, 0, threads).each(copies)
        assert len([*itertools.islice(images, 11)]) == 11
        with pytest.raises(Unreadable, match=r"11\.png cannot be read"):
            next(images)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.parametrize(
    ("threads", "sizes", "held"),
    [
        (2, [1] * 60, 8),  # AHEAD_PER_THREAD pieces of each thread
        (2, [AHEAD_BYTES // 3] * 60, 6),
        (2, [AHEAD_BYTES // 5] * 3 + [AHEAD_BYTES] * 20, 4),
        (1, [2 * AHEAD_BYTES] * 20, 1),  # larger than allowed: one alone
    ],
)
def test_what_is_made_ahead_is_bounded_by_its_bytes(threads: int, sizes: list[int], held: int) -> None:
    begun: list[int] = []
    found = in_order(begun.append, range(len(sizes)), threads, sizes.__getitem__)
    most = 0
    for taken, _ in enumerate(found, 1):
        time.sleep(0.002)
        most = max(most, len(begun) - taken)
    assert len(begun) == len(sizes)
    assert most <= held


def test_copies_of_one_decoding_are_fewer_where_they_are_large() -> None:
    sizes = (96, 224, 600, 1024, 4000)
    at_once = [Decoder(Path(), "rich", "squash", size, 0).copies_at_once for size in sizes]
    assert at_once == [COPIES_AT_ONCE, COPIES_AT_ONCE, 7, 2, 1]
    assert max(n * size**2 * 3 for n, size in zip(at_once, sizes, strict=True) if n > 1) <= AHEAD_BYTES


def test_large_copies_wait_for_their_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies count, not photos: of each photo all five, and of no more photos than the bytes allow."""
    monkeypatch.setattr(decoder_module, "AHEAD_BYTES", 5 * 16**2 * 3)
    copies = []
    for number in range(12):
        write_photo(tmp_path / f"{number}.png", number)
        copies += [ImageCopy(f"{number}.png", hash_of(tmp_path / f"{number}.png"), copy) for copy in range(5)]
    read: list[str] = []

    def noting(path: Path, sha256: str) -> bytes:
        read.append(path.name)
        return bytes_of(path, sha256)

    monkeypatch.setattr(decoder_module, "bytes_of", noting)
    images = Decoder(tmp_path, "flips", "squash", 16, 0, threads=2).each(copies)
    next(images)
    time.sleep(0.1)
    assert len(read) == 3  # the one that is read, and one of each thread
    assert len([*images]) == len(copies) - 1
    assert len(read) == 12


def test_work_is_done_in_order_by_several_threads_and_a_bounded_number_ahead() -> None:
    begun: list[int] = []
    together, most = [0], [0]
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
            together[0] += 1
            most[0] = max(most[0], together[0])
        time.sleep(0.001 * (item % 3))
        with lock:
            together[0] -= 1
        return item * item

    found = in_order(work, range(60), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 4]
    time.sleep(0.05)
    assert len(begun) <= 3 + AHEAD_PER_THREAD * 2
    assert [*found] == [item * item for item in range(3, 60)]
    assert most[0] == 2
    left = in_order(work, range(60), 2)
    next(left)
    left.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
