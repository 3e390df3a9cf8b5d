"""Walking a folder: every name once, no circles, and what is passed over is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.photos_on_disk import (
    HOSTILE,
    folder_of,
    source,
    warnings_of,
    write_hostile,
    write_photo,
)
from tests.support.powerless import needs_modes, orch
from trainers.data.build import build_manifest, check_data
from trainers.data.sources.tree import walk


def test_folders_that_link_in_a_circle_end(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "p", a=4, b=4)
    (root / "a" / "round").symlink_to(root, target_is_directory=True)
    (root / "b" / "far").symlink_to(folder_of(tmp_path / "far", c=3) / "c", target_is_directory=True)
    assert [folder.path for folder in walk(root)] == ["", "a", "b", "b/far"]


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
