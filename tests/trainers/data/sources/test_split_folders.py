"""Folders named as splits: used, refused with what to do, or a part of the class names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.photos_on_disk import (
    RATIOS,
    error_of,
    folder_of,
    source,
    warnings_of,
    write_photo,
)
from trainers.data.build import build_manifest, check_data
from trainers.data.sources.split_folders import split_folders


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Training", "val", "TEST"), ("train", "dev", "testing")]
)
def test_top_folders_named_as_splits_are_the_datas_own_splits(tmp_path: Path, names: tuple[str, str, str]) -> None:
    root = tmp_path / "p"
    for number, name in enumerate(names):
        for label in ("glass", "organic/wet"):
            for i in range(4 - number):
                write_photo(root / name / label / f"{i}.png", 1000 * number + 100 * len(label) + i)
    manifest, report = build_manifest(source(root, None))
    assert manifest.classes == ("glass", "organic/wet")
    assert {s: sum(c.values()) for s, c in report.splits.items()} == {"train": 8, "validation": 6, "test": 4}
    by_folder = {p.split("/")[0]: s for p, s in zip(manifest.table["path"], manifest.table["split"], strict=True)}
    assert by_folder == dict(zip(names, ("train", "validation", "test"), strict=True))
    anew, report = build_manifest(source(root, RATIOS))
    assert warnings_of(report) == ("the data has splits of its own; they are not used, because ratios are given.",)
    assert anew.classes == manifest.classes


def test_split_folders_that_lack_something_are_sentences(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2})
    assert error_of(source(root, None)).startswith("no image has the split validation; write splits: auto, which takes")
    pooled, _ = build_manifest(source(root, None, folds=2))  # folds need no validation
    assert pooled.table.groupby("split").size().to_dict() == {"test": 4, "train": 8}
    write_photo(root / "test" / "loose.png", 5)
    assert error_of(source(root, None, folds=2)) == (
        "the folder test is named as a split but holds images directly; put them into class folders inside it."
    )
    inner = folder_of(tmp_path / "q", **{"a/train": 4, "a/test": 4, "b": 4})
    assert warnings_of(check_data(source(inner))) == (
        "folders named as splits (test, train) lie inside others and are part of the class names; splits must be the "
        "top folders.",
    )


def test_split_folders_need_two_and_no_other() -> None:
    assert split_folders(["train/a", "VAL/b"]) == {"train": "train", "VAL": "validation"}
    assert split_folders(["train/a", "train/b"]) == {}
    assert split_folders(["train/a", "plane/b", "test/c"]) == {}
    assert split_folders([]) == {}


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Training", "VAL", "tst"), ("train2017", "val2017", "x")]
)
def test_splits_next_to_other_folders_are_refused_with_what_to_do(tmp_path: Path, names: tuple[str, ...]) -> None:
    counts = {f"{name}/{label}": 3 for name in names[:2] for label in "ab"}
    root = folder_of(tmp_path / "p", **counts, **{f"{names[2]}/a": 3}, unlabelled=3)
    text = error_of(source(root, "auto"))
    assert text.startswith("the folders ")
    assert names[0] in text
    assert names[1] in text
    assert "look like splits, but unlabelled" in text
    assert "Move unlabelled" in text
    assert "elsewhere or into one of them; or, if they are classes, rename them." in text
    assert "train/a" not in text


def test_folders_that_are_splits_by_their_beginning_alone_are_to_be_renamed(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"train2017/a": 3, "train2017/b": 3, "val2017/a": 3, "val2017/b": 3})
    assert error_of(source(root, "auto")) == (
        "the folders train2017 and val2017 look like splits. Name them train, validation and test; or, if they are "
        "classes, rename them."
    )


def test_classes_called_like_splits_are_classes_with_a_warning(tmp_path: Path) -> None:
    vehicles = folder_of(tmp_path / "p", train=4, bus=4, tram=4)
    assert warnings_of(build_manifest(source(vehicles, "auto"))[1]) == ()
    two = folder_of(tmp_path / "q", train=4, test=4, bus=4)
    assert warnings_of(build_manifest(source(two, "auto"))[1]) == (
        "the folders test and train are named as splits but hold images directly, so they are classes.",
    )
    tubes = folder_of(tmp_path / "s", **{"test tube/clean": 4, "dev board/new": 4, "box": 4})
    manifest, report = build_manifest(source(tubes, "auto"))
    assert (manifest.classes, warnings_of(report)) == (("box", "dev board/new", "test tube/clean"), ())
    one = folder_of(tmp_path / "r", **{"train/a": 4, "train/b": 4, "more": 4})
    assert warnings_of(build_manifest(source(one, "auto"))[1]) == (
        "the folder train is named as a split, but there is no other; it is a part of the class names, as in "
        "'train/a'.",
    )


def test_splits_below_every_class_are_refused(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{f"{label}/{split}": 3 for label in "ab" for split in ("train", "test")})
    assert error_of(source(root, "auto")) == (
        "each class folder is divided into splits (test, train), as in a/test; splits must be the top folders, as in "
        "test/a."
    )


def test_images_directly_in_the_splits_are_a_sentence_and_no_crash(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_photo(tmp_path / "p" / part / "0.jpg", 1)
    report = check_data(source(tmp_path / "p", "auto"))
    assert report.problems == tuple(
        f"the folder {part} is named as a split but holds images directly; put them into class folders inside it."
        for part in ("test", "train", "val")
    )
    assert "is named as a split" in error_of(source(tmp_path / "p"))
