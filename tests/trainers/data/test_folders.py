"""Class folders, nested or not, and top folders that are splits: what becomes a class, and what is said."""

from __future__ import annotations

import os
import sys
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


def test_one_folder_around_all_classes_is_named_to_be_passed(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", **{"data/train/a": 3, "data/test/a": 3})
    assert error_of(source(root)) == f"the class folders lie deeper than {root}; pass {root / 'data'} instead."
    only = folder_of(tmp_path / "q", **{"train/a": 4, "train/b": 4})
    assert error_of(source(only)).endswith(f"pass {only / 'train'} instead.")


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
    if not tree or (len(tops) == 1 and not tops & set(tree)):
        with pytest.raises(TrainerError, match=r"holds no images|pass .* instead"):
            read_classes(root, walk(root))
        return
    found = read_classes(root, walk(root))
    listed = set(found.rows["path"])
    everything = {f"{folder}/{i}.jpg" for folder, images in tree.items() for i in range(images)}
    assert len(listed) == len(found.rows)
    assert listed == everything or (listed < everything and found.problems)
    assert all(row.path.endswith(row.label + "/" + Path(row.path).name) for row in found.rows.itertuples())


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
    assert warnings_of(report) == (
        "1 file without an image's suffix will not be read: a/notes.txt.",
        "the folder hollow holds no image and is no class.",
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
