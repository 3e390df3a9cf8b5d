"""From files on a disk to a manifest and a report, or to a sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.photos_on_disk import (
    error_of,
    folder_of,
    source,
    split_rows,
    table_of,
    warnings_of,
    with_duplicates,
)
from tests.support.pictures import tile
from trainers.data.build import build_manifest, check_data
from trainers.data.data_source import DataSource
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


def test_imports_without_tensorflow_or_other_heavy_libraries() -> None:
    code = (
        "import sys, trainers.data.build, trainers.images, trainers.augment; "
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'imagehash', 'scipy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.skipif("ORCH_DATA" not in os.environ, reason="ORCH_DATA names no folder of real photos")
def test_trashnet_has_about_28_pairs_of_duplicates_and_no_huge_group(tmp_path: Path) -> None:
    root = Path(os.environ["ORCH_DATA"]) / "trashnet"
    report = check_data(DataSource(str(root), (0.7, 0.15, 0.15), tmp_path))
    assert (report.images, len(report.classes), report.problems) == (2527, 6, ())
    assert len(report.exact_duplicates) == len(report.conflicts) == 3
    assert 20 <= len(report.near_duplicates) + len(report.exact_duplicates) + len(report.look_alikes) <= 60
    assert report.largest_group <= 4


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
