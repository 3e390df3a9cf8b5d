"""Splits and folds of a whole data set, from ratios or from its own splits."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import ImageOps

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
from tests.support.pictures import scene
from trainers.data.build import build_manifest, check_data
from trainers.data.duplicates import Duplicates, make_groups, members_of
from trainers.data.listing import Listing, SourceNotes
from trainers.data.manifest import Manifest
from trainers.data.near_duplicates import Union
from trainers.data.splits import FEW_TEST_IMAGES, divide, interval_half_width, keep_splits
from trainers.errors import TrainerError


def test_classes_too_few_or_too_small(tmp_path: Path) -> None:
    assert error_of(source(folder_of(tmp_path / "one", a=5))) == (
        "there is only one class, 'a'; a classifier needs two or more. Add images of another class."
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
    assert sum(sum(fold.values()) for fold in report.folds) == 20
    assert all(set(fold) == {"a", "b"} for fold in report.folds)
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
        "the test split holds 23 images: an accuracy of 90 % measured on so few is known to within 14 percentage "
        "points either way (95 % interval). Add images, or give test a larger share.",
    )
    for correct, images in ((18, 20), (45, 50), (81, 90), (50, 100)):
        low, high = accuracy_interval(correct, images)  # the leaderboard's
        assert interval_half_width(correct / images, images) == pytest.approx((high - low) / 2, abs=1e-6)
    assert FEW_TEST_IMAGES == 100
    large = folder_of(tmp_path / "large", a=50, b=52)
    assert warnings_of(build_manifest(source(large, (0.01, 0.01, 0.98)))[1]) == ()


def rich_folder(root: Path, photos: int, first: int = 0) -> Path:
    for i in range(first, photos):
        path = root / "ab"[i % 2] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(i, (96, 72)).save(path)
    return root


def split_of(manifest: Manifest) -> dict[str, tuple[str, int]]:
    rows = manifest.table
    return dict(zip(rows["path"], zip(rows["split"], rows["fold"], strict=True), strict=True))


@pytest.mark.parametrize("folds", [0, 3])
def test_photos_that_are_added_move_no_other_and_follow_their_group(tmp_path: Path, folds: int) -> None:
    root = rich_folder(tmp_path / "p", 60)
    before, _ = build_manifest(source(root, folds=folds))
    before.write(tmp_path / "sweep" / "manifest.parquet")
    rich_folder(root, 85, 60)
    for i in (3, 14, 25):
        ImageOps.mirror(scene(i, (96, 72))).save(root / "ab"[i % 2] / f"flip_{i:04d}.png")
    grown, report = build_manifest(source(root, folds=folds, keep_splits=tmp_path / "sweep"))
    old, new = split_of(before), split_of(grown)
    assert {path: new[path] for path in old} == old
    assert len(new) == 88
    assert all(new[f"{'ab'[i % 2]}/flip_{i:04d}.png"] == old[f"{'ab'[i % 2]}/{i:04d}.png"] for i in (3, 14, 25))
    assert report.bridging == ()


def test_a_photo_that_was_exported_again_keeps_its_split_and_so_does_a_group_without_its_first(tmp_path: Path) -> None:
    root = rich_folder(tmp_path / "p", 40)
    ImageOps.mirror(scene(8, (96, 72))).save(root / "a" / "flip_0008.png")
    before, _ = build_manifest(source(root))
    before.write(tmp_path / "m.parquet")
    (root / "a" / "0008.png").unlink()
    for i in range(10, 40):
        path = root / "ab"[i % 2] / f"{i:04d}.png"
        path.unlink()
        scene(i, (96, 72)).resize((80, 60)).save(path.with_suffix(".jpg"), quality=80)
    after, _ = build_manifest(source(root, seed=1, keep_splits=tmp_path / "m.parquet"))
    old = {path.rsplit(".", 1)[0]: split for path, split in split_of(before).items()}
    new = {path.rsplit(".", 1)[0]: split for path, split in split_of(after).items()}
    assert len(new) == 40
    assert {path: old[path] for path in new} == new


def test_a_photo_that_joins_two_splits_is_left_out_and_nothing_else_moves(tmp_path: Path) -> None:
    root = rich_folder(tmp_path / "p", 40)
    before, _ = build_manifest(source(root))
    before.write(tmp_path / "m.parquet")
    old = split_of(before)
    train = next(i for i in range(40) if old[f"{'ab'[i % 2]}/{i:04d}.png"][0] == "train")
    test = next(i for i in range(40) if old[f"{'ab'[i % 2]}/{i:04d}.png"][0] == "test")
    rows = before.table.copy()
    paths = rows["path"].tolist()
    first, second = (paths.index(f"{'ab'[i % 2]}/{i:04d}.png") for i in (train, test))
    rows.loc[second, "group"] = rows["group"][first]  # as a new photo joins them that is a copy of both
    new = pd.DataFrame({"sha256": ["new"], "descriptor": [None], "group": [rows["group"][first]], "label": ["a"]})
    kept = keep_splits(pd.concat([rows, new], ignore_index=True), before.table, 0)
    assert kept.bridging == [40]
    assert kept.splits[:40] == before.table["split"].tolist()


def test_keep_splits_that_cannot_be_read_or_holds_nothing_known_is_said(tmp_path: Path) -> None:
    root = rich_folder(tmp_path / "p", 20)
    with pytest.raises(TrainerError, match="there is no manifest"):
        build_manifest(source(root, keep_splits=tmp_path / "none.parquet"))
    other, _ = build_manifest(source(folder_of(tmp_path / "q", a=9, b=9)))
    other.write(tmp_path / "m.parquet")
    _, report = build_manifest(source(root, keep_splits=tmp_path / "m.parquet"))
    assert any(text.startswith("none of the 20 images is in ") for text in report.warnings)


def test_photos_that_only_look_like_photos_on_two_sides_are_kept_and_follow_the_most(tmp_path: Path) -> None:
    copies = ["a", "b", "c", "new", "d"]
    earlier = pd.DataFrame({"sha256": list("abcd"), "split": ["train", "train", "test", "validation"], "fold": 0})
    rows = pd.DataFrame({"sha256": copies, "label": "x", "group": ["alike"] * 4 + ["d"]})
    assert keep_splits(rows, earlier, 0, copies).bridging == []
    assert keep_splits(rows, earlier, 0).bridging == [3]
    notes = SourceNotes()
    listing = Listing(tmp_path, rows.assign(path=rows["sha256"], split=None))
    kept = keep_splits(rows, earlier, 0, copies)
    division = divide(listing, rows, (0.6, 0.2, 0.2), 0, 0, notes, kept)
    assert division.splits == ["train", "train", "test", "train", "validation"]
    assert division.torn == [[0, 1, 2, 3]]


def test_with_kept_splits_and_folds_a_fold_without_a_class_is_said_and_nothing_else(tmp_path: Path) -> None:
    old = [f"old{i}" for i in range(12)]
    earlier = pd.DataFrame({"sha256": old, "split": ["train"] * 9 + ["test"] * 3, "fold": [1, 2, 3] * 3 + [0] * 3})
    rows = pd.DataFrame({"sha256": [*old, "new"], "label": ["a", "b", "c"] * 4 + ["b"], "group": [*old, "new"]})
    notes = SourceNotes()
    listing = Listing(tmp_path, rows.assign(path=rows["sha256"], split=None))
    divide(listing, rows, (0.6, 0.2, 0.2), 3, 0, notes, keep_splits(rows, earlier, 3))
    assert not [text for text in notes.warnings if "in validation" in text]
    assert [text for text in notes.warnings + notes.problems if text.startswith("class 'a' has no image in fold")]


def divided(folder: Path, earlier: Mapping[str, str], labels: Mapping[str, str], folds: int = 0) -> SourceNotes:
    """What is said of photos (name -> class), of which ``earlier`` (name -> split) were divided before."""
    table = pd.DataFrame({"sha256": [*earlier], "split": [*earlier.values()], "fold": 0})
    rows = pd.DataFrame({"sha256": [*labels], "label": [*labels.values()], "group": [*labels]})
    notes = SourceNotes()
    listing = Listing(folder, rows.assign(path=rows["sha256"], split=None))
    divide(listing, rows, (0.6, 0.2, 0.2), folds, 0, notes, keep_splits(rows, table, folds))
    return notes


def sides_of(label: str, train: int, validation: int, test: int) -> dict[str, str]:
    sides = ["train"] * train + ["validation"] * validation + ["test"] * test
    return {f"{label}{i}": side for i, side in enumerate(sides)}


@pytest.mark.parametrize("folds", [0, 2])
def test_a_class_that_lost_its_training_photos_may_be_divided_anew(tmp_path: Path, folds: int) -> None:
    earlier = sides_of("a", 8, 3, 3) | sides_of("b", 8, 0 if folds else 3, 4)
    left = {name: name[0] for name in earlier if name not in [f"b{i}" for i in range(8)]}
    assert divided(tmp_path, earlier, left, folds).problems == [
        "class 'b' has no image in train, so it cannot be learnt. Add images to it, or take the class out, or set "
        "data.keep_splits: none."
    ]
    assert divided(tmp_path, {}, left, folds).problems == []


def test_a_class_too_small_to_be_divided_anew_is_not_sent_there(tmp_path: Path) -> None:
    earlier = sides_of("a", 8, 3, 3) | sides_of("b", 8, 0, 2)
    (problem,) = divided(
        tmp_path, earlier, {name: name[0] for name in earlier if name not in sides_of("b", 8, 0, 0)}
    ).problems
    assert problem.endswith("so it cannot be learnt. Add images to it, or take the class out.")


@pytest.mark.parametrize("folds", [0, 2])
def test_a_new_class_needs_as_many_photos_next_to_kept_splits_as_without(tmp_path: Path, folds: int) -> None:
    earlier = sides_of("a", 8, 0 if folds else 3, 3)
    labels = {name: "a" for name in earlier} | {"new": "b"}
    told = [
        "class 'b' has 1 image; at least 3 are needed, one each for train, validation, test. Add images to it, or take "
        "the class out."
    ]
    assert divided(tmp_path, earlier, labels, folds).problems == divided(tmp_path, {}, labels, folds).problems == told
    assert divided(tmp_path, earlier, labels | {f"more{i}": "b" for i in range(5)}, folds).problems == []


def test_a_new_class_needs_a_photo_for_each_fold_next_to_kept_folds(tmp_path: Path) -> None:
    old = [f"a{i}" for i in range(12)]
    earlier = pd.DataFrame(
        {"sha256": old, "split": ["train"] * 10 + ["test"] * 2, "fold": [1, 2, 3, 4, 5] * 2 + [0] * 2}
    )
    names = [*old, "b0", "b1", "b2"]
    rows = pd.DataFrame({"sha256": names, "label": [name[0] for name in names], "group": names})
    notes = SourceNotes()
    listing = Listing(tmp_path, rows.assign(path=rows["sha256"], split=None))
    divide(listing, rows, (0.6, 0.2, 0.2), 5, 0, notes, keep_splits(rows, earlier, 5))
    assert notes.problems == [
        "class 'b' has, outside test, 2 images; at least 5 are needed, one for each fold. Add images to it, use fewer "
        "folds, or take the class out."
    ]


def test_the_content_finds_a_photo_only_where_the_earlier_file_is_gone() -> None:
    descriptor = bytes(range(256))
    earlier = pd.DataFrame({"sha256": ["a"], "split": ["test"], "fold": 0, "descriptor": [descriptor]})
    rows = pd.DataFrame({"sha256": ["a", "b"], "group": ["a", "b"], "descriptor": [descriptor] * 2})
    assert keep_splits(rows, earlier, 0).splits == ["test", None]
    assert keep_splits(rows.iloc[1:].reset_index(drop=True), earlier, 0).splits == ["test"]


Pairs = Sequence[tuple[int, int]]


def side_of_each(
    earlier: Sequence[tuple[str, int]], new: int, near: Pairs, alike: Pairs, folds: int
) -> tuple[list[tuple[str | None, int]], list[int]]:
    """(split, fold) of each photo, the ones of ``earlier`` first, and the positions of those that are left out."""
    total = len(earlier) + new
    rows = pd.DataFrame({"sha256": [f"{i:016d}" for i in range(total)], "label": "x", "group": None})
    table = rows[: len(earlier)].assign(split=[s for s, _ in earlier], fold=[number for _, number in earlier])
    union = Union(total)
    for a, b in near:
        union.join(a, b)
    same = Duplicates([], [*near], members_of(union.labels.tolist()), [], [*alike])
    copies = make_groups(rows, dataclasses.replace(same, alike=[]), True).names
    rows["group"] = make_groups(rows, same, True).names
    kept = keep_splits(rows, table, folds, copies)
    left = [i for i in range(total) if i not in kept.bridging]
    rows = rows.iloc[left].reset_index(drop=True)
    listing = Listing(Path(), rows.assign(path=rows["sha256"], split=None))
    division = divide(listing, rows, (0.6, 0.2, 0.2), folds, 0, SourceNotes(), kept.without(kept.bridging))
    sides: list[tuple[str | None, int]] = [(None, 0)] * total
    for i, split, number in zip(left, division.splits, division.folds, strict=True):
        sides[i] = split, number
    return sides, kept.bridging


@pytest.mark.parametrize("folds", [0, 2])
def test_a_copy_follows_its_photo_and_not_the_more_numerous_look_alikes(folds: int) -> None:
    train = [("train", i % folds + 1 if folds else 0) for i in range(30)]
    earlier = [("test", 0), *train, ("test", 0), ("train" if folds else "validation", folds)]
    new = len(earlier)
    sides, left_out = side_of_each(earlier, 1, [(0, new)], [(1, new), (3, new), (5, new)], folds)
    assert (sides[new], left_out) == (("test", 0), [])
    sides, _ = side_of_each(earlier, 1, [(2, new)], [(1, new), (3, new), (5, new)], folds)
    assert sides[new] == earlier[2]
    sides, _ = side_of_each(earlier, 1, [], [(0, new), (1, new), (3, new)], folds)
    assert sides[new] == earlier[1]


@pytest.mark.parametrize("folds", [0, 2])
def test_no_copies_are_torn_but_those_that_were(folds: int) -> None:
    looked_at = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        splits = [str(split) for split in random.permutation(["train"] * 12 + ["validation"] * 5 + ["test"] * 5)]
        earlier = [(s if s == "test" or not folds else "train", int(random.integers(1, 3))) for s in splits]
        earlier = [(split, number if folds and split == "train" else 0) for split, number in earlier]
        pairs = [(int(a), int(b)) for a, b in random.integers(0, 32, (20, 2)) if a != b]
        sides, left_out = side_of_each(earlier, 10, pairs[:6], pairs[6:], folds)
        assert None not in [side for i, (side, _) in enumerate(sides) if i not in left_out]
        for a, b in pairs[:6]:
            if max(a, b) >= len(earlier) and not {a, b} & {*left_out}:
                looked_at += 1
                assert sides[a] == sides[b]
    assert looked_at > 50


@pytest.mark.parametrize("folds", [0, 2])
def test_kept_splits_that_leave_test_empty_are_a_problem_that_names_the_way_out(tmp_path: Path, folds: int) -> None:
    earlier = sides_of("a", 8, 0 if folds else 3, 3) | sides_of("b", 8, 0 if folds else 3, 3)
    trained = {name: name[0] for name, side in earlier.items() if side == "train"}
    assert divided(tmp_path, earlier, trained, folds).problems == [
        f"no image is in {'test' if folds else 'validation and test'}: the splits that are kept put all of them "
        "elsewhere. Add images, or set data.keep_splits: none."
    ]
    few = {name: label for name, label in trained.items() if name in ("a0", "b0")}
    (problem,) = [text for text in divided(tmp_path, earlier, few, folds).problems if text.startswith("no image")]
    assert problem.endswith("put all of them elsewhere. Add images.")  # two cannot be divided anew either


def test_a_fold_that_is_left_empty_is_a_problem(tmp_path: Path) -> None:
    names = [f"{label}{i}" for label in "ab" for i in range(12)]
    table = pd.DataFrame(
        {"sha256": names, "split": (["train"] * 9 + ["test"] * 3) * 2, "fold": ([1, 2, 3] * 3 + [0] * 3) * 2}
    )
    left = table[table["fold"] != 2].reset_index(drop=True)
    rows = pd.DataFrame({"sha256": left["sha256"], "label": left["sha256"].str[0], "group": left["sha256"]})
    notes = SourceNotes()
    listing = Listing(tmp_path, rows.assign(path=rows["sha256"], split=None))
    assert divide(listing, rows, (0.6, 0.2, 0.2), 3, 0, notes, keep_splits(rows, table, 3)).empty == ("fold 2",)
    assert [text.partition(":")[0] for text in notes.problems] == ["no image is in fold 2"]


@pytest.mark.parametrize("duplicates", ["group", "drop"])
def test_what_was_left_of_a_folder_is_divided_anew_where_nobody_named_the_splits(
    tmp_path: Path, duplicates: str
) -> None:
    root = rich_folder(tmp_path / "p", 40)
    before, _ = build_manifest(source(root))
    before.write(tmp_path / "m.parquet")
    for path, (split, _) in split_of(before).items():
        if split != "train":
            (root / path).unlink()
    options = {"keep_splits": tmp_path / "m.parquet", "duplicates": duplicates}
    manifest, report = build_manifest(source(root, kept_by_default=True, **options))
    assert split_of(manifest) == split_of(build_manifest(source(root, duplicates=duplicates))[0])
    assert set(report.splits) == {"train", "validation", "test"}
    assert report.kept == ()
    assert report.warnings[0] == (
        f"the splits of {tmp_path / 'm.parquet'}, the earlier sweep of this model, would leave no image in validation "
        "and test, so all are divided anew; test may hold photos that earlier models have seen."
    )
    assert error_of(source(root, **options)).endswith("Add images, or set data.keep_splits: none.")


def test_copies_that_kept_splits_tear_are_named(tmp_path: Path) -> None:
    root = rich_folder(tmp_path / "p", 30)
    for i in range(4, 12):
        scene(i, (96, 72)).save(root / "ab"[i % 2] / f"{i:04d}.jpg", quality=85)
    before, _ = build_manifest(source(root, duplicates="keep"))
    before.write(tmp_path / "m.parquet")
    old = split_of(before)
    pairs = [[f"{'ab'[i % 2]}/{i:04d}.{end}" for end in ("jpg", "png")] for i in range(4, 12)]
    torn = sorted(tuple(pair) for pair in pairs if old[pair[0]] != old[pair[1]])
    assert torn
    manifest, report = build_manifest(source(root, keep_splits=tmp_path / "m.parquet"))
    assert split_of(manifest) == old
    assert sorted(report.straddling) == torn
    (warning,) = [text for text in report.warnings if text.startswith("the splits that are kept tear ")]
    assert " ~ ".join(torn[0]) in warning
    assert warning.endswith("Set data.keep_splits: none to divide them anew.")
