"""From files on a disk to a manifest and a report, or to a sentence that says what to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from orchestrator.evaluation.leaderboard import accuracy_interval
from tests.support.photos_on_disk import (
    HOSTILE,
    error_of,
    folder_of,
    source,
    split_rows,
    table_of,
    told,
    write_hostile,
    write_photo,
)
from trainers.data.divide import FEW_TEST_IMAGES, interval_half_width
from trainers.data.manifest import DataSource, Manifest, build_manifest, check_data
from trainers.errors import TrainerError


def test_folder_per_class(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", cat=10, dog=20)
    seen: list[tuple[int, int]] = []
    manifest, report = build_manifest(source(root), lambda done, total: seen.append((done, total)))
    assert seen == [(i, 30) for i in range(1, 31)]
    assert manifest.classes == ("cat", "dog")
    table = manifest.table
    assert list(table.columns) == ["path", "label", "split", "sha256", "width", "height", "group", "fold"]
    assert table["path"].is_monotonic_increasing
    assert table.iloc[0]["path"] == "cat/000.png"
    assert set(zip(table["width"], table["height"], strict=True)) == {(48, 40)}
    assert table.groupby("label")["split"].value_counts().to_dict() == {
        ("cat", "train"): 6,
        ("cat", "validation"): 2,
        ("cat", "test"): 2,
        ("dog", "train"): 12,
        ("dog", "validation"): 4,
        ("dog", "test"): 4,
    }
    assert table["group"].nunique() == 30
    assert manifest.labels().dtype == np.int32
    assert manifest.labels().tolist() == [0] * 10 + [1] * 20
    assert all(p.is_absolute() and p.is_file() for p in manifest.paths())
    assert (report.images, report.classes, report.imbalance) == (30, {"cat": 10, "dog": 20}, 2.0)
    assert report.sizes == {"width": (48, 48, 48), "height": (40, 40, 40)}
    assert (told(report), report.problems) == ((), ())
    assert (manifest.folds, set(table["fold"]), report.folds) == (0, {0}, ())


def test_split_keeps_the_classes_and_refuses_unknown_names(tmp_path: Path) -> None:
    manifest, _ = build_manifest(source(folder_of(tmp_path / "p", a=10, b=10)))
    part = manifest.split("train", "validation")
    assert (len(part.table), part.classes, part.seed) == (16, ("a", "b"), 0)
    assert list(part.table.index) == list(range(16))
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


def test_unreadable_images_are_named_and_left_out(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    (root / "a" / "torn.jpg").write_bytes(b"nothing that is a picture")
    (root / "b" / "empty.png").write_bytes(b"")
    manifest, report = build_manifest(source(root))
    assert len(manifest.table) == report.images == 12
    assert report.unreadable == {
        "a/torn.jpg": "it is not an image of a known format",
        "b/empty.png": "the file is empty",
    }
    assert told(report) == ("left out, because they cannot be read: 2 images, a/torn.jpg, b/empty.png.",)
    text = "\n".join(report.lines())
    assert "unreadable, left out: 2\n  a/torn.jpg: it is not an image of a known format\n" in text


def test_class_without_a_readable_image_is_a_problem(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    (root / "c").mkdir()
    (root / "c" / "torn.png").write_bytes(b"torn")
    assert error_of(source(root)) == "class 'c' has no image left that can be used."
    for path in root.rglob("*.png"):
        path.write_bytes(b"torn")
    assert "class 'a' has no image left that can be used." in error_of(source(root))
    assert check_data(source(root)).images == 0


def test_exif_orientation_counts_for_the_size(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=3, b=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(root / "a" / "000.png") as image:
        image.convert("RGB").save(root / "a" / "000.png", exif=exif)
    manifest, _ = build_manifest(source(root))
    assert manifest.table.loc[0, ["width", "height"]].tolist() == [40, 48]


def with_duplicates(root: Path) -> Path:
    """a/000 = a/copy (bytes), a/001 ~ a/near (pixels), a/002 = b/copy (bytes, other label)."""
    folder_of(root, a=10, b=10)
    shutil.copy(root / "a" / "000.png", root / "a" / "copy.png")
    with Image.open(root / "a" / "001.png") as image:
        image.resize((96, 80)).save(root / "a" / "near.png")
    shutil.copy(root / "a" / "002.png", root / "b" / "copy.png")
    return root


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


def test_tables_own_groups_join_those_of_duplicates(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t", 12)
    shutil.copy(tmp_path / "t" / "a" / "000.png", tmp_path / "t" / "a" / "copy.png")
    rows.append({"path": "a/copy.png", "label": "a", "split": "train"})
    grouped = [{**r, "group": "g" if r["path"] in ("a/copy.png", "b/003.png") else ""} for r in rows]
    manifest, report = build_manifest(source(table_of(tmp_path / "t", grouped)))
    together = manifest.table.set_index("path")["group"]
    assert together["a/000.png"] == together["a/copy.png"] == together["b/003.png"]
    assert (report.groups, report.largest_group) == (1, 3)


def test_own_splits_that_tear_a_group_are_respected_with_a_warning(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    shutil.copy(tmp_path / "t" / "a" / "000.png", tmp_path / "t" / "a" / "005.png")
    manifest, report = build_manifest(source(table_of(tmp_path / "t", rows), None))
    assert manifest.table.set_index("path")["split"][["a/000.png", "a/005.png"]].tolist() == ["train", "test"]
    assert report.straddling == (("a/000.png", "a/005.png"),)
    assert (
        "the data's own splits tear 1 group of images that belong together: a/000.png ~ a/005.png." in report.warnings
    )


def test_check_reports_all_it_can_and_defaults_the_ratios(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    (tmp_path / "t" / "b" / "003.png").unlink()
    report = check_data(source(table_of(tmp_path / "t", rows), None))
    assert report.images == 11
    assert report.splits["train"] == {"a": 4, "b": 3}
    assert report.problems[0].startswith("1 file of table.csv cannot be found: b/003.png. Paths are relative to ")
    folder = check_data(source(tmp_path / "t", None))
    assert (folder.problems, sum(folder.splits["train"].values())) == ((), 7)
    assert "give ratios" in error_of(source(tmp_path / "t", None))
    with pytest.raises(TrainerError, match="there is no folder, table or archive"):
        check_data(source(tmp_path / "absent"))


def test_report_as_lines_and_as_plain_values(tmp_path: Path) -> None:
    report = check_data(source(with_duplicates(tmp_path / "p")))
    lines = report.lines()
    assert lines[0].endswith("p: 23 images in 2 classes")
    assert lines[1].split() == ["class", "images", "train", "validation", "test"]
    assert lines[4].split()[:2] == ["all", "23"]
    assert "sets of exact duplicates: 2" in lines
    assert "  a/001.png ~ a/near.png" in lines
    assert "  a/002.png (a), b/copy.png (b)" in lines
    values = json.loads(json.dumps(report.to_dict()))
    assert values["classes"] == {"a": 12, "b": 11}
    assert values["imbalance"] == pytest.approx(12 / 11)


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


def test_folds_of_a_table_pool_its_train_and_validation(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t", split_rows(tmp_path / "t", 12))
    manifest, report = build_manifest(source(table, None, folds=5))
    assert {s: sum(c.values()) for s, c in report.splits.items()} == {"train": 20, "test": 4}
    assert [sum(fold.values()) for fold in report.folds] == [4] * 5
    assert manifest.table.set_index("path")["split"]["a/005.png"] == "test"
    assert told(report) == ()


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
    assert told(build_manifest(source(large, (0.01, 0.01, 0.98)))[1]) == ()


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
    assert 20 <= len(report.near_duplicates) + len(report.exact_duplicates) <= 40
    assert report.largest_group <= 4


@pytest.mark.timeout(60)
def test_files_that_are_no_plain_files_are_left_out_of_a_folder_with_their_reasons(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    write_hostile(root / "a")
    (root / "a" / "linked.jpg").symlink_to(write_photo(tmp_path / "elsewhere.jpg", 99))
    (root / "b" / "round").symlink_to("round")
    manifest, report = build_manifest(source(root))
    assert set(report.unreadable) == {f"a/{name}" for name in HOSTILE}
    assert all(HOSTILE[path.removeprefix("a/")] in reason for path, reason in report.unreadable.items())
    assert len(manifest.table) == 13
    assert "a/linked.jpg" in set(manifest.table["path"])
    assert any(text.startswith("left out, because they cannot be read: 7 images, a/big.jpg") for text in told(report))


@pytest.mark.timeout(60)
def test_what_a_table_must_not_name_is_left_out_with_its_reason(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    write_hostile(tmp_path / "t")
    write_photo(tmp_path / "secret.png", 5)
    outside = ["../secret.png", "../../../../../../etc/passwd", "a/../../secret.png"]
    rows += [{"path": path, "label": "a", "split": "train"} for path in [*HOSTILE, *outside]]
    manifest, report = build_manifest(source(table_of(tmp_path / "t", rows)))
    assert len(manifest.table) == 12
    assert {**report.unreadable}.keys() == {*HOSTILE, *outside}
    assert all("leads out of the table's folder" in report.unreadable[path] for path in outside)
    assert all(HOSTILE[name] in report.unreadable[name] for name in HOSTILE)
    assert "is a pipe" in error_of(source(_pipe(tmp_path / "t" / "pipe.csv")))
    sources = str(tmp_path / "t" / "table.csv"), str(folder_of(tmp_path / "more", c=4))
    merged = check_data(dataclasses.replace(source(tmp_path), source=sources)).unreadable
    assert "leads out of the table's folder" in merged["secret.png"]
    assert "it is a pipe" in merged["t/pipe.jpg"]


@pytest.mark.timeout(60)
def test_a_folder_called_like_a_photo_is_a_class_where_it_holds_photos(tmp_path: Path) -> None:
    report = check_data(source(folder_of(tmp_path / "p", **{"a.jpg": 4, "b": 4})))
    assert set(report.classes) == {"a.jpg", "b"}
    assert report.unreadable == {}


@pytest.mark.timeout(60)
def test_want_of_memory_for_one_photo_ends_no_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    load = Image.Image.convert

    def convert(self: Image.Image, *arguments: object, **options: object) -> Image.Image:
        if self.size == (77, 77):
            raise MemoryError
        return load(self, *arguments, **options)  # type: ignore[arg-type]

    write_photo(root / "a" / "x.png", 5, (77, 77))
    monkeypatch.setattr(Image.Image, "convert", convert)
    report = check_data(source(root))
    assert {**report.unreadable} == {"a/x.png": "there is not enough memory to decode it"}
    assert report.images == 12


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path
