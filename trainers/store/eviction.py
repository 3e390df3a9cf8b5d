"""Evict rows from the cache folder when room is needed or a user asks. Imports no TensorFlow.

The least recently used segments go first; a segment that a process has open is never evicted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from trainers.errors import TrainerError
from trainers.store.inventory import (
    ShelfFolder,
    StoredSegment,
    configured_limit,
    folders_of,
    holds_shelves,
    limit,
    other_bytes,
    other_folder,
    shelves_of,
)
from trainers.store.segments import BUCKETS, bucket_lock, read_header, remove_leftovers, remove_segment, suffix
from trainers.wording import GB


class NoRoom(TrainerError):
    """Rows cannot be stored: the cache's limit or the disk leaves no room. They can still be computed on each read."""


@dataclass(frozen=True)
class Removed:
    """Result of a clean-up. ``bytes``: removed; ``in_use_bytes``: kept because a process uses them."""

    bytes: int = 0
    in_use_bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.bytes + other.bytes, self.in_use_bytes + other.in_use_bytes)


@contextlib.contextmanager
def make_room(cache: Path, needed: int, holds: tuple[Path, int] | None = None) -> Iterator[None]:
    """Make room for ``needed`` bytes, and keep other processes from doing so until the caller has allocated them.

    Removes leftovers of killed writers first, then rows of old formats, then the least recently used rows. Rows that a
    process has open and buckets that another process writes are kept. ``holds``: the shelf's folder and the bucket
    whose lock the caller has; its rows may be evicted too.
    Raises NoRoom, without evicting anything, if the rows that are not in use are too few.
    """
    with _exclusive(cache):
        shelves, used = _usage(cache)
        excess = used + needed - limit(cache, used)
        if excess > 0 and _remove_leftovers(cache, shelves):
            shelves, used = _usage(cache)
            excess = used + needed - limit(cache, used)
        if excess > 0 and not _remove_oldest(cache, shelves, excess, holds):
            raise NoRoom(_no_room(cache, used, needed))
        yield


@contextlib.contextmanager
def _exclusive(cache: Path) -> Iterator[None]:
    """Admit one process at a time: testing whether a segment is in use locks it briefly, which another
    process would mistake for use."""
    (cache / ".locks").mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".locks" / "room.lock"):
        yield


def _usage(cache: Path) -> tuple[list[ShelfFolder], int]:
    """The shelves, and the bytes of everything in the cache."""
    shelves = list(shelves_of(cache))
    return shelves, sum(shelf.bytes for shelf in shelves) + other_bytes(cache)


def _remove_oldest(cache: Path, shelves: Sequence[ShelfFolder], excess: int, holds: tuple[Path, int] | None) -> bool:
    """Evict the least recently used segments to free ``excess`` bytes; return whether that succeeded."""
    segments, remaining = _by_age(shelves), excess
    for segment in segments:
        if remaining <= 0:
            break
        remaining -= 0 if _is_in_use(segment) else segment.bytes
    if remaining > 0:
        return False
    for segment in segments:
        if excess <= 0:
            break
        excess -= _evict(cache, segment, holds).bytes  # 0 if it came into use meanwhile: try the next one
    return excess <= 0


def _no_room(cache: Path, used: int, needed: int) -> str:
    allowed = limit(cache, used)
    source = "ORCH_CACHE_GB" if configured_limit() is not None else "a share of the disk; ORCH_CACHE_GB sets it"
    return (
        f"the cache {cache} has no room for {needed / GB:,.2f} GB more: {used / GB:,.1f} of at most "
        f"{allowed / GB:,.1f} GB ({source}) are taken, and too little of that can be evicted. Raise ORCH_CACHE_GB, "
        "free space with `orch cache clear`, or set ORCH_CACHE to a folder on another disk."
    )


def has_room_for_rows(cache: Path, own: Path, keys: Set[str], bytes_each: int) -> bool:
    """Whether the shelf at ``own`` could hold all rows of ``keys``, counting what it holds, free space and what can be
    evicted.

    May remove leftovers of killed writers, but evicts no rows.
    """
    needed = len(keys) * bytes_each
    shelves, used = _usage(cache)
    allowed = limit(cache, used)
    if used + needed <= allowed:
        return True
    if needed > allowed:
        return False
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # a read-only cache evicts nothing
            held.enter_context(_exclusive(cache))
        if _remove_leftovers(cache, shelves):
            shelves = list(shelves_of(cache))
        kept = needed + other_bytes(cache) + sum(shelf.stray_bytes for shelf in shelves if shelf.folder != own)
        for shelf in shelves:
            for segment in shelf.segments:
                if kept > allowed:
                    return False
                kept += _pinned_bytes(segment, keys if shelf.folder == own else frozenset())
        return kept <= allowed


