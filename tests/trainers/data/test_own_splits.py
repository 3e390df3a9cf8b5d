"""Splits that the data bring along: used where train and test are there, completed or not used where they are not."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from tests.support.photos_on_disk import (
    error_of,
    folder_of,
    source,
    split_rows,
    table_of,
    warnings_of,
    write_photo,
)
from trainers.data.build import build_manifest
from trainers.data.data_source import DEFAULT_SPLITS
from trainers.data.manifest import Manifest


def own_splits(root: Path, **images: int) -> Path:
    """Images of the classes a and b in each of the folders ``images``, all of them different."""
    for number, (part, count) in enumerate(images.items()):
        for place, label in enumerate("ab"):
            for i in range(count):
                write_photo(root / part / label / f"{i}.png", 10_000 * number + 1000 * place + i)
    return root


def parts_of(manifest: Manifest) -> dict[str, set[str]]:
    """Top folder -> the splits of its images."""
    tops = [path.partition("/")[0] for path in manifest.table["path"]]
    pairs = set(zip(tops, manifest.table["split"], strict=True))
    return {top: {split for other, split in pairs if other == top} for top in tops}


@pytest.mark.parametrize("folds", [0, 2])
def test_complete_own_splits_are_used_if_nothing_else_is_said(tmp_path: Path, folds: int) -> None:
    root = own_splits(tmp_path / "p", train=6, val=6, test=6)
    manifest, report = build_manifest(source(root, "auto", folds=folds))
    held = "train" if folds else "validation"
    assert parts_of(manifest) == {"train": {"train"}, "val": {held}, "test": {"test"}}
    assert "splits: the data's own" in report.lines()
    assert warnings_of(report) == ()
    assert manifest.fingerprint == build_manifest(source(root, None, folds=folds))[0].fingerprint


def test_own_train_and_test_keep_test_and_lend_validation_from_train(tmp_path: Path) -> None:
    root = own_splits(tmp_path / "p", train=20, test=6)
    manifest, report = build_manifest(source(root, "auto"))
    assert parts_of(manifest) == {"train": {"train", "validation"}, "test": {"test"}}
    lent = int((manifest.table["split"] == "validation").sum())
    assert 2 <= lent <= 14  # 0.15 / 0.85 of 40, within the noise of a hash
    assert (
        f"the data has its own train and test but no validation: {lent} of the 40 images of train are used for "
        "validation. To train on each of them, use folds."
    ) in report.warnings
    assert build_manifest(source(root, "auto"))[0].fingerprint == manifest.fingerprint
    folded, report = build_manifest(source(root, "auto", folds=3))
    assert parts_of(folded) == {"train": {"train"}, "test": {"test"}}
    assert not [text for text in report.warnings if "validation" in text and "its own" in text]


def test_own_splits_without_a_test_are_not_used_and_it_is_said(tmp_path: Path) -> None:
    root = own_splits(tmp_path / "p", train=6, val=6)
    manifest, report = build_manifest(source(root, "auto"))
    assert parts_of(manifest)["train"] == {"train", "validation", "test"}
    assert warnings_of(report) == (
        "the data's own splits are not used, because there is only train and validation: all images are divided anew. "
        "To keep them, name the part to train on train, and the part to hold out test.",
    )


def test_splits_of_some_sources_alone_are_not_used_and_it_is_said(tmp_path: Path) -> None:
    first, second = own_splits(tmp_path / "p", train=6, val=6, test=6), folder_of(tmp_path / "q", a=6, b=6)
    both = dataclasses.replace(source(tmp_path, "auto"), source=(str(first), str(second)))
    assert [text for text in warnings_of(build_manifest(both)[1]) if "splits" in text] == [
        "these sources have no splits of their own, so those of the others are not used and all images are divided "
        f"anew: {second}. Give all of them splits to keep test images out of training."
    ]


@pytest.mark.parametrize(("word", "sentence"), [("", "is empty in 2 rows"), ("tets", "holds 'tets'; allowed are")])
def test_a_mistake_in_a_column_of_splits_is_not_passed_over(tmp_path: Path, word: str, sentence: str) -> None:
    rows = [{**row, "split": row["split"].replace("test", word)} for row in split_rows(tmp_path / "t")]
    assert sentence in error_of(source(table_of(tmp_path / "t", rows), "auto"))


def test_without_own_splits_the_default_ratios_divide(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=20, b=20)
    manifest, report = build_manifest(source(root, "auto"))
    assert manifest.fingerprint == build_manifest(source(root, DEFAULT_SPLITS))[0].fingerprint
    assert not report.own_splits
    assert not [line for line in report.lines() if line.startswith("splits:")]


def unequal(root: Path, **train: int) -> Path:
    """A train of these classes and a test of three images of each; no validation."""
    for place, (label, images) in enumerate(train.items()):
        for i in range(images + 3):
            part = "train" if i < images else "test"
            write_photo(root / part / label / f"{i}.png", 1000 * place + i)
    return root


def test_a_class_of_two_training_photos_lends_one_and_a_class_of_one_keeps_it(tmp_path: Path) -> None:
    for seed in range(6):
        manifest, report = build_manifest(source(unequal(tmp_path / "p", many=20, two=2, one=1), "auto", seed=seed))
        counts = manifest.table.groupby(["label", "split"]).size()
        assert counts["two"].to_dict() == {"test": 3, "train": 1, "validation": 1}
        assert counts["one"].to_dict() == {"test": 3, "train": 1}
        assert counts["many", "validation"] + counts["many", "train"] == 20
        assert "class 'one' has no image in validation." in report.warnings
        lent = int((manifest.table["split"] == "validation").sum())
        assert any(f"no validation: {lent} of the 23 images of train " in text for text in report.warnings)


def test_copies_in_train_are_not_torn_to_lend_one(tmp_path: Path) -> None:
    root = unequal(tmp_path / "p", many=20, pair=1)
    shutil.copy(root / "train" / "pair" / "0.png", root / "train" / "pair" / "copy.png")
    counts = build_manifest(source(root, "auto"))[0].table.groupby(["label", "split"]).size()
    assert counts["pair"].to_dict() == {"test": 3, "train": 2}


def test_a_train_with_nothing_to_lend_is_refused_with_the_reason(tmp_path: Path) -> None:
    root = unequal(tmp_path / "p", a=1, b=1)
    none = (
        "no image has the split validation, and train has none to spare: it holds a single image, or group of "
        "duplicates, of each class. Add images to train."
    )
    assert error_of(source(root, "auto")) == error_of(source(root, None)) == none
    assert error_of(source(unequal(tmp_path / "q", a=2, b=1), None)) == (
        "no image has the split validation; write splits: auto, which takes some of train for it, or use folds."
    )
    assert "class 'a' has, outside test, 1 image; at least 2 are needed" in error_of(source(root, "auto", folds=2))


def test_a_class_that_train_lacks_is_refused_whoever_divides(tmp_path: Path) -> None:
    root = unequal(tmp_path / "p", a=6, b=6, c=0)
    sentence = "class 'c' has no image in train, so it cannot be learnt. Add images to it, or take the class out."
    assert sentence in error_of(source(root, "auto"))
    assert sentence in error_of(source(root, "auto", folds=2))
