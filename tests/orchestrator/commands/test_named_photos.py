"""Which photos `orch predict` takes: what training takes, and what is left out is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.commands.named_photos import NamedPhotos, list_photos, shown
from orchestrator.errors import DataError
from tests.support.photos_on_disk import folder_of, source
from tests.support.powerless import needs_modes, powerless
from trainers.data.build import build_manifest
from trainers.files.suffixes import PHOTOS


def photos(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "b.JPG").write_bytes(b"a long picture")
    (folder / "a.png").write_bytes(b"brief")
    (folder / "deep" / "c.webp").write_bytes(b"bad")
    (folder / "notes.txt").write_text("not a photo")


def names(found: NamedPhotos) -> list[str]:
    return [Path(path).name for path in found.paths]


def test_folders_are_searched_and_named_files_are_taken_as_they_are(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    warnings: list[str] = []
    found = list_photos([str(tmp_path / "photos"), str(tmp_path / "photos" / "notes.txt")], warnings.append)
    assert names(found) == ["a.png", "b.JPG", "c.webp", "notes.txt"]
    assert found.errors == {}
    assert warnings == [f"{tmp_path / 'photos'}: 1 file without an image's suffix: left out (notes.txt)."]


def test_a_folder_is_walked_as_training_does(tmp_path: Path) -> None:
    kept = [f"{i:02}{suffix}" for i, suffix in enumerate(PHOTOS)]
    for name in [*kept, "._a.jpg", "__MACOSX/a.jpg", ".ipynb_checkpoints/a.png", ".hidden.jpg", ".DS_Store"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    warnings: list[str] = []
    found = list_photos([str(tmp_path)], warnings.append)
    assert names(found) == kept
    assert found.errors == {}
    assert len(warnings) == 1
    assert "its photos are left out: .hidden.jpg." in warnings[0]
    assert len(kept) >= 19


def test_prediction_takes_the_photos_of_the_manifest(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "photos", a=6, b=6)
    (root / "a" / "._000.png").write_bytes(b"x")
    (root / "__MACOSX" / "a").mkdir(parents=True)
    (root / "__MACOSX" / "a" / "000.png").write_bytes(b"x")
    trained, _ = build_manifest(source(root))
    assert sorted(list_photos([str(root)]).paths) == sorted(map(str, trained.paths()))


LISTED = """
from orchestrator.commands.named_photos import list_photos
print(list_photos(["photos"], print).paths)
"""


@needs_modes
def test_a_folder_that_cannot_be_listed_leaves_the_others(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    closed = tmp_path / "photos" / "lost+found"
    closed.mkdir(mode=0)
    done = powerless(tmp_path, [sys.executable, "-c", LISTED])
    closed.chmod(0o755)
    assert done.stdout.splitlines() == [
        "photos: the folder lost+found is left out: it cannot be looked into (permission denied).",
        "photos: 1 file without an image's suffix: left out (notes.txt).",
        "['photos/a.png', 'photos/b.JPG', 'photos/deep/c.webp']",
    ], done.stderr


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("nowhere.jpg", "there is no such file"),
        ("a.png/b.jpg", "there is no such file"),
        ("", "an empty name names no file"),
        ("empty", "there is no photo in it (looked for .jpg"),
        ("https://example.org/a.jpg", "it is an address, and only files are read; download it first: `curl -O https:"),
        ("s3://bucket/a.jpg", "it is an address"),
        ("file:///nowhere/a.jpg", "there is no such file"),
        ("a" * 300, "cannot be read: its name is too long"),
    ],
)
def test_one_wrong_name_is_an_error_of_its_own(
    named: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    found = list_photos(["a.png", named, "a.png"])
    assert [found.paths[0], found.paths[2]] == ["a.png", "a.png"]
    assert list(found.errors) == [1]
    assert found.errors[1].startswith(reason)
    with pytest.raises(DataError, match=r"there is nothing to predict\. "):
        list_photos([named])


def test_a_file_that_is_called_like_an_address_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "https:" / "x").mkdir(parents=True)
    (tmp_path / "https:" / "x" / "a.jpg").write_bytes(b"x")
    assert list_photos(["https://x/a.jpg"]) == NamedPhotos(["https:/x/a.jpg"], {})


def test_a_hundred_missing_files_are_one_short_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list_photos([str(tmp_path / f"{i}.jpg") for i in range(100)])
    assert str(caught.value).endswith("4.jpg: there is no such file and 95 more.")


def test_a_name_that_is_not_utf8_is_an_address_and_back(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/gr\xfcn 1%.jpg"
    with open(odd, "wb"):
        pass
    (path,) = list_photos([str(tmp_path)]).paths
    assert shown(path) == f"file://{tmp_path}/gr%FCn%201%25.jpg"
    assert unquote_to_bytes(shown(path).removeprefix("file://")) == odd
    assert list_photos([shown(path)]) == NamedPhotos([path], {})


@given(st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name))
def test_every_name_is_shown_as_text_that_gives_it_back(name: bytes) -> None:
    path = "/" + os.fsdecode(name).replace("/", "_")
    text = shown(path)
    text.encode()
    assert text == path or unquote_to_bytes(text.removeprefix("file://")) == os.fsencode(path)
