"""What a fit reads: which images and copies, whose rows, and that every row is computed once."""

from __future__ import annotations

import hashlib
import importlib
import sys

import numpy as np
import pandas as pd
import pytest

from tests.support.examples import evaluation_examples, training_examples
from tests.support.tiny_fits import config, write_manifest
from trainers.config import TrialConfig
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.images import decoder
from trainers.images.augment import augment
from trainers.images.decode import square
from trainers.networks.prefix import Prefix
from trainers.training import features
from trainers.training.examples import training_set


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    return Manifest.read(write_manifest(tmp_path_factory.mktemp("pictures")))


def copied(train: Manifest, trial: TrialConfig, stored: TrialConfig | None = None) -> int:
    """Count the photos with copies, apart from those that ``stored`` has."""
    known = set(training_set(train, stored).images) if stored else set()
    return len({image.path for image in training_set(train, trial).images if image.copy and image not in known})


def prefix_for(**values) -> Prefix:
    return Prefix(config(**values).prefix_key("none"))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The files that were decoded, in order."""
    seen: list[str] = []

    def noting(path, sha256):
        seen.append(path.name)
        return bytes_of(path, sha256)

    bytes_of = decoder.bytes_of
    monkeypatch.setattr(decoder, "bytes_of", noting)
    return seen


def test_nothing_frozen_gives_the_decoded_images(manifest, tmp_path):
    trial = config(unfrozen_layers="all", multiplier=2, recipe="contest")
    train = manifest.split("train")
    examples = training_examples(train, trial, prefix_for(unfrozen_layers="all"), tmp_path)
    rows = examples.rows.take(np.arange(len(examples)))
    assert rows.dtype == np.uint8
    label_of = dict(zip(train.table["path"], train.labels(), strict=True))
    for copy, row, label in zip(training_set(train, trial).images, rows, examples.labels, strict=True):
        image = square(train.root / copy.path, 16, "squash")
        np.testing.assert_array_equal(row, augment(image, copy.sha256, copy.copy, "contest", manifest.seed))
        assert label == label_of[copy.path]


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
    assert len(decoded) == 30  # once for the photo and its copy
    training_examples(train, config(multiplier=2, dropout=0.5, head="arcface"), prefix_for(head="arcface"), tmp_path)
    training_examples(train, config(unfrozen_layers=0), prefix_for(unfrozen_layers=0), tmp_path)
    training_examples(train, config(multiplier=1.5), prefix_for(unfrozen_layers="all"), tmp_path)
    assert len(decoded) == 30
    training_examples(train, config(multiplier=3), prefix_for(), tmp_path)
    again = copied(train, config(multiplier=3), config(multiplier=2))
    assert len(decoded) == 30 + again
    training_examples(train, config(multiplier=2, recipe="contest"), prefix_for(), tmp_path)
    assert len(decoded) == 30 + again + copied(
        train, config(multiplier=2)
    )  # thirty copies under the other recipe, and no original again


def test_features_of_other_weights_are_never_reused(manifest, tmp_path):
    from trainers.networks.backbone import build_backbone

    seen = []
    for seed in (5, 6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        build_backbone("small_cnn", "none", 16, seed=seed).save_weights(folder / "tiny_16.weights.h5")
        trial = config(backbone="tests.support.tiny_fits:TINY", unfrozen_layers=0)
        prefix = Prefix(trial.prefix_key(str(folder)))
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


def test_a_photo_that_changed_is_named_unless_its_row_is_stored(tmp_path):
    manifest = Manifest.read(write_manifest(tmp_path, {"train": 4}))
    prefix = prefix_for()
    first = training_examples(manifest, config(), prefix, tmp_path / "cache")
    manifest.paths()[0].write_bytes(manifest.paths()[1].read_bytes())
    again = training_examples(manifest, config(), prefix, tmp_path / "cache")
    places = np.arange(len(first))
    np.testing.assert_array_equal(again.rows.take(places), first.rows.take(places))
    with pytest.raises(TrainerError, match=r"train-0.png changed since the manifest was made; put the file back"):
        training_examples(manifest, config(), prefix, tmp_path / "other")


def test_a_photo_that_was_broken_when_it_was_listed_is_named(tmp_path):
    manifest = Manifest.read(write_manifest(tmp_path, {"train": 4}))
    manifest.paths()[0].write_bytes(b"no picture")
    manifest.table.loc[0, "sha256"] = hashlib.sha256(b"no picture").hexdigest()
    with pytest.raises(TrainerError, match=r"train-0.png cannot be read: it is not an image of a known format\."):
        training_examples(manifest, config(), prefix_for(), tmp_path / "cache")


RECIPE = """
import functools
from trainers.images.augment import Recipe

class Object:
    def __call__(self, image, k, random):
        return image // {divisor}

def apply(image, k, random):
    return image // {divisor}

plain = Recipe("plain", apply)
other = Recipe("other", Object())
partial = Recipe("partial", functools.partial(lambda by, image, k, random: image // by, {divisor}))
built = {{}}
exec("def made(image, k, random): return (lambda: image // {divisor})()", built)
made = Recipe("made", built["made"])
"""


@pytest.mark.parametrize("kind", ["plain", "other", "partial", "made"])
def test_copies_of_a_recipe_that_was_rewritten_are_never_reused(manifest, tmp_path, monkeypatch, decoded, kind):
    module = f"own_recipe_{kind}"
    monkeypatch.syspath_prepend(tmp_path)
    trial = config(multiplier=2, recipe=f"{module}:{kind}", unfrozen_layers="all")
    prefix, train, rows = prefix_for(unfrozen_layers="all"), manifest.split("train"), []
    for version, divisor in enumerate((2, 2, 3)):
        (tmp_path / f"{module}.py").write_text(RECIPE.format(divisor=divisor) + "#" * version)
        sys.modules.pop(module, None)
        importlib.invalidate_caches()
        examples = training_examples(train, trial, prefix, tmp_path / "cache")
        rows.append(examples.rows.take(np.arange(len(examples))))
        assert len(decoded) == 30 + (version == 2) * copied(train, trial)
    originals = len(train.table)
    np.testing.assert_array_equal(rows[1], rows[0])
    np.testing.assert_array_equal(rows[2][:originals], rows[0][:originals])
    row_of = {path: row for row, path in enumerate(train.table["path"])}
    sources = [row_of[image.path] for image in training_set(train, trial).images[originals:]]
    np.testing.assert_array_equal(rows[2][originals:], rows[2][sources] // 3)
    sys.modules.pop(module, None)


def test_copies_of_the_recipes_in_the_table_keep_their_keys(manifest, tmp_path, monkeypatch):
    seen: list[str] = []

    def noting(shelf, keys, compute):
        seen.extend(keys)
        return whole(shelf, keys, compute)

    whole = features.Shelf.rows
    monkeypatch.setattr(features.Shelf, "rows", noting)
    test = manifest.split("test")
    training_examples(test, config(multiplier=2, unfrozen_layers="all"), prefix_for(unfrozen_layers="all"), tmp_path)
    hashes = test.table["sha256"].tolist()
    assert seen == hashes + [f"{h}:1:{config().recipe}:{test.seed}" for h in hashes]


def test_an_empty_split_is_a_sentence(manifest, tmp_path):
    train_only = Manifest(manifest.root, manifest.classes, 0, manifest.split("train").table)
    with pytest.raises(TrainerError, match="no images to read; the split is empty"):
        evaluation_examples(train_only.split("validation"), config(), prefix_for(), tmp_path)
