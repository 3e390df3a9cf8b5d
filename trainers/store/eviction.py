"""What goes from the cache folder when room is needed, or when a person asks. Free of TensorFlow.

Rows go: the least recently used first, never what a process has open.
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
    GB,
    ShelfFolder,
    StoredSegment,
    asked_limit,
    bytes_beside,
    folders_of,
    holds_shelves,
    limit,
    other_of,
    shelves_of,
)
from trainers.store.segments import BUCKETS, bucket_lock, read_header, remove_leftovers, remove_segment, suffix


class NoRoom(TrainerError):
    """Rows cannot be kept: the limit of the cache or the disk leaves no room. They can be computed whenever read."""


@dataclass(frozen=True)
class Removed:
    """What a clean-up did: ``bytes`` it removed; ``in_use_bytes`` it left because a process uses them."""

    bytes: int = 0
    in_use_bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.bytes + other.bytes, self.in_use_bytes + other.in_use_bytes)


@contextlib.contextmanager
def room(cache: Path, needed: int, holds: tuple[Path, int] | None = None) -> Iterator[None]:
    """Make room for ``needed`` bytes, and let nobody else count what is taken until the caller has taken them.

    What killed writers left goes first, then the least recently used rows, those of old formats before all; rows that
    a process has open and buckets that another writes to never. ``holds``: the shelf's folder and the bucket whose lock
    the caller has; rows may go there too.
    Raises NoRoom where that is not enough. No row goes where what nobody has open is too little to begin with.
    """
    with _alone(cache):
        shelves, used = _taken(cache)
        excess = used + needed - limit(cache, used)
        if excess > 0 and _remove_leftovers(cache, shelves):
            shelves, used = _taken(cache)
            excess = used + needed - limit(cache, used)
        if excess > 0 and not _remove_oldest(cache, shelves, excess, holds):
            raise NoRoom(_no_room(cache, used, needed))
        yield


@contextlib.contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """One process at a time: who asks whether rows are in use locks them for a moment, and others would take that for
    a use."""
    (cache / ".locks").mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".locks" / "room.lock"):
        yield


def _taken(cache: Path) -> tuple[list[ShelfFolder], int]:
    """The shelves, and the bytes of all that lies in the cache."""
    shelves = list(shelves_of(cache))
    return shelves, sum(shelf.bytes for shelf in shelves) + bytes_beside(cache)


def _remove_oldest(cache: Path, shelves: Sequence[ShelfFolder], excess: int, holds: tuple[Path, int] | None) -> bool:
    """Remove the least recently used rows until ``excess`` bytes are gone; whether they are."""
    segments, staying = _by_age(shelves), excess
    for segment in segments:
        if staying <= 0:
            break
        staying -= 0 if _is_in_use(segment) else segment.bytes
    if staying > 0:
        return False
    for segment in segments:
        if excess <= 0:
            break
        excess -= _evict(cache, segment, holds).bytes  # 0 where it cannot go after all: the next one may
    return excess <= 0


def _no_room(cache: Path, used: int, needed: int) -> str:
    allowed = limit(cache, used)
    why = "ORCH_CACHE_GB" if asked_limit() is not None else "a share of the disk; ORCH_CACHE_GB sets it"
    return (
        f"the cache {cache} may take {allowed / GB:,.1f} GB ({why}), {used / GB:,.1f} GB are taken, and what is not in "
        f"use is too little to make room for {needed / GB:,.2f} GB more; set ORCH_CACHE_GB to more, free some with "
        "orch cache clear, or set ORCH_CACHE to a folder on another disk."
    )


def has_room_for_set(cache: Path, own: Path, keys: Set[str], bytes_each: int) -> bool:
    """Whether the shelf at ``own`` could hold the rows of ``keys`` in all: what it has, what is free, what could go.

    Where nothing is free what killed writers left goes at once; no row does.
    """
    needed = len(keys) * bytes_each
    shelves, used = _taken(cache)
    allowed = limit(cache, used)
    if used + needed <= allowed:
        return True
    if needed > allowed:
        return False
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # of a cache that may only be read nothing can go, whoever asks
            held.enter_context(_alone(cache))
        if _remove_leftovers(cache, shelves):
            shelves = list(shelves_of(cache))
        kept = needed + bytes_beside(cache) + sum(shelf.stray_bytes for shelf in shelves if shelf.folder != own)
        for shelf in shelves:
            for segment in shelf.segments:
                if kept > allowed:
                    return False
                kept += _staying(segment, keys if shelf.folder == own else frozenset())
        return kept <= allowed


def _staying(segment: StoredSegment, keys: Set[str]) -> int:
    """How many bytes of it cannot go, the rows of ``keys`` not counted: all where a process has it open. Whoever reads
    a row of ``keys`` has its segment open, so what lies beside that row stays too."""
    head = read_header(segment.names) if keys else None
    others = sum(key not in keys for key in head.keys) if head is not None else 0
    if head is not None and others < len(head.keys):
        return others * head.row_bytes
    return segment.bytes if _is_in_use(segment) else 0


def prune(cache: Path, to_bytes: int | None = None, older_than_s: float | None = None) -> Removed:
    """Remove what killed writers left, rows of old formats, rows unused for ``older_than_s``, and then the least
    recently used rows until all of the cache takes ``to_bytes``."""
    removed = Removed(_remove_leftovers(cache, shelves_of(cache)))
    shelves = list(shelves_of(cache))
    now, left = time.time(), sum(shelf.bytes for shelf in shelves) + bytes_beside(cache)
    old = {segment.names for shelf in shelves if shelf.is_old for segment in shelf.segments}
    for segment in _by_age(shelves):
        unused = older_than_s is not None and now - segment.used > older_than_s
        if segment.names in old or unused or (to_bytes is not None and left > to_bytes):
            done = _evict(cache, segment)
            removed += done
            left -= done.bytes
    _remove_empty(cache)
    return removed


def clear(cache: Path, kinds: Sequence[str]) -> Removed:
    """Remove everything of these kinds (names of folders in the cache) that no process has open.

    A folder in which a shelf begins is left to its writer. Photos that a sweep reads from an unpacked archive are not
    seen to be in use.
    """
    removed = Removed()
    for shelf in list(shelves_of(cache)):
        if shelf.kind in kinds:
            removed += Removed(_remove_leftovers(cache, [shelf]))
            for segment in shelf.segments:
                removed += _evict(cache, segment)
    for folder in folders_of(cache):
        if folder.name in kinds and not holds_shelves(folder) and not any(folder.glob(f"*{suffix()}")):
            removed += Removed(other_of(folder).bytes)
            shutil.rmtree(folder)
    _remove_empty(cache)
    return removed


def _by_age(shelves: Iterable[ShelfFolder]) -> list[StoredSegment]:
    """Old formats first, then the least recently used."""
    found = [
        (not shelf.is_old, segment.used, str(segment.names), segment) for shelf in shelves for segment in shelf.segments
    ]
    return [segment for *_, segment in sorted(found, key=lambda row: row[:3])]


def _is_in_use(segment: StoredSegment) -> bool:
    """Whether a process has its rows open, or we may not even ask."""
    try:
        file = os.open(segment.names.with_suffix(".npy"), os.O_RDWR)
    except FileNotFoundError:
        return False
    except OSError:  # another user's, or on a disk that may only be read
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def _evict(cache: Path, segment: StoredSegment, holds: tuple[Path, int] | None = None) -> Removed:
    """Remove a segment unless a process has it open, or another writes to its bucket. ``holds`` as in ``room``."""
    folder = segment.names.parent
    try:
        with contextlib.ExitStack() as held:
            bucket = int(segment.names.name[:2]) if folder.name.endswith(suffix()) else None
            if bucket is not None and (folder, bucket) != holds:
                held.enter_context(bucket_lock(cache, folder.parent.name, folder.name, bucket).acquire(timeout=0))
            with contextlib.suppress(FileNotFoundError):
                file = os.open(segment.names.with_suffix(".npy"), os.O_RDWR)
                held.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_segment(segment.names)
    except OSError:  # a bucket's Timeout and a segment's BlockingIOError among them
        return Removed(in_use_bytes=segment.bytes)
    return Removed(segment.bytes)


def _remove_leftovers(cache: Path, shelves: Iterable[ShelfFolder]) -> int:
    """Remove what killed writers left, as far as we may. Gives the bytes."""
    freed = 0
    strays = [(shelf, bucket) for shelf in shelves if not shelf.is_old for bucket in sorted(shelf.stray_buckets)]
    for shelf, bucket in strays:
        # A bucket that is being written to (Timeout) is left alone: what lies there is no leftover.
        with (
            contextlib.suppress(OSError),
            bucket_lock(cache, shelf.kind, shelf.folder.name, bucket).acquire(timeout=0),
        ):
            freed += remove_leftovers(shelf.folder, bucket)
    return freed


def _remove_empty(cache: Path) -> None:
    """Remove the folders of shelves without a segment; whoever writes to one at this moment keeps it."""
    for shelf in shelves_of(cache):
        if shelf.segments:
            continue
        with contextlib.suppress(Timeout), contextlib.ExitStack() as held:
            for bucket in range(BUCKETS):
                lock = bucket_lock(cache, shelf.kind, shelf.folder.name, bucket)
                held.enter_context(lock.acquire(timeout=0))
            if not any(shelf.folder.glob("*.keys")):
                shutil.rmtree(shelf.folder)
