"""From files on a disk to a manifest and a report, or to a sentence that says what to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.photos_on_disk import (
    error_of,
    folder_of,
    source,
    split_rows,
    table_of,
    warnings_of,
    with_duplicates,
    write_photo,
)
from tests.support.pictures import tile
from trainers.data.manifest import DEFAULT_SPLITS, DataSource, Manifest, build_manifest, check_data
from trainers.errors import TrainerError


def test_folder_per_class(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", cat=10, dog=20)
    seen: list[tuple[int, int]] = []
    manifest, report = build_manifest(source(root), lambda done, total: seen.append((done, total)))
    assert seen == [(i, 30) for i in range(1, 31)]
    assert manifest.classes == ("cat", "dog")
    table = manifest.table
    assert list(table.columns) == ["path", "label", "split", "sha256", "width", "height", "group", "fold", "descriptor"]
    assert table["path"].is_monotonic_increasing
    assert table.iloc[0]["path"] == "cat/000.png"
    assert set(zip(table["width"], table["height"], strict=True)) == {(48, 40)}
    assert (table.groupby("label")["split"].nunique() == 3).all()
    assert table["group"].nunique() == 30
    assert manifest.labels().dtype == np.int32
    assert manifest.labels().tolist() == [0] * 10 + [1] * 20
    assert all(p.is_absolute() and p.is_file() for p in manifest.paths())
    assert (report.images, report.classes, report.imbalance) == (30, {"cat": 10, "dog": 20}, 2.0)
    assert report.sizes == {"width": (48, 48, 48), "height": (40, 40, 40)}
    assert (warnings_of(report), report.problems) == ((), ())
    assert (manifest.folds, set(table["fold"]), report.folds) == (0, {0}, ())


def test_split_keeps_the_classes_and_refuses_unknown_names(tmp_path: Path) -> None:
    manifest, _ = build_manifest(source(folder_of(tmp_path / "p", a=10, b=10)))
    part = manifest.split("train", "validation")
    assert (part.classes, part.seed) == (("a", "b"), 0)
    assert len(part.table) == (manifest.table["split"] != "test").sum() < 20
    assert list(part.table.index) == list(range(len(part.table)))
    assert part.fingerprint != manifest.fingerprint
    with pytest.raises(TrainerError, match="there is no split 'val'; known are train, validation, test"):
        manifest.split("val")


def test_fingerprint_and_splits_do_not_depend_on_the_place_or_the_names(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "one", a=12, b=15)
    manifest, _ = build_manifest(source(first))
    moved = tmp_path / "else" / "where"
    shutil.copytree(first, moved)
    for number, path in enumerate(sorted((moved / "a").iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed{number:03d}.png"))
    again, _ = build_manifest(source(moved))
    assert again.table["path"].tolist() != manifest.table["path"].tolist()
    assert again.fingerprint == manifest.fingerprint
    assert len(manifest.fingerprint) == 16
    other, _ = build_manifest(source(first, seed=1))
    assert other.fingerprint != manifest.fingerprint


def test_manifest_survives_the_disk(tmp_path: Path) -> None:
    manifest, _ = build_manifest(source(folder_of(tmp_path / "p", a=5, b=5), seed=7))
    path = tmp_path / "deep" / "manifest.parquet"
    manifest.write(path)
    again = Manifest.read(path)
    pd.testing.assert_frame_equal(again.table, manifest.table)
    assert (again.root, again.classes, again.seed) == (manifest.root, ("a", "b"), 7)
    assert again.fingerprint == manifest.fingerprint
    assert [p.name for p in path.parent.iterdir()] == ["manifest.parquet"]
    assert len(pd.read_parquet(path)) == 10


def test_reading_something_else_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"there is no manifest .*none\.parquet"):
        Manifest.read(tmp_path / "none.parquet")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(TrainerError, match=r"other\.parquet is a Parquet file but not a manifest of orch"):
        Manifest.read(tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(TrainerError, match=r"torn\.parquet cannot be read as a manifest: "):
        Manifest.read(tmp_path / "torn.parquet")


def test_class_without_a_readable_image_is_a_problem(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    (root / "c").mkdir()
    (root / "c" / "torn.png").write_bytes(b"torn")
    assert error_of(source(root)) == "class 'c' has no image left that can be used."
    for path in root.rglob("*.png"):
        path.write_bytes(b"torn")
    assert "class 'a' has no image left that can be used." in error_of(source(root))
    assert check_data(source(root)).images == 0


def test_duplicates_share_a_group_and_a_split_and_are_reported(tmp_path: Path) -> None:
    root = with_duplicates(tmp_path / "p")
    for seed in range(4):
        manifest, report = build_manifest(source(root, seed=seed))
        assert manifest.table.groupby("group")["split"].nunique().max() == 1
    rows = manifest.table.set_index("path")
    assert rows["group"]["a/001.png"] == rows["group"]["a/near.png"]
    assert report.exact_duplicates == (("a/000.png", "a/copy.png"), ("a/002.png", "b/copy.png"))
    assert report.near_duplicates == (("a/001.png", "a/near.png"),)
    assert report.conflicts == ((("a/002.png", "a"), ("b/copy.png", "b")),)
    assert (report.images, report.groups, report.largest_group, report.dropped) == (23, 3, 2, ())
    assert "1 set of duplicates with different labels; correct the labels" in report.warnings[0]
    assert "2 images, 8.7% of all, are duplicates of one another" in report.warnings[1]


def test_drop_keeps_one_of_each_and_no_contradiction(tmp_path: Path) -> None:
    manifest, report = build_manifest(source(with_duplicates(tmp_path / "p"), duplicates="drop"))
    assert report.dropped == ("a/002.png", "a/copy.png", "a/near.png", "b/copy.png")
    assert len(manifest.table) == report.images == 19
    assert "files with the same bytes are all left out" in report.warnings[0]


def test_keep_holds_only_exact_duplicates_together(tmp_path: Path) -> None:
    root = with_duplicates(tmp_path / "p")
    manifest, report = build_manifest(source(root, duplicates="keep"))
    rows = manifest.table.set_index("path")["group"]
    assert rows["a/001.png"] != rows["a/near.png"]
    assert rows["a/000.png"] == rows["a/copy.png"]
    assert len(report.near_duplicates) == 1
    assert error_of(source(root, duplicates="merge")) == "duplicates is 'merge'; it must be one of group, drop, keep."


def test_tables_own_groups_join_those_of_duplicates(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t", 12)
    shutil.copy(tmp_path / "t" / "a" / "000.png", tmp_path / "t" / "a" / "copy.png")
    rows.append({"path": "a/copy.png", "label": "a", "split": "train"})
    grouped = [{**r, "group": "g" if r["path"] in ("a/copy.png", "b/003.png") else ""} for r in rows]
    manifest, report = build_manifest(source(table_of(tmp_path / "t", grouped)))
    together = manifest.table.set_index("path")["group"]
    assert together["a/000.png"] == together["a/copy.png"] == together["b/003.png"]
    assert (report.groups, report.largest_group) == (1, 3)


def test_check_reports_all_it_can_and_defaults_the_ratios(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    (tmp_path / "t" / "b" / "003.png").unlink()
    report = check_data(source(table_of(tmp_path / "t", rows), None))
    assert report.images == 11
    assert report.splits["train"] == {"a": 4, "b": 3}
    assert report.problems[0].startswith("1 file of table.csv cannot be found: b/003.png. Paths are relative to ")
    (tmp_path / "t" / "table.csv").unlink()
    folder = check_data(source(tmp_path / "t", "auto"))
    assert (folder.problems, sum(folder.splits["train"].values())) == ((), 7)
    assert "give ratios" in error_of(source(tmp_path / "t", None))
    with pytest.raises(TrainerError, match="there is no folder, table or archive"):
        check_data(source(tmp_path / "absent"))


def test_folds_survive_the_disk_and_older_manifests_have_none(tmp_path: Path) -> None:
    manifest, _ = build_manifest(source(folder_of(tmp_path / "p", a=9, b=9), folds=3))
    manifest.write(tmp_path / "m.parquet")
    again = Manifest.read(tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(again.table, manifest.table)
    assert (again.folds, again.fingerprint, again.fold(2).folds) == (3, manifest.fingerprint, 3)
    plain, _ = build_manifest(source(tmp_path / "p"))
    old = dataclasses.replace(plain, table=plain.table.drop(columns="fold"))
    assert (old.folds, old.fingerprint) == (0, plain.fingerprint)
    old.write(tmp_path / "old.parquet")
    read = Manifest.read(tmp_path / "old.parquet")
    assert (read.folds, set(read.table["fold"]), read.fingerprint) == (0, {0}, plain.fingerprint)


def test_fingerprint_of_a_manifest_without_folds_is_as_it_always_was(tmp_path: Path) -> None:
    rows = [(f"{i:064x}", "ab"[i % 2], ("train", "validation", "test")[i % 3]) for i in range(12)]
    table = pd.DataFrame(rows, columns=["sha256", "label", "split"]).assign(
        path=[f"{i}.png" for i in range(12)], fold=0
    )
    manifest = Manifest(tmp_path, ("a", "b"), 0, table)
    expected = hashlib.sha256(json.dumps([["a", "b"], sorted(map(list, rows))]).encode()).hexdigest()[:16]
    assert manifest.fingerprint == expected


def test_imports_without_tensorflow_or_other_heavy_libraries() -> None:
    code = (
        "import sys, trainers.data.manifest, trainers.images, trainers.augment; "
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'imagehash', 'scipy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.skipif("ORCH_DATA" not in os.environ, reason="ORCH_DATA names no folder of real photos")
def test_trashnet_has_about_28_pairs_of_duplicates_and_no_huge_group(tmp_path: Path) -> None:
    root = Path(os.environ["ORCH_DATA"]) / "trashnet"
    report = check_data(DataSource(str(root), (0.7, 0.15, 0.15), tmp_path))
    assert (report.images, len(report.classes), report.problems) == (2527, 6, ())
    assert len(report.exact_duplicates) == len(report.conflicts) == 3
    assert 20 <= len(report.near_duplicates) + len(report.exact_duplicates) + len(report.look_alikes) <= 60
    assert report.largest_group <= 4


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


def test_classes_too_small_to_judge_are_a_warning(tmp_path: Path) -> None:
    report = check_data(source(folder_of(tmp_path / "p", big=90, odd=6, tiny=4)))
    assert [text for text in report.warnings if "too few to judge by" in text] == [
        "2 classes have fewer than 5 images in validation or test, too few to judge by: odd (1 in validation and 1 in "
        "test), tiny (1 in validation and 1 in test). Add images, or use folds."
    ]
    assert "imbalance: the largest class has 22.5 times the images of the smallest; to even them out: balance: " in (
        "\n".join(report.lines())
    )


def test_aligned_tiles_with_a_spot_are_no_duplicates_no_conflicts_and_are_not_dropped(tmp_path: Path) -> None:
    for texture in range(12):
        for label, spot in (("good", None), ("bad", (60 + 8 * texture, 120))):
            path = tmp_path / "p" / label / f"{texture:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            tile(texture, spot).save(path)
    manifest, report = build_manifest(source(tmp_path / "p", duplicates="drop"))
    assert (report.near_duplicates, report.conflicts, report.dropped) == ((), (), ())
    assert (len(report.look_alikes), report.groups, report.largest_group) == (12, 12, 2)
    assert manifest.table.groupby("group")["split"].nunique().max() == 1
    assert "pairs that look alike: 12" in report.lines()


def test_names_of_copies_and_the_share_that_drop_would_take_are_said(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=10, b=10)
    with Image.open(root / "a" / "001.png") as image:
        image.resize((96, 80)).save(root / "a" / "001-copy.png")
    shutil.copy(root / "b" / "002.png", root / "b" / "aug_001.png")
    warnings = warnings_of(check_data(source(root)))
    assert "duplicates: drop would leave out 2 images, 9.1% of all." in warnings
    assert (
        "2 file names look like that of a copy of another file; 1 of them are kept in one split with it, 1 is not, "
        "such as b/aug_001.png of b/001.png. If these are copies, give a table with a column group."
    ) in warnings
