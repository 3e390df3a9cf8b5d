"""A full cache: what is evicted, what stays, and the error if there is no room. Real shelves on disk."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from trainers.store import eviction
from trainers.store.eviction import NoRoom, prune
from trainers.store.inventory import contents
from trainers.store.rows import Rows
from trainers.store.segments import SegmentWriter, bucket_lock
from trainers.store.shelf import Shelf, bucket_of

LIMIT = 100_000


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A cache that may hold some 90 rows of a kilobyte."""
    monkeypatch.setenv("ORCH_CACHE_GB", str(LIMIT / 10**9))
    return Shelf(tmp_path, "images", {"size": 1})


@pytest.fixture
def from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows keep their segments open."""
    monkeypatch.setattr("trainers.store.rows.IN_MEMORY_BYTES", 0)


def keys_of(count: int, name: str, bucket: int | None = None) -> list[str]:
    """``count`` keys that begin with ``name``, all of ``bucket`` if given."""
    every = (f"{name} {i}" for i in itertools.count())
    return list(itertools.islice((key for key in every if bucket in (None, bucket_of(key))), count))


def kilobytes(positions: Sequence[int]) -> Iterator[np.ndarray]:
    """A row each."""
    for p in positions:
        yield np.full((1, 256), p, np.float32)


def are_right(rows: Rows) -> bool:
    return rows.take(np.arange(len(rows)))[:, 0].tolist() == list(range(len(rows)))


def last_used(shelf: Shelf, keys: Sequence[str], hours_ago: float) -> None:
    for names in shelf.folder.glob(f"{bucket_of(keys[0]):02d}-*.keys"):
        when = names.stat().st_mtime - 3600 * hours_ago
        os.utime(names, (when, when))


def test_old_rows_of_the_bucket_that_is_written_make_room(shelf: Shelf) -> None:
    old, new = keys_of(80, "old", 3), keys_of(80, "new", 3)
    shelf.rows(old, kilobytes)
    assert are_right(shelf.rows(new, kilobytes))
    assert (shelf.count(old), shelf.count(new)) == (0, 80)


def test_old_rows_of_the_shelf_that_is_written_make_room(shelf: Shelf) -> None:
    for name in ("one", "two", "three"):
        assert are_right(shelf.rows(keys_of(80, name), kilobytes))
        assert shelf.count(keys_of(80, name)) == 80
    assert contents(shelf.folder.parent.parent).bytes <= LIMIT


def test_a_bucket_that_another_writes_to_is_passed_over(shelf: Shelf, tmp_path: Path) -> None:
    oldest, old, new = keys_of(40, "oldest", 3), keys_of(40, "old", 4), keys_of(40, "new", 5)
    shelf.rows(oldest + old, kilobytes)
    last_used(shelf, oldest, 2)
    last_used(shelf, old, 1)
    with bucket_lock(tmp_path, "images", shelf.folder.name, 3):
        assert are_right(shelf.rows(new, kilobytes))
    assert [shelf.count(keys) for keys in (oldest, old, new)] == [40, 0, 40]


@pytest.mark.usefixtures("from_files")
def test_no_row_goes_in_vain(shelf: Shelf) -> None:
    held, free = shelf.rows(keys_of(60, "held"), kilobytes), keys_of(20, "free")
    shelf.rows(free, kilobytes)
    with pytest.raises(NoRoom, match=r"has no room for .* too little of that can be evicted"):
        shelf.rows(keys_of(60, "new", 7), kilobytes)
    assert shelf.count(free) == 20
    assert are_right(held)


@pytest.mark.usefixtures("from_files")
def test_rows_of_the_same_shelf_that_others_use_are_no_room(shelf: Shelf) -> None:
    """Data sets share the shelf of their images."""
    held, stored, new = shelf.rows(keys_of(60, "one"), kilobytes), keys_of(60, "one"), keys_of(60, "two")
    assert shelf.has_room_for(stored, 1024)
    assert shelf.has_room_for(stored + new[:20], 1024)
    assert not shelf.has_room_for(stored[:30] + new[:40], 1024)  # the other thirty share their segments
    assert not shelf.has_room_for(new, 1024)
    with pytest.raises(NoRoom):
        shelf.rows(new, kilobytes)
    assert are_right(held)
    del held
    assert shelf.has_room_for(new, 1024)
    assert are_right(shelf.rows(new, kilobytes))


def test_asking_what_is_in_use_is_exclusive(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking locks rows briefly, which another process would mistake for use."""
    alone = []
    real = eviction._is_in_use

    def noting(segment: eviction.StoredSegment) -> bool:
        try:
            FileLock(tmp_path / ".locks" / "room.lock").acquire(timeout=0)
            alone.append(False)
        except Timeout:
            alone.append(True)
        return real(segment)

    monkeypatch.setattr(eviction, "_is_in_use", noting)
    shelf.rows(keys_of(60, "one"), kilobytes)
    assert shelf.has_room_for(keys_of(60, "two"), 1024)
    asked = len(alone)
    shelf.rows(keys_of(60, "two"), kilobytes)
    assert len(alone) > asked > 0
    assert all(alone)


