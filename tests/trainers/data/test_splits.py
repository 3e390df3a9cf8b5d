"""Splits and folds of a whole data set, from ratios or from its own splits."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.evaluation.intervals import accuracy_interval
from tests.support.photos_on_disk import (
    error_of,
    folder_of,
    source,
    split_rows,
    table_of,
    warnings_of,
    with_duplicates,
)
from trainers.data.manifest import build_manifest, check_data
from trainers.data.splits import FEW_TEST_IMAGES, interval_half_width
from trainers.errors import TrainerError


def test_classes_too_few_or_too_small(tmp_path: Path) -> None:
    assert error_of(source(folder_of(tmp_path / "one", a=5))) == (
        "there is only one class, 'a'; a classifier needs two or more."
    )
    text = error_of(source(folder_of(tmp_path / "two", a=9, b=2)))
    assert text.startswith("class 'b' has 2 images; at least 3 are needed, one each for train, validation, test.")
    report = check_data(source(tmp_path / "two"))
    assert (report.images, report.too_small, report.splits) == (11, {"b": 2}, {})
    assert report.problems == (text,)
    assert f"problem: {text}" in report.lines()


def test_own_splits_that_tear_a_group_are_respected_with_a_warning(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    shutil.copy(tmp_path / "t" / "a" / "000.png", tmp_path / "t" / "a" / "005.png")
    manifest, report = build_manifest(source(table_of(tmp_path / "t", rows), None))
    assert manifest.table.set_index("path")["split"][["a/000.png", "a/005.png"]].tolist() == ["train", "test"]
    assert report.straddling == (("a/000.png", "a/005.png"),)
    assert (
        "the data's own splits tear 1 group of images that belong together: a/000.png ~ a/005.png." in report.warnings
    )


def test_folds_share_out_what_is_not_test_and_leave_test_as_it_is(tmp_path: Path) -> None:
    root = with_duplicates(folder_of(tmp_path / "p", a=15, b=20))
    plain, _ = build_manifest(source(root))
    manifest, report = build_manifest(source(root, folds=4))
    assert (manifest.folds, plain.folds) == (4, 0)
    table = manifest.table
    assert (table["split"] == "test").tolist() == (plain.table["split"] == "test").tolist()
    assert set(table["split"]) == {"train", "test"}
    assert ((table["fold"] > 0) == (table["split"] == "train")).all()
    assert table[table["fold"] > 0].groupby("group")["fold"].nunique().max() == 1
    sizes = table["fold"].value_counts()
    assert sorted(sizes[[1, 2, 3, 4]].tolist()) == [sum(fold.values()) for fold in sorted(report.folds, key=sum_of)]
    assert f"folds: 4 of {', '.join(str(sum_of(fold)) for fold in report.folds)} images; train holds all of them" in (
        report.lines()
    )
    assert manifest.fingerprint != plain.fingerprint
    seen: list[str] = []
    for number in (1, 2, 3, 4):
        one = manifest.fold(number)
        validation = one.split("validation").table
        assert (validation["fold"] == number).all()
        assert set(one.split("train").table["fold"]) == {1, 2, 3, 4} - {number}
        assert one.split("test").table["path"].tolist() == manifest.split("test").table["path"].tolist()
        assert set(validation["label"]) == {"a", "b"}
        assert one.table["split"].dtype == table["split"].dtype
        assert one.fingerprint not in (manifest.fingerprint, plain.fingerprint)
        seen += validation["path"].tolist()
    assert sorted(seen) == manifest.split("train").table["path"].tolist()
    with pytest.raises(TrainerError, match="there is no fold 5; they are 1 to 4"):
        manifest.fold(5)
    with pytest.raises(TrainerError, match="there is no fold 1; the data has none; set folds"):
        plain.fold(1)


def sum_of(fold: Mapping[str, int]) -> int:
    return sum(fold.values())


def test_folds_of_a_table_pool_its_train_and_validation(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t", split_rows(tmp_path / "t", 12))
    manifest, report = build_manifest(source(table, None, folds=5))
    assert {s: sum(c.values()) for s, c in report.splits.items()} == {"train": 20, "test": 4}
    assert [sum(fold.values()) for fold in report.folds] == [4] * 5
    assert manifest.table.set_index("path")["split"]["a/005.png"] == "test"
    assert warnings_of(report) == ()


def test_folds_for_which_a_class_is_too_small_are_a_problem(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=20, b=5, c=4)
    needed = "at least 5 are needed, one for each fold. Add images to it, use fewer folds, or take the class out."
    assert error_of(source(root, folds=5)) == (
        f"class 'b' has, outside test, 4 images; {needed}\nclass 'c' has, outside test, 3 images; {needed}"
    )
    report = check_data(source(root, folds=5))
    assert (report.too_small, report.folds, report.splits) == ({"b": 5, "c": 4}, (), {})
    assert "folds is 1; it must be 0 for one split, or 2 to 20" in error_of(source(root, folds=1))


def test_small_test_split_is_a_warning_with_the_width_of_its_interval(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=60, b=60)
    _, report = build_manifest(source(root))
    assert report.warnings == (
        "the test split holds 24 images: an accuracy of 90 % measured on so few is known to within 12 percentage "
        "points either way (95 % interval). Add images, or give test a larger share.",
    )
    for correct, images in ((18, 20), (45, 50), (81, 90), (50, 100)):
        low, high = accuracy_interval(correct, images)  # the leaderboard's
        assert interval_half_width(correct / images, images) == pytest.approx((high - low) / 2, abs=1e-6)
    assert FEW_TEST_IMAGES == 100
    large = folder_of(tmp_path / "large", a=50, b=52)
    assert warnings_of(build_manifest(source(large, (0.01, 0.01, 0.98)))[1]) == ()
