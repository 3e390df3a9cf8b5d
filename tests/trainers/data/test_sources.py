"""Folders, tables and built-ins: what is read, what is passed over and said, and what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.photos_on_disk import RATIOS, error_of, folder_of, source, split_rows, table_of, told, write_photo
from trainers.data.builtins import make_builtin
from trainers.data.manifest import DataSource, Manifest, build_manifest, check_data


def test_folders_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert "holds no images. Put one folder per class into it" in error_of(source(nothing))
    assert error_of(source(tmp_path / "absent")) == f"there is no folder, table or archive {tmp_path / 'absent'}."
    folder_of(tmp_path / "outer" / "inner" / "photos", a=4, b=4)
    right = (tmp_path / "outer" / "inner" / "photos").resolve()
    assert error_of(source(tmp_path / "outer")).endswith(f"pass {right} instead.")
    flat = tmp_path / "flat"
    write_photo(flat / "x.png", 0)
    assert "holds 1 image but no class folders. Sort them into one folder per class" in error_of(source(flat))
    (tmp_path / "notes.txt").write_text("x")
    assert "is neither a folder nor a table nor an archive" in error_of(source(tmp_path / "notes.txt"))


def test_what_is_passed_over_in_a_folder_is_said(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    (root / "a" / "notes.txt").write_text("x")
    (root / "a" / ".hidden.png").write_bytes(b"x")
    write_photo(root / "loose.png", 78)
    (root / "hollow" / "deep").mkdir(parents=True)
    manifest, report = build_manifest(source(root))
    assert manifest.classes == ("a", "b")
    assert told(report) == (
        "1 file without an image's suffix will not be read: a/notes.txt.",
        "the folder hollow holds no image and is no class.",
        "1 image beside the class folders will not be read: loose.png.",
    )
    (root / "b" / "void").mkdir()
    assert "2 folders hold no image and are no classes: b/void, hollow." in told(check_data(source(root)))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_name_that_is_not_text_is_said_and_not_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    os.rename(root / "a" / "000.png", os.fsencode(root / "a") + b"/\xff.png")
    manifest, report = build_manifest(source(root))
    assert len(manifest.table) == 7
    assert "not read, because the name is not valid UTF-8; rename: 'a/\\udcff.png'." in report.warnings
    assert "udcff" in "\n".join(report.lines()).encode().decode()


@pytest.mark.parametrize("name", ["table.csv", "table.parquet"])
def test_table_with_its_own_splits(tmp_path: Path, name: str) -> None:
    rows = split_rows(tmp_path / "t")
    path = table_of(tmp_path / "t", rows[::-1], name)
    manifest, report = build_manifest(source(path, None))
    assert dict(zip(manifest.table["path"], manifest.table["split"], strict=True)) == {
        r["path"]: r["split"] for r in rows
    }
    assert report.splits["train"] == {"a": 4, "b": 4}
    assert manifest.root == (tmp_path / "t").resolve()
    again, report = build_manifest(source(path, (0.4, 0.3, 0.3)))
    assert (again.table["split"] == "train").sum() < 8
    assert told(report) == ("the data has splits of its own; they are not used, because ratios are given.",)


def test_labels_of_a_csv_stay_text(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    renamed = [{**r, "label": {"a": "007", "b": "NA"}[r["label"]]} for r in rows]
    assert build_manifest(source(table_of(tmp_path / "t", renamed), None))[0].classes == ("007", "NA")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.pop("label"), "there is no column label. It has path, split; needed are path and label"),
        (lambda r: r.update(Split=r.pop("split")), "there is an unknown column 'Split'; did you mean split?"),
        (lambda r: r.update(split="val"), "the column split holds 'val'; allowed are train, validation, test."),
        (lambda r: r.update(split="train"), "no image has the split validation or test; all of train, validation"),
        (lambda r: r.update(split=""), "the data has no splits of its own; give ratios of train, validation and test"),
        (lambda r: r.update(split=r["split"].replace("test", "")), "the column split is empty in 2 rows; each needs"),
        (lambda r: r.update(path=f"{r['label']}/0.png"), "2 files listed more than once: a/0.png, b/0.png."),
        (lambda r: r.update(path=f"/{r['path']}"), "paths must be relative to the table's folder; not so: /a/000.png"),
        (lambda r: r.update(path=r["path"].replace("b/00", "b/no")), "6 files of table.csv cannot be found: b/no0.png"),
        (lambda r: r.update(label=r["label"].replace("b", "")), "the column label is empty in 6 rows: row 7, 8, 9, 10"),
    ],
)
def test_wrong_tables_are_sentences(tmp_path: Path, change: object, sentence: str) -> None:
    rows = split_rows(tmp_path / "t")
    for row in rows:
        change(row)  # type: ignore[operator]
    assert sentence in error_of(source(table_of(tmp_path / "t", rows), None))


def test_tables_that_are_no_tables_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    assert "empty.csv cannot be read: No columns to parse from file." in error_of(source(tmp_path / "empty.csv"))
    (tmp_path / "heading.csv").write_text("path,label\n")
    assert "heading.csv has no rows." in error_of(source(tmp_path / "heading.csv"))
    for sign, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        (tmp_path / "odd.csv").write_text(f"path{sign}label\na/1.png{sign}a,b\n")
        assert f"odd.csv is separated by {name}; it must be separated by commas." in error_of(
            source(tmp_path / "odd.csv")
        )
    (tmp_path / "x.parquet").write_bytes(b"no")
    assert "x.parquet cannot be read: " in error_of(source(tmp_path / "x.parquet"))


def test_other_columns_are_noted_and_missing_classes_in_own_splits_told(tmp_path: Path) -> None:
    rows = [{**r, "camera": "x"} for r in split_rows(tmp_path / "t")]
    kept = [r for r in rows if not (r["label"] == "b" and r["split"] == "test")]
    _, report = build_manifest(source(table_of(tmp_path / "t", kept), None))
    assert told(report) == ("columns of table.csv that are not used: camera.", "class 'b' has no image in test.")
    kept = [r for r in rows if not (r["label"] == "b" and r["split"] == "train")]
    assert error_of(source(table_of(tmp_path / "t", kept), None)) == (
        "class 'b' has no image in train, so it cannot be learnt."
    )


def test_builtin_digits_are_lossless_and_are_made_again_where_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sklearn.datasets import load_digits

    data = DataSource("builtin:digits", (0.7, 0.15, 0.15), tmp_path / "cache")
    manifest, report = build_manifest(data)
    assert (report.images, manifest.classes, report.near_duplicates) == (1797, tuple("0123456789"), ())
    assert manifest.root == (tmp_path / "cache" / "builtin" / "digits").resolve()
    pixels = np.asarray(Image.open(manifest.root / "0" / "0000.png"))
    assert np.array_equal(np.round(pixels * (16 / 255)), load_digits().images[0])
    manifest.write(tmp_path / "m.parquet")
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "other"))
    again = Manifest.read(tmp_path / "m.parquet")
    assert again.root == (tmp_path / "other" / "builtin" / "digits").resolve()
    assert all(p.is_file() for p in again.paths())
    assert again.fingerprint == manifest.fingerprint
    written = [hashlib.sha256(p.read_bytes()).hexdigest() for p in again.paths()[::50]]
    assert written == manifest.table["sha256"][::50].tolist()
    assert "no built-in data set 'builtin:letters'; known are builtin:digits" in error_of(source("builtin:letters"))


def test_builtin_may_be_made_by_several_at_once_and_heals_a_lost_file(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        roots = list(pool.map(lambda _: make_builtin("builtin:digits", tmp_path), range(3)))
    (roots[0] / "3" / "0003.png").unlink()
    make_builtin("builtin:digits", tmp_path)
    files = [p for p in roots[0].rglob("*") if p.is_file()]
    assert (len(set(roots)), len(files), {p.suffix for p in files}) == (1, 1797, {".png"})


def test_cache_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    data = DataSource("builtin:digits", RATIOS, tmp_path / "file")
    assert "cannot be written" in error_of(data)
