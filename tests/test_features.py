"""What a fit reads: which images and copies, whose rows, and that every row is computed once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tiny_fits import CLASSES, config, write_manifest

from trainers import features
from trainers.augment import augment
from trainers.contract import TrainerError
from trainers.features import evaluation_examples, training_examples, training_items
from trainers.images import square
from trainers.manifest import Manifest
from trainers.model import Architecture, Prefix


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    return Manifest.read(write_manifest(tmp_path_factory.mktemp("pictures")))


def prefix_for(**values) -> Prefix:
    return Prefix(Architecture.of(config(**values), "none", len(CLASSES)))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that were decoded, in order."""
    seen: list[str] = []

    def noting(path, *arguments):
        seen.append(path.name)
        return square(path, *arguments)

    monkeypatch.setattr(features, "square", noting)
    return seen


def test_originals_come_first_and_copies_even_out_the_classes(manifest):
    train = manifest.split("train")
    counts = np.bincount(train.labels())
    assert counts.tolist() == [6, 12, 12]
    items = training_items(train, 2.0)
    assert len(items) == 60
    assert [(i.row, i.copy) for i in items[:30]] == [(row, 0) for row in range(30)]
    assert np.bincount(train.labels()[[i.row for i in items]]).tolist() == [20, 20, 20]
    assert {(i.row, i.copy) for i in items} <= {(i.row, i.copy) for i in training_items(train, 3.0)}
    assert training_items(train, 1.0) == items[:30]


def test_nothing_frozen_gives_the_decoded_images(manifest, tmp_path):
    trial = config(unfrozen_layers="all", multiplier=2, recipe="contest")
    train = manifest.split("train")
    examples = training_examples(train, trial, prefix_for(unfrozen_layers="all"), tmp_path)
    rows = examples.rows.take(np.arange(len(examples)))
    assert rows.dtype == np.uint8
    hashes, paths = train.table["sha256"].tolist(), train.paths()
    for item, row, label in zip(training_items(train, 2.0), rows, examples.labels, strict=True):
        image = square(paths[item.row], 16, "squash")
        np.testing.assert_array_equal(row, augment(image, hashes[item.row], item.copy, "contest", manifest.seed))
        assert label == train.labels()[item.row]


@pytest.mark.parametrize("values", [{"mixup": 0.2}, {"cutmix": 1.0}])
def test_what_mixes_images_reads_images_whatever_is_frozen(manifest, tmp_path, values):
    prefix = prefix_for(unfrozen_layers=0, **values)
    examples = training_examples(manifest.split("train"), config(unfrozen_layers=0, **values), prefix, tmp_path)
    assert examples.rows.shape == (16, 16, 3)
    assert examples.rows.take(np.arange(3)).dtype == np.uint8


def test_the_same_picture_twice_is_one_row_and_two_examples(manifest, tmp_path, decoded):
    twice = Manifest(manifest.root, manifest.classes, 0, pd.concat([manifest.split("test").table] * 2))
    examples = evaluation_examples(twice, config(), prefix_for(), tmp_path)
    assert len(examples) == 24 == len(examples.rows)
    assert len(decoded) == 12
    rows = examples.rows.take(np.arange(24))
    np.testing.assert_array_equal(rows[:12], rows[12:])


def test_below_the_boundary_rows_are_the_prefix_of_those_images(manifest, tmp_path):
    prefix = prefix_for()
    images = evaluation_examples(manifest.split("validation"), config(), prefix_for(unfrozen_layers="all"), tmp_path)
    stored = evaluation_examples(manifest.split("validation"), config(), prefix, tmp_path)
    places = np.arange(len(stored))
    assert stored.rows.shape == (8, 8, 32)
    np.testing.assert_allclose(stored.rows.take(places), prefix(images.rows.take(places)), rtol=1e-5, atol=1e-5)


def test_rows_are_shared_among_trials_depths_and_multipliers(manifest, tmp_path, decoded):
    train = manifest.split("train")
    training_examples(train, config(multiplier=2), prefix_for(), tmp_path)
    assert len(decoded) == 60
    training_examples(train, config(multiplier=2, dropout=0.5, head="arcface"), prefix_for(head="arcface"), tmp_path)
    training_examples(train, config(unfrozen_layers=0), prefix_for(unfrozen_layers=0), tmp_path)
    training_examples(train, config(multiplier=1.5), prefix_for(unfrozen_layers="all"), tmp_path)
    assert len(decoded) == 60
    training_examples(train, config(multiplier=3), prefix_for(), tmp_path)
    assert len(decoded) == 90
    training_examples(train, config(multiplier=2, recipe="contest"), prefix_for(), tmp_path)
    assert len(decoded) == 120  # thirty copies under the other recipe, and no original again


def test_features_of_other_weights_are_never_reused(manifest, tmp_path):
    from trainers.model import build_backbone

    seen = []
    for seed in (5, 6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        build_backbone("small_cnn", "none", 16, seed=seed).save_weights(folder / "tiny_16.weights.h5")
        trial = config(backbone="tiny_fits:TINY", unfrozen_layers=0)
        prefix = Prefix(Architecture.of(trial, str(folder), len(CLASSES)))
        examples = evaluation_examples(manifest.split("test"), trial, prefix, tmp_path / "cache")
        seen.append(examples.rows.take(np.arange(3)))
    assert not np.allclose(seen[0], seen[1])


def test_a_random_crop_is_the_centre_when_it_is_judged(manifest, tmp_path):
    trial = config(unfrozen_layers="all", view="random_crop")
    prefix = prefix_for(unfrozen_layers="all")
    judged = evaluation_examples(manifest.split("train"), trial, prefix, tmp_path)
    trained = training_examples(manifest.split("train"), trial, prefix, tmp_path)
    first = manifest.split("train").paths()[0]
    np.testing.assert_array_equal(judged.rows.take(np.array([0]))[0], square(first, 16, "centre_crop"))
    assert not np.array_equal(judged.rows.take(np.array([0])), trained.rows.take(np.array([0])))


def test_a_photo_that_is_gone_is_named(tmp_path):
    manifest = Manifest.read(write_manifest(tmp_path, {"train": 4}))
    manifest.paths()[0].unlink()
    with pytest.raises(TrainerError, match=r"train-0.png cannot be read: there is no such file"):
        training_examples(manifest, config(), prefix_for(), tmp_path / "cache")


def test_an_empty_split_is_a_sentence(manifest, tmp_path):
    train_only = Manifest(manifest.root, manifest.classes, 0, manifest.split("train").table)
    with pytest.raises(TrainerError, match="no images were asked for; the split is empty"):
        evaluation_examples(train_only.split("validation"), config(), prefix_for(), tmp_path)
