"""Only plain files of a bounded size are opened; for everything else there is a reason, at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.photos_on_disk import HOSTILE, write_hostile
from trainers.files.plain import LARGEST_FILE, Unreadable, batches, open_plain, read_plain

pytestmark = pytest.mark.timeout(20)


@pytest.mark.parametrize("name", [*HOSTILE, "absent.jpg"])
def test_what_is_no_plain_file_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    write_hostile(tmp_path)
    with pytest.raises(Unreadable) as caught:
        read_plain(tmp_path / name)
    assert caught.value.name == str(tmp_path / name)
    assert HOSTILE.get(name, "no such file") in caught.value.reason


def test_plain_files_are_read_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "real").write_bytes(b"abc")
    (tmp_path / "here" / "link.jpg").symlink_to("../real")
    assert read_plain(tmp_path / "here" / "link.jpg") == b"abc"
    assert read_plain(tmp_path / "real", 3) == b"abc"
    with pytest.raises(Unreadable, match="at most 2 bytes are read"):
        read_plain(tmp_path / "real", 2)
    os.truncate(tmp_path / "real", LARGEST_FILE + 1)
    with open_plain(tmp_path / "real", largest=None) as file:
        assert file.read(3) == b"abc"


def test_files_of_proc_are_empty_whatever_they_would_say(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("/proc/version")
    assert read_plain(tmp_path / "a.jpg") == b""


def test_a_name_that_no_file_can_have_is_a_reason() -> None:
    with pytest.raises(Unreadable, match="no file can have this name"):
        read_plain("a\0.jpg")


def test_what_takes_the_place_of_a_plain_file_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"abc")
    plain = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "stat", lambda *_, **__: plain)
    with pytest.raises(Unreadable, match="pipe"):
        read_plain(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_large_photos_are_not_held_in_memory_together(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.png").touch()
        os.truncate(tmp_path / f"{i}.png", 100 * (i + 1))
    found = [[file.name for file in files] for files in batches(sorted(tmp_path.iterdir()), 600)]
    assert found == [["0.png", "1.png", "2.png"], ["3.png"], ["4.png"], ["5.png"]]
