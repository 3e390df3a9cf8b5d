"""Which images and copies a fit reads, and the key of each row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.tiny_fits import config, write_manifest
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.training.examples import evaluation_set, fold_sets, keys_by_view, row_keys, training_set


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest.read(write_manifest(tmp_path_factory.mktemp("pictures")))


def test_originals_come_first_and_copies_even_out_the_classes(manifest: Manifest) -> None:
    train = manifest.split("train")
    counts = np.bincount(train.labels())
    assert counts.tolist() == [6, 12, 12]
    twice, thrice, once = (training_set(train, config(multiplier=m)) for m in (2, 3, 1))
    assert len(twice.images) == len(set(twice.images)) == 60
    assert [(image.path, image.copy) for image in twice.images[:30]] == [(path, 0) for path in train.table["path"]]
    assert np.bincount(twice.labels).tolist() == [20, 20, 20]
    assert set(twice.images) <= set(thrice.images)
    assert once.images == twice.images[:30]


def test_an_empty_fold_is_a_sentence(manifest: Manifest) -> None:
    empty = dataclasses.replace(manifest, table=manifest.table.assign(split="train"))
    with pytest.raises(TrainerError, match="a fold has no image to train on or to be judged by; ask for fewer folds"):
        fold_sets([empty], config())


def test_an_originals_key_is_its_hash_whatever_the_recipe(manifest: Manifest) -> None:
    test = manifest.split("test")
    hashes = test.table["sha256"].tolist()
    twice = training_set(test, config(multiplier=2))
    assert row_keys(twice, "rich") == hashes + [f"{sha256}:1:rich:{test.seed}" for sha256 in hashes]
    assert row_keys(training_set(test, config()), "flips") == hashes


def test_a_random_crop_is_judged_on_its_centre(manifest: Manifest) -> None:
    pair = training_set(manifest.split("train"), config(view="random_crop"))
    judged = evaluation_set(manifest.split("validation"), config(view="random_crop"))
    assert (pair.view, judged.view) == ("random_crop", "centre_crop")
    found = keys_by_view([(pair, judged), (pair, None)], "flips")
    assert {view: len(keys) for view, keys in found.items()} == {"random_crop": 30, "centre_crop": 15}