def _pinned_bytes(segment: StoredSegment, keys: Set[str]) -> int:
    """Bytes of ``segment`` that cannot be evicted, not counting the rows of ``keys``.

    All of it if a process has it open. A reader of ``keys`` opens each segment that holds one, which pins the other
    rows of that segment too.
    """
    header = read_header(segment.keys_file) if keys else None
    others = sum(key not in keys for key in header.keys) if header is not None else 0
    if header is not None and others < len(header.keys):
        return others * header.row_bytes
    return segment.bytes if _is_in_use(segment) else 0


def prune(cache: Path, to_bytes: int | None = None, older_than_s: float | None = None) -> Removed:
    """Remove leftovers of killed writers, rows of old formats, rows unused for ``older_than_s``, and then the least
    recently used rows until the cache takes at most ``to_bytes``."""
    removed = Removed(_remove_leftovers(cache, shelves_of(cache)))
    shelves = list(shelves_of(cache))
    now, remaining = time.time(), sum(shelf.bytes for shelf in shelves) + other_bytes(cache)
    old = {segment.keys_file for shelf in shelves if shelf.is_old for segment in shelf.segments}
    for segment in _by_age(shelves):
        unused = older_than_s is not None and now - segment.used > older_than_s
        if segment.keys_file in old or unused or (to_bytes is not None and remaining > to_bytes):
            done = _evict(cache, segment)
            removed += done
            remaining -= done.bytes
    _remove_empty(cache)
    return removed


def clear(cache: Path, kinds: Sequence[str]) -> Removed:
    """Remove everything of these kinds (names of folders in the cache) that no process has open.

    Keeps a folder in which a writer has just started a shelf. Cannot detect that a sweep is reading photos of an
    unpacked archive.
    """
    removed = Removed()
    for shelf in list(shelves_of(cache)):
        if shelf.kind in kinds:
            removed += Removed(_remove_leftovers(cache, [shelf]))
            for segment in shelf.segments:
                removed += _evict(cache, segment)
    for folder in folders_of(cache):
        if folder.name in kinds and not holds_shelves(folder) and not any(folder.glob(f"*{suffix()}")):
            removed += Removed(other_folder(folder).bytes)
            shutil.rmtree(folder)
    _remove_empty(cache)
    return removed


def _by_age(shelves: Iterable[ShelfFolder]) -> list[StoredSegment]:
    """Segments in order of eviction: old formats first, then least recently used."""
    found = [
        (not shelf.is_old, segment.used, str(segment.keys_file), segment)
        for shelf in shelves
        for segment in shelf.segments
    ]
    return [segment for *_, segment in sorted(found, key=lambda row: row[:3])]


def _is_in_use(segment: StoredSegment) -> bool:
    """Whether a process has it open, or this user lacks the permission to tell."""
    try:
        file = os.open(segment.keys_file.with_suffix(".npy"), os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:  # another user's, or on a read-only disk
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _evict(cache: Path, segment: StoredSegment, holds: tuple[Path, int] | None = None) -> Removed:
    """Remove a segment unless a process has it open or writes its bucket. ``holds``: see ``make_room``."""
    folder = segment.keys_file.parent
    try:
        with contextlib.ExitStack() as held:
            bucket = int(segment.keys_file.name[:2]) if folder.name.endswith(suffix()) else None
            if bucket is not None and (folder, bucket) != holds:
                held.enter_context(bucket_lock(cache, folder.parent.name, folder.name, bucket).acquire(timeout=0))
            with contextlib.suppress(FileNotFoundError):
                file = os.open(segment.keys_file.with_suffix(".npy"), os.O_RDWR)
                held.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_segment(segment.keys_file)
    except OSError:  # includes a bucket's Timeout and a segment's BlockingIOError
        return Removed(in_use_bytes=segment.bytes)
    return Removed(segment.bytes)


def _remove_leftovers(cache: Path, shelves: Iterable[ShelfFolder]) -> int:
    """Remove leftovers of killed writers where permitted; return the bytes freed."""
    freed = 0
    strays = [(shelf, bucket) for shelf in shelves if not shelf.is_old for bucket in sorted(shelf.stray_buckets)]
    for shelf, bucket in strays:
        # Skip a bucket that is being written (Timeout): its files are no leftovers.
        with (
            contextlib.suppress(OSError),
            bucket_lock(cache, shelf.kind, shelf.folder.name, bucket).acquire(timeout=0),
        ):
            freed += remove_leftovers(shelf.folder, bucket)
    return freed


def _remove_empty(cache: Path) -> None:
    """Remove the folders of shelves without segments, except those being written."""
    for shelf in shelves_of(cache):
        if shelf.segments:
            continue
        with contextlib.suppress(Timeout), contextlib.ExitStack() as held:
            for bucket in range(BUCKETS):
                lock = bucket_lock(cache, shelf.kind, shelf.folder.name, bucket)
                held.enter_context(lock.acquire(timeout=0))
            if not any(shelf.folder.glob("*.keys")):
                shutil.rmtree(shelf.folder)
