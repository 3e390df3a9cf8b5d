"""Class folders, nested or not, and top folders that are splits: what becomes a class, and what is said."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.photos_on_disk import (
    error_of,
    folder_of,
    source,
    warnings_of,
    write_photo,
)
from trainers.data.build import build_manifest, check_data
from trainers.data.listing import label_of
from trainers.data.sources.class_folders import read_classes
from trainers.data.sources.tree import walk
from trainers.errors import TrainerError


def test_nested_class_folders_are_labelled_by_their_path(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"recyclable/paper": 4, "recyclable/glass": 4, "other/box/wet": 4})
    manifest, report = build_manifest(source(root))
    assert manifest.classes == ("other/box/wet", "recyclable/glass", "recyclable/paper")
    assert manifest.table["path"][0] == "other/box/wet/000.png"
    assert warnings_of(report) == ()


def test_a_folder_with_images_and_class_folders_is_a_class_itself_with_a_warning(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"a": 4, "a/more": 4, "b": 4})
    manifest, report = build_manifest(source(root))
    assert manifest.classes == ("a", "a/more", "b")
    assert warnings_of(report) == (
        "the folder a holds images and class folders; its own images are the class 'a', next to 'a/more'.",
    )


def test_folders_that_only_wrap_the_classes_are_no_part_of_the_labels(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"data/train/a": 3, "data/test/a": 3, "data/train/b": 3, "data/test/b": 3})
    (root / "docs").mkdir()
    (root / "docs" / "README.txt").write_text("x")
    write_photo(root / "loose.png", 77)
    manifest, report = build_manifest(source(root, None, folds=2))
    assert (manifest.classes, manifest.root) == (("a", "b"), (root / "data").resolve())
    assert warnings_of(report) == ("1 image next to the class folders will not be read: loose.png.",)
    assert report.left_out == (("../loose.png", "it lies in no class folder", "no class"),)
    only = folder_of(tmp_path / "q", **{"train/a": 4, "train/b": 4})
    manifest, report = build_manifest(source(only))
    assert manifest.classes == ("a", "b")
    assert warnings_of(report) == ("the only split is train; it is not used, and all of its images are divided.",)


NAMES = st.sampled_from(["a", "b", "c d", "train", "test", "纸", "x.y"])

TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.integers(1, 3), max_size=6)


@given(TREES)
@settings(max_examples=80, deadline=None)
def test_every_image_in_a_folder_is_listed_once_or_there_is_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, int]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folder, images in tree.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            (root / folder / f"{i}.jpg").write_bytes(b"")
    tops = {folder.split("/")[0] for folder in tree}
    if not tree:
        with pytest.raises(TrainerError, match="holds no images"):
            read_classes(root, walk(root))
        return
    found = read_classes(root, walk(root))
    assert found.root == root or not tops & set(tree)
    listed = {(found.root / path).relative_to(root).as_posix() for path in found.rows["path"]}
    everything = {f"{folder}/{i}.jpg" for folder, images in tree.items() for i in range(images)}
    assert len(listed) == len(found.rows)
    assert listed == everything or (listed < everything and found.problems)
    assert all(row.path.endswith(row.label + "/" + Path(row.path).name) for row in found.rows.itertuples())


def test_folders_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert "holds no images. Put one folder per class into it" in error_of(source(nothing))
    assert error_of(source(tmp_path / "absent")) == f"there is no folder, table or archive {tmp_path / 'absent'}."
    flat = tmp_path / "flat"
    write_photo(flat / "x.png", 0)
    assert "holds 1 image but no class folders. Sort them into one folder per class" in error_of(source(flat))
    (tmp_path / "notes.txt").write_text("x")
    assert "is neither a folder nor a table nor an archive" in error_of(source(tmp_path / "notes.txt"))


def test_what_is_passed_over_in_a_folder_is_said(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    (root / "a" / "notes.txt").write_text("x")
    (root / "a" / ".hidden.png").write_bytes(b"x")
    (root / "a" / "._000.png").write_bytes(b"x")
    write_photo(root / "loose.png", 78)
    (root / "hollow" / "deep").mkdir(parents=True)
    manifest, report = build_manifest(source(root))
    assert manifest.classes == ("a", "b")
    assert warnings_of(report) == (
        "1 file without an image's suffix will not be read: a/notes.txt.",
        "the folder hollow holds no image and is no class.",
        "hidden or made by the system, so its photos are left out: a/.hidden.png. Rename it to use them.",
        "1 image next to the class folders will not be read: loose.png.",
    )
    (root / "b" / "void").mkdir()
    assert "2 folders hold no image and are no classes: b/void, hollow." in warnings_of(check_data(source(root)))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_all_no_text_are_a_sentence_and_no_crash(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=2, b=2)
    for photo in sorted(root.rglob("*.png")):
        os.rename(photo, os.fsencode(photo.parent) + b"/\xff" + os.fsencode(photo.name))
    report = check_data(source(root, "auto"))
    assert report.problems == ("there is no image that can be used.",)
    assert len(report.left_out) == 4
    assert error_of(source(root, "auto")) == "there is no image that can be used."


def test_spellings_that_look_the_same_are_one_class_and_others_are_named(tmp_path: Path) -> None:
    labels = ("K\u00e4se", "Ka\u0308se", "glass", "glass ", "Glass", "0", "0.0", "7", "007", "a-b", "a_b")
    root = folder_of(tmp_path / "p", **dict.fromkeys(labels, 3))
    manifest, report = build_manifest(source(root, "auto"))
    assert manifest.classes == ("0", "0.0", "007", "7", "Glass", "K\u00e4se", "a-b", "a_b", "glass")
    assert report.classes["K\u00e4se"] == report.classes["glass"] == 6
    assert warnings_of(report) == (
        "spellings of a class name that look the same, or differ in blanks at the ends, are one class: "
        "'Ka\\u0308se' = 'K\u00e4se', 'glass' = 'glass '.",
        "class names that differ only in their spelling stay apart: 0 = 0.0, 007 = 7, a-b = a_b, Glass = glass. If "
        "they are one class, give them one name.",
    )


@given(st.text(max_size=20))
def test_a_label_has_one_spelling(text: str) -> None:
    label = label_of(text)
    assert label_of(label) == label
    assert label == label_of(unicodedata.normalize("NFD", text))
