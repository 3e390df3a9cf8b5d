"""Files are replaced as a whole: through errors, kills and other writers, and never a device or a folder."""

from __future__ import annotations

import ast
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.places import ROOT
from trainers.errors import TrainerError
from trainers.files.atomic import (
    NotAFile,
    atomic_write,
    atomic_write_bytes,
    atomic_write_text,
    refuse_special,
)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [True, False])
def test_the_content_is_replaced_and_nothing_else_is_left(tmp_path: Path, durable: bool) -> None:
    for text in ("first", "second, Umlaut \N{LATIN SMALL LETTER A WITH DIAERESIS}"):
        atomic_write_text(tmp_path / "a.txt", text, durable=durable)
        assert (tmp_path / "a.txt").read_bytes() == text.encode()
    assert names_in(tmp_path) == ["a.txt"]


def test_until_the_end_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_text("old")
    with atomic_write(file, suffix=".npz") as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.name[0] == "."
        assert temporary.name.endswith(".tmp.npz")
    assert file.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("half of the n")
            raise error

    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error):
        interrupted()
    assert names_in(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_name_of_255_bytes_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / ("\N{CJK UNIFIED IDEOGRAPH-7845}" * 83 + ".png")
    atomic_write_text(file, "x")
    assert names_in(tmp_path) == [file.name]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    code = (
        "import os, signal, sys; from pathlib import Path; from trainers.files.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a.txt").read_text() == "old"


def test_writers_at_the_same_time_never_mix(tmp_path: Path) -> None:
    contents = [str(number) * 100_000 for number in range(4)]
    writers = [
        threading.Thread(target=lambda text=text: [atomic_write_text(tmp_path / "a", text) for _ in range(20)])
        for text in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "a").exists():
            assert (tmp_path / "a").read_text() in contents
    assert names_in(tmp_path) == ["a"]


def test_a_durable_file_is_synced_before_its_name_changes_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append(("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file", (tmp_path / "a").exists()))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic_write_bytes(tmp_path / "b", b"x", durable=False)
    assert synced == []
    atomic_write_bytes(tmp_path / "a", b"x")
    assert synced == [("file", False), ("folder", True)]


def test_a_symbolic_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "there" / "real.txt")
    atomic_write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there" / "real.txt").read_text() == "new"
    assert names_in(tmp_path / "there") == ["real.txt"]


def test_a_special_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    kinds = {"pipe": "a pipe", "folder": "a folder", "link": "a device"}
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path may have 107 characters
        try:
            listening.bind("socket")
        finally:
            os.chdir(here)
        for name, kind in {**kinds, "socket": "a socket"}.items():
            before = os.lstat(tmp_path / name)
            with pytest.raises(NotAFile, match=f"{name} is {kind}, not a file"):
                atomic_write_text(tmp_path / name, "x")
            after = os.lstat(tmp_path / name)
            assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert names_in(tmp_path) == ["folder", "link", "pipe", "socket"]


def test_devices_and_folders_are_refused_as_a_sentence() -> None:
    for path, kind in ((Path("/dev/null"), "a device"), (Path("/"), "a folder"), (Path(""), "a folder")):
        with pytest.raises(TrainerError, match=f"is {kind}, not a file"):
            refuse_special(path)
    refuse_special(Path("no such file"))
    refuse_special(Path(__file__))
    refuse_special(Path(__file__) / "below a file")


OTHERS = {
    "trainers/store/segments.py": 2,  # a segment's two files, in an order of their own, after its bytes were reserved
    "trainers/data/sources/archives.py": 2,  # an unpacked folder as a whole, or the files that it lacks
    "orchestrator/tracking/sqlite_store.py": 1,  # a database; a killed one goes with its journals
    "orchestrator/commands/data/bad_files.py": 2,  # a person's photos, to another folder or another disk
    "orchestrator/commands/export.py": 1,  # moves what was made and judged, files and folders
}
"""Modules that rename by themselves, and how often."""


def test_only_one_module_replaces_files() -> None:
    found: dict[str, int] = {}
    for package in ("orchestrator", "trainers", "dashboards", "benchmarks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
            if count := sum(call in ("os.replace", "os.rename", "shutil.move") for call in calls):
                found[path.relative_to(ROOT).as_posix()] = count
    assert found == {**OTHERS, "trainers/files/atomic.py": 1}
