"""Tables of photos: what is read, what is warned about, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from tests.support.photos_on_disk import (
    HOSTILE,
    error_of,
    folder_of,
    source,
    split_rows,
    table_of,
    warnings_of,
    write_hostile,
    write_photo,
)
from trainers.data.manifest import build_manifest, check_data


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
    assert warnings_of(report) == ("the data has splits of its own; they are not used, because ratios are given.",)


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


def test_other_columns_are_noted_and_missing_classes_in_own_splits_reported(tmp_path: Path) -> None:
    rows = [{**r, "camera": "x"} for r in split_rows(tmp_path / "t")]
    kept = [r for r in rows if not (r["label"] == "b" and r["split"] == "test")]
    _, report = build_manifest(source(table_of(tmp_path / "t", kept), None))
    assert warnings_of(report) == ("columns of table.csv that are not used: camera.", "class 'b' has no image in test.")
    kept = [r for r in rows if not (r["label"] == "b" and r["split"] == "train")]
    assert error_of(source(table_of(tmp_path / "t", kept), None)) == (
        "class 'b' has no image in train, so it cannot be learnt."
    )


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


@pytest.mark.parametrize("prefix", ["../imgs/", "sub/../../imgs/", "{root}/imgs/"])
def test_the_advice_for_paths_that_lead_out_of_the_folder_helps(tmp_path: Path, prefix: str) -> None:
    """As typed: move the table, and write the paths as in the example."""
    root = tmp_path.resolve()
    rows = [{**r, "path": f"{prefix.format(root=root)}{r['path']}"} for r in split_rows(tmp_path / "imgs")]
    path = table_of(tmp_path / "lab", rows)
    text = error_of(source(path)) if "{root}" in prefix else next(iter(check_data(source(path)).unreadable.values()))
    advice = re.search(r"ove the table to (\S+) and write its paths relative to (\S+), (this one|the first) as", text)
    assert advice is not None, text
    assert advice[1] == advice[2] == str(root / "imgs")
    example = text.rstrip(".").rpartition(" as ")[2]
    assert example in {r["path"] for r in split_rows(tmp_path / "imgs")}
    added = prefix.format(root=root)
    moved = table_of(Path(advice[1]), [{**r, "path": r["path"].removeprefix(added)} for r in rows])
    manifest, report = build_manifest(source(moved))
    assert (len(manifest.table), report.unreadable) == (12, {})


def test_the_advice_names_a_folder_that_holds_the_photos_inside_too(tmp_path: Path) -> None:
    rows = [{**r, "path": f"../imgs/{r['path']}"} for r in split_rows(tmp_path / "imgs")]
    rows += split_rows(tmp_path / "lab")[:2]
    report = check_data(source(table_of(tmp_path / "lab", rows)))
    assert len(report.unreadable) == 12
    assert report.unreadable["../imgs/a/000.png"].endswith(
        f"move the table to {tmp_path.resolve()} and write its paths relative to {tmp_path.resolve()}, "
        "this one as imgs/a/000.png"
    )


def test_the_advice_for_photos_without_a_common_folder_is_to_copy_them(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    out = os.path.relpath("/no-such-folder/x.png", (tmp_path / "t").resolve())
    more = {"label": "a", "split": "train"}
    report = check_data(source(table_of(tmp_path / "t", [*rows, {"path": out, **more}])))
    assert "copy the photo into that folder" in report.unreadable[out]
    path = table_of(tmp_path / "t", [*rows, {"path": "/no-such-folder/x.png", **more}])
    assert f"Copy those photos into {path.parent.resolve()}" in error_of(source(path))


def test_absolute_paths_into_the_tables_own_folder_are_to_be_shortened(tmp_path: Path) -> None:
    root = (tmp_path / "t").resolve()
    rows = [{**r, "path": f"{root}/{r['path']}"} for r in split_rows(tmp_path / "t")]
    assert f". Write its paths relative to {root}, the first as a/000.png." in error_of(
        source(table_of(tmp_path / "t", rows))
    )


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path
