"""Crops through the prefix, each once: which rows are kept, and what is read again; with models in test_predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_fits import config, write_manifest
from trainers.data.manifest import Manifest
from trainers.images.policies import distinct_crops
from trainers.networks.prefix import Prefix
from trainers.serving import crop_predictor
from trainers.serving.crop_predictor import CropPredictor, SplitImages, prefix_sample_s
from trainers.store.shelf import Shelf

NAMES = distinct_crops(["whole", "ten_crop"])


@pytest.fixture(scope="module")
def prefix() -> Prefix:
    return Prefix(config().prefix_key("none"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> SplitImages:
    """Twelve photos, eleven crops of each."""
    part = Manifest.read(write_manifest(tmp_path_factory.mktemp("pictures"))).split("test")
    return SplitImages(part.paths(), part.table["sha256"].tolist(), NAMES, 16, "squash")


def test_a_whole_image_has_the_key_of_trials(images: SplitImages) -> None:
    crops = len(NAMES)
    assert crops == 11
    place = NAMES.index("whole")
    other = (place + 1) % crops
    keys = images.keys(np.array([place, crops + place, crops + other]))
    assert keys == [images.hashes[0], images.hashes[1], f"{images.hashes[1]}:{NAMES[other]}"]


def test_without_a_store_every_crop_is_computed_once(images: SplitImages, prefix: Prefix) -> None:
    predictor = CropPredictor(images, prefix, [], 1.0)
    assert predictor.kept(None) == frozenset()
    predictor.run(np.arange(12), None, frozenset())
    work = predictor.work
    assert (work.images, work.computed, work.read) == (12, 12 * 11, 0)
    assert work.prefix_s == pytest.approx(work.computing_s / work.computed)
    assert prefix_sample_s(prefix, []) > 0


def test_rows_that_were_kept_are_read(images: SplitImages, prefix: Prefix, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, "features", {**prefix.description(), "view": "squash"})
    whole = frozenset({"whole"})
    for computed, read in ((12 * 11, 0), (12 * 10, 12)):
        predictor = CropPredictor(images, prefix, [], 1.0)
        predictor.run(np.arange(12), shelf, whole)
        assert (predictor.work.computed, predictor.work.read) == (computed, read)
    assert shelf.count(images.hashes) == 12
    predictor.measure_cutting()
    assert predictor.work.images == 12


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, frozenset(NAMES)), (0.1, frozenset({"whole"})), (0.5, frozenset())]
)
def test_rows_are_kept_where_writing_takes_a_small_share(
    images: SplitImages, prefix: Prefix, tmp_path: Path, share: float, expected: frozenset[str]
) -> None:
    write_s = 4 * np.prod(prefix.spec.shape[1:]) / crop_predictor.DISK_BYTES_PER_S
    shelf = Shelf(tmp_path, "features", {**prefix.description(), "view": "squash"})
    assert CropPredictor(images, prefix, [], float(write_s / share)).kept(shelf) == expected
