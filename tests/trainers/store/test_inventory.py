"""The cache folder: what lies there, what it may take, and what goes first. Real shelves on the disk."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.places import ROOT
from trainers.errors import TrainerError
from trainers.store import inventory
from trainers.store.eviction import clear, prune
from trainers.store.inventory import GB, contents, limit, other_bytes, rows_of, verify
from trainers.store.rows import IN_MEMORY_BYTES, Rows
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


def fill(cache: Path, kind: str = "images", size: int = 1, count: int = 40) -> Shelf:
    """A shelf of ``count`` rows of a kilobyte."""

    def compute(positions: Sequence[int]) -> Iterator[np.ndarray]:
        yield np.zeros((len(positions), 256), np.float32)

    shelf = Shelf(cache, kind, {"size": size})
    shelf.rows([f"k{i}" for i in range(count)], compute)
    return shelf


def last_used(shelf: Shelf, days_ago: float) -> None:
    when = time.time() - days_ago * 86_400
    for names in shelf.folder.glob("*.keys"):
        os.utime(names, (when, when))


def write_old_format(cache: Path) -> Path:
    """A shelf as it was written before rows had checksums."""
    folder = cache / "images" / "dc052978c02e5dc8"
    folder.mkdir(parents=True)
    np.save(folder / "0164f8940d1f74a8.npy", np.zeros((2, 256), np.float32))
    (folder / "0164f8940d1f74a8.keys").write_text("k0\nk1")
    (folder / "description.json").write_text('{"size": 1}')
    return folder


def write_photo(cache: Path, name: str = "archives") -> Path:
    photo = cache / name / "0123456789abcdef" / "cat" / "1.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"x" * 5000)
    return photo


def test_an_empty_or_missing_cache(tmp_path: Path) -> None:
    for cache in (tmp_path, tmp_path / "none"):
        found = contents(cache)
        assert (found.shelves, found.others, found.bytes, found.limit_is_set) == ((), (), 0, False)
        assert found.limit_bytes > 0
        assert prune(cache).bytes == clear(cache, ["images"]).bytes == 0
    assert not (tmp_path / "none").exists()


def test_everything_in_a_cache_is_found(tmp_path: Path) -> None:
    fill(tmp_path, "features", 3, 10)
    images = fill(tmp_path)
    write_photo(tmp_path)
    write_photo(tmp_path, "something")
    (tmp_path / "calibration").mkdir()
    found = contents(tmp_path)
    assert [(shelf.kind, rows_of(shelf).rows) for shelf in found.shelves] == [("features", 10), ("images", 40)]
    assert [(other.name, other.bytes, other.files) for other in found.others] == [
        ("archives", 5000, 1),
        ("something", 5000, 1),
    ]
    shelf = found.shelves[1]
    assert shelf.folder == images.folder
    assert shelf.description() == {"format": 2, "description": {"size": 1}}
    assert shelf.bytes == sum(f.stat().st_size for f in images.folder.iterdir() if f.suffix in (".npy", ".keys"))
    assert time.time() - shelf.used < 60
    assert (rows_of(shelf).damaged, verify(shelf)) == (0, 0)


def test_damage_is_counted_and_nothing_changed(tmp_path: Path) -> None:
    shelf = fill(tmp_path)
    first, second, third = sorted(shelf.folder.glob("*.npy"))[:3]
    for file, place in ((first, -1), (second, 200)):
        content = bytearray(file.read_bytes())
        content[place] ^= 1
        file.write_bytes(content)
    third.with_suffix(".keys").write_bytes(b"no keys")
    before = sorted(shelf.folder.iterdir())
    (found,) = contents(tmp_path).shelves
    assert verify(found) == 2
    assert rows_of(found).damaged == 1
    assert rows_of(found).rows < 40
    assert sorted(shelf.folder.iterdir()) == before


def test_looking_is_no_use(tmp_path: Path) -> None:
    shelf = fill(tmp_path)
    last_used(shelf, 5)
    (found,) = contents(tmp_path).shelves
    assert verify(found) == 0
    assert time.time() - contents(tmp_path).shelves[0].used > 4 * 86_400


def test_reading_rows_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = fill(tmp_path)
    last_used(shelf, 5)
    monkeypatch.setattr("trainers.store.segments._touched_at", {})  # as in a process of its own
    fill(tmp_path)
    assert time.time() - contents(tmp_path).shelves[0].used < 60


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("asked", "free_gb", "used_gb", "expected_gb"),
    [
        ("", 100, 0, 50),
        ("", 100, 20, 60),
        ("", 1000, 0, 200),
        ("50", 1000, 0, 50),
        ("0.5", 1000, 3, 0.5),
        ("5000", 100, 20, 120 - 0.268),
        ("50", 0, 10, 10 - 0.268),
        ("50", 0.1, 0, 0),
    ],
)
def test_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, free_gb: float, used_gb: float, expected_gb: float
) -> None:
    monkeypatch.setenv("ORCH_CACHE_GB", asked)
    monkeypatch.setattr(inventory.shutil, "disk_usage", lambda path: Usage(0, 0, int(free_gb * GB)))
    assert limit(tmp_path / "not" / "there", int(used_gb * GB)) == pytest.approx(expected_gb * GB, abs=GB // 1000)


@pytest.mark.parametrize("text", ["abc", "-3", "0", "nan", "inf", "10GB"])
def test_a_limit_that_is_no_number_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ORCH_CACHE_GB", text)
    with pytest.raises(TrainerError, match=f"ORCH_CACHE_GB={text} is not a positive number.*ORCH_CACHE_GB=50"):
        contents(tmp_path)


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


def test_what_is_no_rows_counts_towards_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCH_CACHE_GB", "0.0001")
    shelf = Shelf(tmp_path, "images", {"size": 1})
    assert shelf.has_room_for([f"k{i}" for i in range(80)], 1024)
    write_photo(tmp_path)
    (tmp_path / "archives" / "large").write_bytes(b"x" * 40_000)
    assert not shelf.has_room_for([f"k{i}" for i in range(80)], 1024)


def test_growth_at_any_depth_is_noticed(tmp_path: Path) -> None:
    photo = write_photo(tmp_path)
    assert other_bytes(tmp_path) == 5000
    for count, name in enumerate(("2.jpg", "deeper/3.jpg", "deeper/4.jpg", "deeper/still/5.jpg"), 2):
        time.sleep(0.02)  # the clock of a file system is coarse
        file = photo.parent / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x" * 5000)
        assert other_bytes(tmp_path) == count * 5000
    time.sleep(0.02)
    file.unlink()
    assert other_bytes(tmp_path) == 4 * 5000


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


def test_rows_in_memory_need_no_files(tmp_path: Path) -> None:
    shelf = fill(tmp_path)
    rows: Rows = shelf.rows([f"k{i}" for i in range(40)], lambda positions: pytest.fail("nothing is missing"))
    assert rows.nbytes < IN_MEMORY_BYTES
    assert clear(tmp_path, ["images"]).in_use_bytes == 0
    assert (rows.take(np.arange(40)) == 0).all()
