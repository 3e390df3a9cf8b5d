"""What goes from the cache folder when room is needed, or when a person asks. Free of TensorFlow.

Rows go: the least recently used first, never what a process has open.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from trainers.cachefolder import (
    GB,
    Segment,
    ShelfFolder,
    asked_limit,
    bytes_beside,
    folders_of,
    holds_shelves,
    limit,
    other_of,
    shelf_of,
    shelves_of,
)
from trainers.contract import TrainerError
from trainers.storefiles import BUCKETS, bucket_lock, remove_leftovers, remove_segment, suffix


@dataclass(frozen=True)
class Removed:
    """What a clean-up did: ``bytes`` it removed; ``in_use_bytes`` it left because a process uses them."""

    bytes: int = 0
    in_use_bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.bytes + other.bytes, self.in_use_bytes + other.in_use_bytes)


@contextlib.contextmanager
def room(cache: Path, needed: int) -> Iterator[None]:
    """Make room for ``needed`` bytes, and let nobody else count what is taken until the caller has taken them.

    The least recently used rows go first, those of old formats before all, those that a process has open never.
    Raises TrainerError where that is not enough; then nothing is removed.
    """
    (cache / ".locks").mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".locks" / "room.lock"):
        shelves = list(shelves_of(cache))
        used = sum(shelf.bytes for shelf in shelves) + bytes_beside(cache)
        excess = used + needed - limit(cache, used)
        if excess > 0:
            chosen = _first_to_go(shelves, excess)
            if chosen is None:
                raise TrainerError(_no_room(cache, used, needed))
            for segment in chosen:
                excess -= _evict(cache, segment).bytes
            if excess > 0:  # another process opened one of them meanwhile
                raise TrainerError(_no_room(cache, used, needed))
        yield


def _first_to_go(shelves: Sequence[ShelfFolder], excess: int) -> list[Segment] | None:
    """The least recently used segments of ``excess`` bytes that nobody has open; None where they are fewer bytes."""
    chosen: list[Segment] = []
    for segment in _by_age(shelves):
        if excess <= 0:
            break
        if not _is_in_use(segment):
            chosen.append(segment)
            excess -= segment.bytes
    return None if excess > 0 else chosen


def _no_room(cache: Path, used: int, needed: int) -> str:
    allowed = limit(cache, used)
    why = "ORCH_CACHE_GB" if asked_limit() is not None else "a share of the disk; ORCH_CACHE_GB sets it"
    return (
        f"the cache {cache} may take {allowed / GB:,.1f} GB ({why}), {used / GB:,.1f} GB are taken, and what is not in "
        f"use is too little to make room for {needed / GB:,.2f} GB more; set ORCH_CACHE_GB to more, free some with "
        "orch cache clear, or set ORCH_CACHE to a folder on another disk."
    )


def has_room_for_set(cache: Path, own: Path, needed: int) -> bool:
    """Whether the shelf at ``own`` could hold ``needed`` bytes in all: what it has, what is free, and what could go."""
    others = [shelf for shelf in shelves_of(cache) if shelf.folder != own]
    beside = bytes_beside(cache)
    taken = sum(shelf.bytes for shelf in others) + beside
    allowed = limit(cache, taken + (shelf_of("", own).bytes if own.is_dir() else 0))
    if taken + needed <= allowed:
        return True
    kept = beside + sum(shelf.stray_bytes for shelf in others)
    for segment in (segment for shelf in others for segment in shelf.segments):
        if kept + needed > allowed:
            return False
        kept += segment.bytes if _is_in_use(segment) else 0
    return kept + needed <= allowed


def prune(cache: Path, to_bytes: int | None = None, older_than_s: float | None = None) -> Removed:
    """Remove what killed writers left, rows of old formats, rows unused for ``older_than_s``, and then the least
    recently used rows until all of the cache takes ``to_bytes``."""
    removed = Removed(sum(_remove_leftovers(cache, shelf) for shelf in shelves_of(cache)))
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

    Photos that a sweep reads from an unpacked archive are not seen to be in use.
    """
    removed = Removed()
    for shelf in list(shelves_of(cache)):
        if shelf.kind in kinds:
            removed += Removed(_remove_leftovers(cache, shelf))
            for segment in shelf.segments:
                removed += _evict(cache, segment)
    for folder in folders_of(cache):
        if folder.name in kinds and not holds_shelves(folder):
            removed += Removed(other_of(folder).bytes)
            shutil.rmtree(folder)
    _remove_empty(cache)
    return removed


def _by_age(shelves: Iterable[ShelfFolder]) -> list[Segment]:
    """Old formats first, then the least recently used."""
    found = [
        (not shelf.is_old, segment.used, str(segment.names), segment) for shelf in shelves for segment in shelf.segments
    ]
    return [segment for *_, segment in sorted(found, key=lambda row: row[:3])]


def _is_in_use(segment: Segment) -> bool:
    """Whether a process has its rows open, or we may not even ask."""
    try:
        file = os.open(segment.names.with_suffix(".npy"), os.O_RDWR)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _evict(cache: Path, segment: Segment) -> Removed:
    """Remove a segment unless a process has it open or writes to its bucket."""
    folder = segment.names.parent
    try:
        with contextlib.ExitStack() as held:
            if folder.name.endswith(suffix()):
                bucket = int(segment.names.name[:2])
                held.enter_context(bucket_lock(cache, folder.parent.name, folder.name, bucket).acquire(timeout=0))
            with contextlib.suppress(FileNotFoundError):
                file = os.open(segment.names.with_suffix(".npy"), os.O_RDWR)
                held.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_segment(segment.names)
    except (Timeout, BlockingIOError, PermissionError):
        return Removed(in_use_bytes=segment.bytes)
    return Removed(segment.bytes)


def _remove_leftovers(cache: Path, shelf: ShelfFolder) -> int:
    freed = 0
    for bucket in range(BUCKETS) if shelf.stray_bytes and not shelf.is_old else ():
        # A bucket that is being written to is left alone: what lies there is no leftover.
        with (
            contextlib.suppress(Timeout),
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