def test_what_killed_writers_left_makes_room(shelf: Shelf, tmp_path: Path) -> None:
    old = keys_of(10, "old")
    shelf.rows(old, kilobytes)
    left = shelf.folder / ".03-0123456789abcdef.npy.half"
    left.write_bytes(b"x" * 85_000)
    new = keys_of(60, "new", 5)
    with bucket_lock(tmp_path, "images", shelf.folder.name, 3):  # it is being written
        assert not Shelf(tmp_path, "images", {"size": 2}).has_room_for(new, 1024)
        with pytest.raises(NoRoom):
            shelf.rows(new, kilobytes)
    assert left.exists()
    assert are_right(shelf.rows(new, kilobytes))
    assert not left.exists()
    assert shelf.count(old) == 10, "that was enough"


def test_a_forecast_does_not_count_what_killed_writers_left(shelf: Shelf, tmp_path: Path) -> None:
    shelf.rows(keys_of(10, "old"), kilobytes)
    left = shelf.folder / ".03-0123456789abcdef.npy.half"
    left.write_bytes(b"x" * 85_000)
    assert Shelf(tmp_path, "images", {"size": 2}).has_room_for(keys_of(60, "new"), 1024)
    assert not left.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_a_disk_that_takes_nothing_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*args: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    shelf = Shelf(tmp_path, "images", {"size": 1})
    with pytest.raises(NoRoom, match=rf"cannot be used \({os.strerror(number)}\)"):
        shelf.rows(keys_of(5, "key"), kilobytes)
    assert not list(shelf.folder.glob(".*.half"))


@pytest.mark.parametrize("can", [True, False])
def test_what_is_written_has_its_space_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool) -> None:
    if not can:

        def refuse(*args: int) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "posix_fallocate", refuse)
    rows = np.arange(256 * 1024, dtype=np.float32).reshape(1024, 256)
    writer = SegmentWriter(tmp_path, 3, keys_of(1024, "key"), rows)
    writer.reserve()
    [half] = tmp_path.glob(".*.half")
    assert half.stat().st_size == writer.bytes
    assert (half.stat().st_blocks * 512 >= writer.bytes) == can
    writer.add(rows)
    data = writer.finish(1.0).with_suffix(".npy")
    assert data.stat().st_size == writer.bytes
    np.testing.assert_array_equal(np.load(data), rows)


def test_a_cache_on_a_disk_that_may_only_be_read(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = keys_of(60, "key")
    shelf.rows(keys, kilobytes)
    monkeypatch.setattr("trainers.store.segments._touched_at", {})  # as in a process of its own
    real = os.open

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def read_only(path: Path, flags: int, *args: int, **kwargs: int) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            refuse()
        return real(path, flags, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", read_only)
        patched.setattr(os, "utime", refuse)
        assert are_right(Shelf(tmp_path, "images", {"size": 1}).rows(keys, kilobytes))
        assert not Shelf(tmp_path, "images", {"size": 2}).has_room_for(keys, 1024)
        with pytest.raises(NoRoom, match=r"cannot be used \(Read-only file system\)"):
            shelf.rows(keys_of(5, "other"), kilobytes)
    assert shelf.count(keys) == 60
    assert prune(tmp_path, to_bytes=0).in_use_bytes == 0
