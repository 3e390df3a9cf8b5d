"""The cache folder: what lies there, what it may take, and what goes first. Real shelves on the disk."""

from __future__ import annotations

import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from tests.support.cache_on_disk import fill, last_used, write_photo
from tests.support.powerless import needs_modes, powerless
from trainers.errors import TrainerError
from trainers.store import inventory
from trainers.store.eviction import clear, prune
from trainers.store.inventory import GB, contents, limit, other_bytes, rows_of, verify
from trainers.store.rows import IN_MEMORY_BYTES, Rows
from trainers.store.shelf import Shelf


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


def test_rows_in_memory_need_no_files(tmp_path: Path) -> None:
    shelf = fill(tmp_path)
    rows: Rows = shelf.rows([f"k{i}" for i in range(40)], lambda positions: pytest.fail("nothing is missing"))
    assert rows.nbytes < IN_MEMORY_BYTES
    assert clear(tmp_path, ["images"]).in_use_bytes == 0
    assert (rows.take(np.arange(40)) == 0).all()


LISTED = """
import sys
from pathlib import Path
import numpy as np
from trainers.store.eviction import NoRoom
from trainers.store.inventory import contents
from trainers.store.shelf import Shelf
cache = Path(sys.argv[1])
found = contents(cache)
print([(shelf.kind, shelf.bytes > 0) for shelf in found.shelves], [other.name for other in found.others])
shelf = Shelf(cache, "images", {})
print(shelf.count(["k0"]), shelf.has_room_for(["k0"], 8))
try:
    shelf.rows(["k0"], lambda positions: iter([np.zeros((1, 8))]))
except NoRoom as error:
    print("check that you have write permission" in str(error))
"""


@needs_modes
def test_closed_folders_of_another_user_are_skipped_in_a_shared_cache(tmp_path: Path) -> None:
    fill(tmp_path, "features", 3, 10)
    write_photo(tmp_path)
    closed = [tmp_path / name for name in ("images", "calibration", "index", "something", "features/other")]
    for folder in closed:
        folder.mkdir(mode=0)
    try:
        done = powerless(tmp_path, [sys.executable, "-c", LISTED, str(tmp_path)])
    finally:
        for folder in closed:
            folder.chmod(0o755)
    assert done.stdout.splitlines() == ["[('features', True)] ['archives']", "0 True", "True"], done.stderr
