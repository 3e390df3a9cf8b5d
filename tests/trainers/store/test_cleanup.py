"""Clean-up of the cache folder: pruning, clearing, what stays. Real shelves on disk."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.cache_on_disk import fill, last_used, write_old_format, write_photo
from tests.support.places import ROOT
from trainers.store.eviction import clear, prune
from trainers.store.inventory import GB, contents
from trainers.store.segments import bucket_lock
from trainers.store.shelf import Shelf

HOLDER = """
import sys
import numpy as np
from pathlib import Path
import trainers.store.rows
from trainers.store.shelf import Shelf
trainers.store.rows.IN_MEMORY_BYTES = 0
rows = Shelf(Path(sys.argv[1]), "images", {"size": 1}).rows([f"k{i}" for i in range(40)], None)
print("open", flush=True)
sys.stdin.read()
"""


def test_pruning_takes_what_was_unused_for_longest(tmp_path: Path) -> None:
    shelves = {days: fill(tmp_path, size=days) for days in (10, 1, 30)}
    for days, shelf in shelves.items():
        last_used(shelf, days)
    each = min(shelf.bytes for shelf in contents(tmp_path).shelves)
    assert prune(tmp_path, to_bytes=contents(tmp_path).bytes).bytes == 0
    assert prune(tmp_path, to_bytes=contents(tmp_path).bytes - each).bytes >= each
    assert [days for days, shelf in shelves.items() if shelf.folder.exists()] == [10, 1]
    assert prune(tmp_path, older_than_s=5 * 86_400).bytes >= each
    assert [days for days, shelf in shelves.items() if shelf.folder.exists()] == [1]
    assert prune(tmp_path, to_bytes=0).bytes >= each
    assert contents(tmp_path).shelves == ()


def test_pruning_takes_old_formats_and_leftovers(tmp_path: Path) -> None:
    old, shelf = write_old_format(tmp_path), fill(tmp_path)
    assert [found.is_old for found in contents(tmp_path).shelves] == [True, False] or old > shelf.folder
    leftovers = [shelf.folder / name for name in (".03-0000.npy.half", "04-0000.npy", "05-0000.keys")]
    for file in leftovers:
        file.write_bytes(b"x" * 1000)
    busy = shelf.folder / ".06-0000.npy.half"
    busy.write_bytes(b"x" * 1000)
    with bucket_lock(tmp_path, "images", shelf.folder.name, 6):  # somebody writes it
        removed = prune(tmp_path)
    assert removed.bytes >= 3000 + 2048
    assert not old.exists()
    assert not any(file.exists() for file in leftovers)
    assert busy.exists()
    assert shelf.count([f"k{i}" for i in range(40)]) == 40


def test_old_formats_go_first_when_room_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_old_format(tmp_path)
    first = fill(tmp_path, size=2)
    last_used(first, 300)
    monkeypatch.setenv("ORCH_CACHE_GB", str((contents(tmp_path).bytes + 1000) / GB))
    fill(tmp_path, size=3, count=1)
    assert not list(old.glob("*.npy"))
    assert first.count([f"k{i}" for i in range(40)]) == 40


@contextlib.contextmanager
def held_by_a_process(cache: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(cache)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    try:
        yield
    finally:
        process.communicate(timeout=30)


def test_what_another_process_has_open_stays(tmp_path: Path) -> None:
    shelf = fill(tmp_path)
    fill(tmp_path, size=2)
    with held_by_a_process(tmp_path):
        removed = clear(tmp_path, ["images"])
        assert removed.bytes > 40_000
        assert removed.in_use_bytes > 40_000
        assert shelf.count([f"k{i}" for i in range(40)]) == 40
        assert len(contents(tmp_path).shelves) == 1
    assert clear(tmp_path, ["images"]).in_use_bytes == 0
    assert contents(tmp_path).shelves == ()


def test_clearing_one_kind_leaves_the_others(tmp_path: Path) -> None:
    fill(tmp_path)
    features, photo = fill(tmp_path, "features"), write_photo(tmp_path)
    assert clear(tmp_path, ["images"]).bytes > 40_000
    assert clear(tmp_path, ["archives"]).bytes == 5000
    assert not photo.exists()
    assert [shelf.folder for shelf in contents(tmp_path).shelves] == [features.folder]
    assert fill(tmp_path).count(["k0"]) == 1  # and is written again


def test_clearing_leaves_a_shelf_that_begins(tmp_path: Path) -> None:
    """However far its first writer is: nothing written, a file without a description, some rows."""
    cleared = []

    def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
        for p in positions:
            cleared.append(clear(tmp_path, ["images"]).in_use_bytes)
            yield np.full((1, 256), p, np.float32)

    shelf = Shelf(tmp_path, "images", {"size": 1})
    rows = shelf.rows([f"k{i}" for i in range(40)], compute)
    assert rows.take(np.arange(40))[:, 0].tolist() == list(range(40))
    assert len(cleared) >= 40
    assert clear(tmp_path, ["images"]).bytes > 40_000
    begun = tmp_path / "images" / "0123456789abcdef-v2" / ".03-0000.npy.half"
    begun.parent.mkdir()
    begun.write_bytes(b"x")
    clear(tmp_path, ["images"])
    assert begun.exists()


def test_folders_that_hold_no_rows_are_cleared_by_name(tmp_path: Path) -> None:
    photos = [write_photo(tmp_path, name) for name in ("archives", "index", "something")]
    assert clear(tmp_path, ["archives", "something"]).bytes == 10_000
    assert [photo.exists() for photo in photos] == [False, True, False]
