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
    HOSTILE,
    RATIOS,
    error_of,
    folder_of,
    source,
    warnings_of,
    write_hostile,
    write_photo,
)
from tests.support.powerless import needs_modes, orch
from trainers.data.folders import read_classes, split_folders, walk
from trainers.data.listing import label_of
from trainers.data.manifest import build_manifest, check_data
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
    assert error_of(source(root, None)).startswith("no image has the split validation; all of train, validation, test")
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


def test_folders_that_link_in_a_circle_end(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    (root / "a" / "round").symlink_to(root, target_is_directory=True)
    (root / "b" / "far").symlink_to(folder_of(tmp_path / "far", c=3) / "c", target_is_directory=True)
    assert [folder.path for folder in walk(root)] == ["", "a", "b", "b/far"]


def test_split_folders_need_two_and_no_other() -> None:
    assert split_folders(["train/a", "VAL/b"]) == {"train": "train", "VAL": "validation"}
    assert split_folders(["train/a", "train/b"]) == {}
    assert split_folders(["train/a", "plane/b", "test/c"]) == {}
    assert split_folders([]) == {}


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
def test_name_that_is_not_text_is_said_and_not_read(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    os.rename(root / "a" / "000.png", os.fsencode(root / "a") + b"/\xff.png")
    manifest, report = build_manifest(source(root))
    assert len(manifest.table) == 7
    assert "not read, because the name is not valid UTF-8; rename: 'a/\\udcff.png'." in report.warnings
    assert "udcff" in "\n".join(report.lines()).encode().decode()


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
    assert any(
        text.startswith("left out, because they cannot be read: 7 images, a/big.jpg") for text in warnings_of(report)
    )


@pytest.mark.timeout(60)
def test_a_folder_called_like_a_photo_is_a_class_where_it_holds_photos(tmp_path: Path) -> None:
    report = check_data(source(folder_of(tmp_path / "p", **{"a.jpg": 4, "b": 4})))
    assert set(report.classes) == {"a.jpg", "b"}
    assert report.unreadable == {}


@needs_modes
@pytest.mark.parametrize("pairs", [False, True])
def test_a_folder_that_cannot_be_listed_is_left_out_with_a_warning(tmp_path: Path, pairs: bool) -> None:
    """A data disk has a ``lost+found`` at its top that only root can list."""
    root = folder_of(tmp_path / "p", a=12, b=12)
    if pairs:
        for photo in root.rglob("*.png"):
            photo.with_suffix(".txt").write_text(f"{photo.name}, {int(photo.parent.name == 'a')}")
    closed = [root / "lost+found", root / "a" / "private"]
    for folder in closed:
        folder.mkdir(mode=0o000)
    try:
        done = orch(tmp_path, "data", "check", "p", ORCH_CACHE=str(tmp_path / "cache"))
    finally:
        for folder in closed:
            folder.chmod(0o755)
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    assert "2 folders are left out, because they cannot be looked into" in text
    assert "lost+found (permission denied)" in text
    assert "a/private (permission denied)" in text
    assert "no image and" not in text


@needs_modes
def test_folders_that_cannot_be_listed_at_all_are_named_in_the_refusal(tmp_path: Path) -> None:
    closed = tmp_path / "p" / "cats"
    closed.mkdir(parents=True)
    closed.chmod(0)
    try:
        done = orch(tmp_path, "data", "check", "p", ORCH_CACHE=str(tmp_path / "cache"))
    finally:
        closed.chmod(0o755)
    assert done.returncode == 3
    assert "The folder cats is left out: it cannot be looked into (permission denied)." in done.stderr


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


def test_folders_of_systems_are_no_classes_and_hidden_photos_are_named(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"a": 4, "b": 4, ".net": 3, "lost+found": 2, ".git/x": 2, "@eaDir": 2})
    (root / ".idea").mkdir()
    (root / "b" / "more.zip").write_bytes(b"x")
    manifest, report = build_manifest(source(root, "auto"))
    assert [file[0] for file in report.bad_files()] == [".net", "lost+found"]
    assert manifest.classes == ("a", "b")
    assert warnings_of(report) == (
        "hidden or made by the system, so its photos are left out: .net, lost+found. Rename it to use them.",
        "not unpacked: 1 archive among the photos, b/more.zip. Unpack them, or pass each as a source.",
    )


@given(st.text(max_size=20))
def test_a_label_has_one_spelling(text: str) -> None:
    label = label_of(text)
    assert label_of(label) == label
    assert label == label_of(unicodedata.normalize("NFD", text))
