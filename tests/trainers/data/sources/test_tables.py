"""Tables of photos: what is read, what is warned about, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.photos_on_disk import (
    HOSTILE,
    error_of,
    folder_of,
    photos_at,
    source,
    split_rows,
    table_of,
    warnings_of,
    write_hostile,
    write_photo,
    written_table,
)
from trainers.data.build import build_manifest, check_data
from trainers.data.sources.tables import columns_of, read_table
from trainers.errors import TrainerError


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
    assert again.table["split"].tolist() != manifest.table["split"].tolist()
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
        (lambda r: r.update(split="vla"), "the column split holds 'vla'; allowed are train, validation, test."),
        (lambda r: r.update(split="train"), "no image has the split validation or test; all of train, validation"),
        (lambda r: r.update(split=""), "the data has no splits of its own; give ratios of train, validation and test"),
        (lambda r: r.update(split=r["split"].replace("test", "")), "the column split is empty in 2 rows; each needs"),
        (lambda r: r.update(path=f"{r['label']}/0.png"), "2 files listed more than once: a/0.png, b/0.png."),
        (lambda r: r.update(path=f"/{r['path']}"), "paths must be relative to the table's folder; not so: /a/000.png"),
        (lambda r: r.update(path=r["path"].replace("b/00", "b/no")), "6 files of table.csv cannot be found: b/no0.png"),
        (
            lambda r: r.update(label=r["label"].replace("b", "")),
            "the column label is empty in 6 rows: line 8, 9, 10, 11",
        ),
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
    (tmp_path / "quote.csv").write_text('path,label\na/1.png,"a\nb/1.png,b\n')
    assert "unexpected end of data, in the row that begins at line 2." in error_of(source(tmp_path / "quote.csv"))
    (tmp_path / "x.parquet").write_bytes(b"no")
    assert "x.parquet cannot be read: " in error_of(source(tmp_path / "x.parquet"))


def test_other_columns_are_noted_and_missing_classes_in_own_splits_reported(tmp_path: Path) -> None:
    rows = [{**r, "camera": "x"} for r in split_rows(tmp_path / "t")]
    kept = [r for r in rows if not (r["label"] == "b" and r["split"] == "test")]
    _, report = build_manifest(source(table_of(tmp_path / "t", kept), None))
    assert warnings_of(report) == ("columns of table.csv that are not used: camera.", "class 'b' has no image in test.")
    kept = [r for r in rows if not (r["label"] == "b" and r["split"] == "train")]
    assert error_of(source(table_of(tmp_path / "t", kept), None)) == (
        "class 'b' has no image in train, so it cannot be learnt. Add images to it, or take the class out."
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


def _pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["", "# exported today, by hand\n#\n", "sep={sign}\n", "\n\n"])
def test_every_separator_is_read_and_every_value_is_text(tmp_path: Path, sign: str, first: str) -> None:
    root = photos_at(tmp_path / "t", "a/1.png", "a/2.png", "a/3.png", "a/4.png")
    rows = [
        ("path", "label", "group"),
        *(("a/1.png", "007", "001"), ("a/2.png", "7", "1"), ("a/3.png", "NA", "1e3"), ("a/4.png", '"x,y;z"', "1.0")),
    ]
    text = first.format(sign=sign) + "".join(sign.join(row) + "\n" for row in rows)
    found = read_table(written_table(root, text))
    assert found.rows["label"].tolist() == ["007", "7", "NA", "x,y;z"]
    assert found.rows["group"].tolist() == ["001", "1", "1e3", "1.0"]
    assert found.warnings == found.problems == ()


def test_a_separator_at_the_end_of_each_line_shifts_no_column(tmp_path: Path) -> None:
    root = photos_at(tmp_path / "t", "1.png", "2.png")
    for text in ("path,label,\n1.png,a,\n2.png,b,\n", "path,label\n1.png,a,\n2.png,b,,\n"):
        assert read_table(written_table(root, text)).rows["label"].tolist() == ["a", "b"]
    with_more = read_table(written_table(root, "# x\npath,label\n1.png,a\n\n2.png,b,c\n"))
    assert with_more.problems == (
        "t.csv has 2 columns and more values in 1 row: line 5 (3 values). Put values that hold a separator in quotes.",
    )


def test_rows_are_counted_as_an_editor_counts_lines(tmp_path: Path) -> None:
    root = photos_at(tmp_path / "t", "1.png", "2.png")
    text = '# made by hand\npath,label,note\n1.png,a,"two\nlines"\n\n2.png,,x\n'
    assert read_table(written_table(root, text)).problems == ("the column label is empty in 1 row: line 6.",)


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        *((name, None) for name in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        ("gb18030", "gb18030"),
        ("cp932", "cp932"),
        ("cp1251", "cp1251"),
    ],
)
def test_encodings_are_found_and_a_guess_is_said(tmp_path: Path, encoding: str, said: str | None) -> None:
    labels = {"gb18030": ("玻璃", "纸"), "cp932": ("ガラス", "紙"), "cp1251": ("стекло", "бумага")}.get(
        encoding, ("Käse", "纸")
    )
    root = photos_at(tmp_path / "t", "1.png", "2.png")
    found = read_table(written_table(root, f"path;label\n1.png;{labels[0]}\n2.png;{labels[1]}\n", encoding))
    assert tuple(found.rows["label"]) == labels
    warnings = (
        f"t.csv is not UTF-8 and is read as {said}; if that is wrong, name its encoding in data.encoding or with "
    )
    assert found.warnings == ((f"{warnings}--encoding.",) if said else ())


def test_a_named_encoding_wins_over_the_guess_and_must_fit(tmp_path: Path) -> None:
    root = photos_at(tmp_path / "t", "1.png", "2.png")
    path = written_table(root, "path,label\n1.png,유리\n2.png,종이\n", "cp949")
    assert read_table(path).rows["label"].tolist() != ["유리", "종이"]  # four letters could be Chinese
    assert read_table(path, "cp949").rows["label"].tolist() == ["유리", "종이"]
    with pytest.raises(TrainerError, match=r"t\.csv cannot be read: it is not ascii: "):
        read_table(path, "ascii")
    with pytest.raises(TrainerError, match="there is no text encoding 'klingon'; name one such as utf-8, gb18030"):
        build_manifest(dataclasses.replace(source(path), encoding="klingon"))


def test_words_for_splits_are_those_of_folders(tmp_path: Path) -> None:
    rows = split_rows(tmp_path / "t")
    words = {"train": "Training", "validation": "VAL ", "test": "tst"}
    other = [{**row, "split": words[row["split"]]} for row in rows]
    plain, _ = build_manifest(source(table_of(tmp_path / "t", rows), None))
    manifest, _ = build_manifest(source(table_of(tmp_path / "t", other), None))
    assert manifest.fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("values", "classes"),
    [([0.0, 1.0, 1.0, None], ["0", "1", "1"]), ([7, 8, 8, None], ["7", "8", "8"]), ([0.5, 1.0, 1.0, None], None)],
)
def test_numbers_of_parquet_are_written_alike_and_it_is_said(
    tmp_path: Path, values: list[float], classes: list[str] | None
) -> None:
    root = photos_at(tmp_path / "t", *(f"{i}.png" for i in range(4)))
    pd.DataFrame({"path": [f"{i}.png" for i in range(4)], "label": values}).to_parquet(root / "t.parquet")
    found = read_table(root / "t.parquet")
    assert found.rows["label"].tolist() == (classes or ["0.5", "1", "1"])
    assert found.problems == ("the column label is empty in 1 row: row 4.",)
    written = ", ".join(sorted(set(found.rows["label"])))
    assert found.warnings == (f"the column label of t.parquet holds no text but double; it is written {written}.",)


def test_categories_of_parquet_are_text(tmp_path: Path) -> None:
    root = photos_at(tmp_path / "t", "0.png", "1.png")
    frame = pd.DataFrame({"path": ["0.png", "1.png"], "label": pd.Categorical(["007", "7"])})
    frame.to_parquet(root / "t.parquet")
    found = read_table(root / "t.parquet")
    assert (found.rows["label"].tolist(), found.warnings) == (["007", "7"], ())


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    root = photos_at(tmp_path / "t", "0.png")
    with pytest.raises(TrainerError, match="there are 2 columns label"):
        read_table(written_table(root, "path,label,label\n0.png,a,b\n"))


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_a_table_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, header: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "wild" / "t.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((b"path,label\n" if header else b"") + content)
    assert isinstance(columns_of(path), tuple)
    with contextlib.suppress(TrainerError):
        read_table(path)


def test_a_table_of_predict_is_no_table_of_labels(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=6, b=6)
    row = "path,label,probability,probabilities,error,model\n" + "a/000.png,b,0.9,{},,models:/x/1\n"
    (root / "labels.csv").write_text(row)
    manifest, report = build_manifest(source(root))
    assert len(manifest.table) == 12
    assert any("labels.csv" in text for text in report.warnings)
    assert "holds answers of `orch predict`, not labels" in error_of(source(root / "labels.csv"))
