"""From a photo's file to pixels, augmented or not, with files that changed or cannot be read named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.photos_on_disk import write_photo
from trainers.errors import TrainerError
from trainers.files.plain import Unreadable
from trainers.images.augment import augment
from trainers.images.decode import square
from trainers.images.decoder import BATCH_IMAGES, Decoder, ImageCopy, bytes_of, named


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
