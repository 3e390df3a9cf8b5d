"""Several sources become one data set: labels by name, each file once, splits only where all have them."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path

import pandas as pd
import pytest

from tests.support.photos_on_disk import RATIOS, error_of, folder_of, split_rows, table_of, warnings_of, write_photo
from trainers.data.build import build_manifest, check_data
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.data.sources.read import is_made, read_source
from trainers.errors import TrainerError


def merged(tmp_path: Path, *sources: object, splits: tuple[float, float, float] | None = RATIOS) -> DataSource:
    return DataSource(tuple(map(str, sources)), splits, tmp_path / "cache")


def other_folder(root: Path, **classes: int) -> Path:
    """As ``folder_of``, of other photos."""
    for number, (label, count) in enumerate(sorted(classes.items())):
        for i in range(count):
            write_photo(root / label / f"{i:03d}.png", 50_000 + 1000 * number + i)
    return root


def test_folders_and_a_table_unite_by_label(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "one", cat=4, dog=4)
    second = other_folder(tmp_path / "deep" / "two", cat=3, owl=5)
    rows = [{"path": "x/1.png", "label": "dog"}, {"path": "x/2.png", "label": "owl"}]
    for n, row in enumerate(rows):
        write_photo(tmp_path / "deep" / "t" / row["path"], 90_000 + n)
    manifest, report = build_manifest(merged(tmp_path, first, second, table_of(tmp_path / "deep" / "t", rows)))
    assert report.classes == {"cat": 7, "dog": 5, "owl": 6}
    assert manifest.root == tmp_path.resolve()
    assert {p.rpartition("/")[0] for p in manifest.table["path"]} == {
        *("one/cat", "one/dog", "deep/two/cat", "deep/two/owl", "deep/t/x")
    }
    assert manifest.table["path"].is_monotonic_increasing
    assert all(path.is_file() for path in manifest.paths())
    assert report.lines()[0] == f"{first} + {second} + {tmp_path / 'deep' / 't' / 'table.csv'}: 18 images in 3 classes"
    assert manifest.source == (str(first), str(second), str(tmp_path / "deep" / "t" / "table.csv"))
    manifest.write(tmp_path / "m.parquet")
    again = Manifest.read(tmp_path / "m.parquet")
    assert (again.source, again.folders, again.root) == (manifest.source, manifest.folders, manifest.root)
    pd.testing.assert_frame_equal(again.table, manifest.table)


def test_one_source_in_a_tuple_is_that_source(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    alone, _ = build_manifest(DataSource(str(root), RATIOS, tmp_path))
    manifest, _ = build_manifest(merged(tmp_path, root))
    assert (manifest.source, manifest.root, manifest.fingerprint) == (str(root), alone.root, alone.fingerprint)


def test_file_of_two_sources_is_listed_once_and_must_not_contradict_itself(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    rows = [{"path": "p/a/000.png", "label": "a"}, {"path": "p/b/001.png", "label": "b"}]
    table = table_of(tmp_path, rows)
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    manifest, report = build_manifest(merged(tmp_path, root, table, tmp_path / "link"))
    assert len(manifest.table) == report.images == 8
    table_of(tmp_path, [{"path": "p/a/000.png", "label": "b"}])
    assert error_of(merged(tmp_path, root, table)) == (
        "1 file with a different label in each source: p/a/000.png (a and b)."
    )


def test_duplicates_across_sources_share_a_group(tmp_path: Path) -> None:
    first = folder_of(tmp_path / "one", a=5, b=5)
    second = other_folder(tmp_path / "two", a=5, b=5)
    shutil.copy(first / "a" / "000.png", second / "a" / "same.png")
    manifest, report = build_manifest(merged(tmp_path, first, second))
    assert report.exact_duplicates == (("one/a/000.png", "two/a/same.png"),)
    rows = manifest.table.set_index("path").loc[["one/a/000.png", "two/a/same.png"]]
    assert rows["group"].nunique() == rows["split"].nunique() == 1


def test_splits_count_where_all_sources_have_them(tmp_path: Path) -> None:
    table = table_of(tmp_path / "t", split_rows(tmp_path / "t"))
    splits = tmp_path / "s"
    for n, part in enumerate(("train", "val", "test")):
        other_folder(splits / part, a=n + 1, b=n + 1)
        for image in sorted((splits / part).rglob("*.png")):
            write_photo(image, zlib.crc32(str(image.relative_to(splits)).encode()))
    both, _ = build_manifest(merged(tmp_path, table, splits, splits=None))
    assert both.table.groupby("split").size().to_dict() == {"test": 8, "train": 10, "validation": 6}
    plain = other_folder(tmp_path / "plain", a=3, b=3)
    assert error_of(merged(tmp_path, table, plain, splits=None)) == (
        f"some sources have splits of their own and these have not: {plain}. Give all of them splits, or give ratios "
        "of train, validation and test."
    )
    anew, report = build_manifest(merged(tmp_path, table, plain))
    assert len(anew.table) == 18
    assert warnings_of(report) == ("the data has splits of its own; they are not used, because ratios are given.",)


def test_mistakes_of_all_sources_are_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "void").mkdir()
    text = error_of(merged(tmp_path, tmp_path / "no", tmp_path / "void"))
    assert len(text.split("\n")) == 2
    assert "there is no folder, table or archive" in text
    assert "holds no images" in text
    one = folder_of(tmp_path / "one", cat=4)
    rows = [{"path": "gone.png", "label": "Cat"}, {"path": "x.png", "label": "Cat"}]
    write_photo(tmp_path / "t" / "x.png", 7)
    table = table_of(tmp_path / "t", rows)
    assert error_of(merged(tmp_path, one, table)).startswith(f"{table}: 1 file of table.csv cannot be found: gone.png.")
    assert read_source((str(one), str(table)), tmp_path).warnings == (
        "class names that differ only in their spelling stay apart: Cat = cat. If they are one class, give them one "
        "name.",
    )


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [((), "there is no source of photos; give a folder"), (("a", "b", "a"), "given more than once as a source: a.")],
)
def test_no_source_and_the_same_twice_are_sentences(tmp_path: Path, sources: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(TrainerError, match=sentence):
        read_source(sources, tmp_path)


def test_merged_archive_is_found_again_where_the_cache_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = folder_of(tmp_path / "data" / "plain", a=4, b=4)
    packed = other_folder(tmp_path / "packed", a=4, b=4)
    with tarfile.open(tmp_path / "data" / "more.tgz", "w:gz") as archive:
        archive.add(packed, "more")
    data = merged(tmp_path, plain, tmp_path / "data" / "more.tgz")
    assert is_made(data.source)
    manifest, _ = build_manifest(data)
    manifest.write(tmp_path / "m.parquet")
    assert all(path.is_file() for path in Manifest.read(tmp_path / "m.parquet").paths())
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "x" / "y"))
    again = Manifest.read(tmp_path / "m.parquet")
    assert len(again.paths()) == 16
    assert all(path.is_file() for path in again.paths())
    assert again.fingerprint == manifest.fingerprint
    again.write(tmp_path / "again.parquet")
    assert Manifest.read(tmp_path / "again.parquet").paths() == again.paths()


def batches(root: Path) -> Path:
    """Photos in folders that are no classes, with a table of their labels on top."""
    folder_of(root, batch1=4, batch2=4)
    return table_of(root, [{"path": f"batch{1 + i % 2}/00{i // 2}.png", "label": "ab"[i // 4]} for i in range(8)])


@pytest.mark.parametrize("packed", ["folder", "zip", "nested"])
def test_a_table_on_top_is_used_in_folders_as_in_archives(tmp_path: Path, packed: str) -> None:
    inside = tmp_path / "p" / "deep" / "er" if packed == "nested" else tmp_path / "p"
    batches(inside)
    (inside / "batch1" / "other.csv").write_text("image;class\n")
    (inside / "batch2" / "mine.tsv").write_text("path\tlabel\n000.png\tx\n")
    (inside / "batch2" / "junk.tsv").write_bytes(b"\x00\x01\xff\n")
    place = shutil.make_archive(str(tmp_path / "p"), "zip", tmp_path / "p") if packed == "zip" else tmp_path / "p"
    manifest, report = build_manifest(DataSource(str(place), "auto", tmp_path / "cache"))
    assert (manifest.classes, len(manifest.table)) == (("a", "b"), 8)
    top = "deep/er/" if packed == "nested" else ""
    assert warnings_of(report) == (
        f"not used: 3 tables, {top}batch1/other.csv (it has no columns path and label, but image, class), "
        f"{top}batch2/junk.tsv (it has no columns path and label, but none), {top}batch2/mine.tsv (not on top "
        "of the photos; to use it, pass it as the source).",
        f"labels are taken from the table {top}table.csv, not from the names of the folders; to use the folders, move "
        "the table elsewhere.",
    )


def test_images_that_a_table_on_top_does_not_name_are_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=5)
    table_of(root, [{"path": f"{label}/00{i}.png", "label": label} for label in "ab" for i in range(4)])
    report = check_data(DataSource(str(root), "auto", tmp_path / "cache"))
    assert warnings_of(report) == ("1 image that the table table.csv does not name will not be read: b/004.png.",)
    assert report.bad_files() == [("b/004.png", "the table does not name it", "no label")]


def test_unused_tables_of_a_folder_are_named_with_their_columns(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    (root / "notes.csv").write_text("name;price\n")
    (root / "sheet.xlsx").write_bytes(b"PK")
    table_of(root / "meta", [{"path": "x.png", "label": "x"}])
    _, report = build_manifest(DataSource(str(root), "auto", tmp_path / "cache"))
    assert warnings_of(report) == (
        "the folder meta holds no image and is no class.",
        "not used: 3 tables, notes.csv (it has no columns path and label, but name, price), sheet.xlsx (a spreadsheet; "
        "save it as CSV), meta/table.csv (not on top of the photos; to use it, pass it as the source).",
    )
    assert error_of(DataSource(str(root / "sheet.xlsx"), "auto", tmp_path)).endswith(
        "sheet.xlsx is a spreadsheet; save it as CSV in the same folder, and pass that."
    )
    table_of(root, [{"path": "a/000.png", "label": "x"}], "one.csv")
    table_of(root, [{"path": "a/000.png", "label": "x"}], "two.csv")
    assert error_of(DataSource(str(root), "auto", tmp_path)) == (
        f"{root} holds several tables of photos: one.csv, two.csv. Pass one of them, or move all but one elsewhere."
    )


def test_what_is_said_of_an_archive_names_no_folder_of_the_cache(tmp_path: Path) -> None:
    flat, empty, nested, lost = (tmp_path / name for name in ("flat", "empty", "nested", "lost"))
    write_photo(flat / "1.png", 1)
    empty.mkdir()
    (empty / "README.txt").write_text("x")
    nested.mkdir()
    shutil.make_archive(str(nested / "inner"), "zip", folder_of(tmp_path / "x", a=2, b=2))
    folder_of(lost / "p", a=4, b=4)
    table_of(lost, [{"path": "gone/1.png", "label": "a"}, {"path": "p/a/001.png", "label": "b"}])
    seen = {}
    for folder in (flat, empty, nested, lost):
        packed = shutil.make_archive(str(folder), "zip", folder)
        seen[folder.name] = error_of(DataSource(packed, "auto", tmp_path / "cache"))
        assert "cache" not in seen[folder.name].replace(str(tmp_path / "cache.zip"), "")
    assert seen["nested"].endswith(
        f"holds no images but 1 archive (inner.zip); unpack {nested}.zip and pass inner.zip."
    )
    assert seen["lost"].endswith(f"cannot be found: gone/1.png. Paths are relative to {lost}.zip.")


def test_a_folder_called_like_an_archive_is_a_folder(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos.zip", a=4, b=4)
    assert build_manifest(DataSource(str(root), "auto", tmp_path / "cache"))[0].classes == ("a", "b")


@pytest.mark.parametrize("folder", ["images", "."])
def test_a_table_of_one_folder_of_images_is_used_without_a_word(tmp_path: Path, folder: str) -> None:
    for i in range(8):
        write_photo(tmp_path / "p" / folder / f"{i}.png", i)
    table_of(tmp_path / "p", [{"path": f"{folder}/{i}.png".removeprefix("./"), "label": "ab"[i % 2]} for i in range(8)])
    manifest, report = build_manifest(DataSource(str(tmp_path / "p"), "auto", tmp_path / "cache"))
    assert (manifest.classes, warnings_of(report)) == (("a", "b"), ())
