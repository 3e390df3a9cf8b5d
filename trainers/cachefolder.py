"""What lies in the cache folder, how much it may take, and what goes when room is needed. Free of TensorFlow.

Rows of images and features are what comes and goes: least recently used first, never what a process has open. What
else lies there (photos unpacked from archives, built-in sets, calibrations) counts towards the limit and stays until
somebody clears it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from trainers.contract import TrainerError
from trainers.storefiles import (
    BUCKETS,
    bucket_lock,
    open_segment,
    read_head,
    remove_leftovers,
    remove_segment,
    suffix,
)

GB = 10**9
LARGEST_DEFAULT_BYTES = 200 * GB
SPARE_BYTES = 256 * 2**20
"""So much of the disk is left free, whatever the limit says."""
OTHERS = {
    "archives": "photos unpacked from archives",
    "builtin": "built-in data sets",
    "index": "which rows belong to which backbone",
    "calibration": "how fast this machine is at each part of a sweep",
}
"""Folders that hold no rows."""


@dataclass(frozen=True)
class Segment:
    """Some rows of a shelf on the disk. ``used``: seconds since the epoch."""

    names: Path
    bytes: int
    used: float


@dataclass(frozen=True)
class ShelfFolder:
    """Rows of one description. ``stray_bytes``: files in it that are no whole segment, being written or left over."""

    kind: str
    folder: Path
    segments: tuple[Segment, ...]
    stray_bytes: int

    @property
    def bytes(self) -> int:
        return sum(segment.bytes for segment in self.segments) + self.stray_bytes

    @property
    def used(self) -> float:
        """When a row of it was used last; 0 where it holds none."""
        return max((segment.used for segment in self.segments), default=0.0)

    @property
    def is_old(self) -> bool:
        """Written in a format that is not read any more."""
        return not self.folder.name.endswith(suffix())

    def description(self) -> dict[str, Any]:
        """What its rows depend on besides their keys; empty where that cannot be read."""
        try:
            found = json.loads((self.folder / "description.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class ShelfRows:
    """What the segments of a shelf say: ``seconds`` is the workers' time that computing the rows took, ``damaged``
    counts segments of which not even the list of keys is right; they are computed again when they are needed."""

    rows: int
    seconds: float
    damaged: int


@dataclass(frozen=True)
class Other:
    """A folder that holds no rows."""

    name: str
    folder: Path
    bytes: int
    files: int


@dataclass(frozen=True)
class Contents:
    """All that lies in a cache folder. ``limit_bytes``: what it may take; ``limit_is_set``: by ORCH_CACHE_GB."""

    cache: Path
    shelves: tuple[ShelfFolder, ...]
    others: tuple[Other, ...]
    limit_bytes: int
    limit_is_set: bool

    @property
    def bytes(self) -> int:
        return sum(shelf.bytes for shelf in self.shelves) + sum(other.bytes for other in self.others)


@dataclass(frozen=True)
class Removed:
    """What a clean-up did: ``bytes`` it removed; ``in_use_bytes`` it left because a process uses them."""

    bytes: int = 0
    in_use_bytes: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.bytes + other.bytes, self.in_use_bytes + other.in_use_bytes)


def contents(cache: Path) -> Contents:
    """What lies in ``cache``, shelves and others by name. An empty or missing folder holds nothing.

    Raises TrainerError where ORCH_CACHE_GB is no number.
    """
    shelves = tuple(_shelves(cache))
    beside = [_other(folder) for folder in _folders(cache) if not _holds_shelves(folder)]
    others = tuple(other for other in beside if other.files)
    used = sum(shelf.bytes for shelf in shelves) + sum(other.bytes for other in others)
    return Contents(cache, shelves, others, limit(cache, used), asked_limit() is not None)


def rows_of(shelf: ShelfFolder) -> ShelfRows:
    """Reads the list of keys of every segment."""
    heads = [None if shelf.is_old else read_head(segment.names) for segment in shelf.segments]
    whole = [head for head in heads if head is not None]
    damaged = 0 if shelf.is_old else len(heads) - len(whole)
    return ShelfRows(sum(len(head.keys) for head in whole), sum(head.seconds for head in whole), damaged)


def verify(shelf: ShelfFolder) -> int:
    """How many of its rows are not what was written. Reads every byte of them; changes nothing."""
    wrong = 0
    for segment in () if shelf.is_old else shelf.segments:
        head = read_head(segment.names)
        opened = open_segment(head, note_use=False) if head is not None else None
        if head is None or opened is None:
            continue
        step = max(1, 2**24 // max(head.row_bytes, 1))
        count = len(head.keys)
        wrong += sum(int((~opened.sound(start, min(start + step, count))).sum()) for start in range(0, count, step))
    return wrong


def asked_limit() -> int | None:
    """What ORCH_CACHE_GB says, in bytes; None where it is not set. Raises TrainerError."""
    text = os.environ.get("ORCH_CACHE_GB", "").strip()
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise TrainerError(
            f"ORCH_CACHE_GB says how many gigabytes the cache may take, as ORCH_CACHE_GB=50; {text!r} is no such "
            "number."
        )
    return int(size * GB)


def limit(cache: Path, used: int) -> int:
    """What the cache may take in bytes, ``used`` of them taken: ORCH_CACHE_GB, or half of what the disk would have
    free without the cache, 200 GB at most; never more than there is."""
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    asked = asked_limit()
    allowed = min((used + free) // 2, LARGEST_DEFAULT_BYTES) if asked is None else asked
    return max(0, min(allowed, used + free - SPARE_BYTES))


@contextlib.contextmanager
def room(cache: Path, needed: int) -> Iterator[None]:
    """Make room for ``needed`` bytes, and let nobody else count what is taken until the caller has taken them.

    The least recently used rows go first, those of old formats before all, those that a process has open never.
    Raises TrainerError where that is not enough; then nothing is removed.
    """
    (cache / ".locks").mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".locks" / "room.lock"):
        shelves = list(_shelves(cache))
        used = sum(shelf.bytes for shelf in shelves) + _other_bytes(cache)
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
    others = [shelf for shelf in _shelves(cache) if shelf.folder != own]
    beside = _other_bytes(cache)
    taken = sum(shelf.bytes for shelf in others) + beside
    allowed = limit(cache, taken + (_shelf("", own).bytes if own.is_dir() else 0))
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
    removed = Removed(sum(_remove_leftovers(cache, shelf) for shelf in _shelves(cache)))
    shelves = list(_shelves(cache))
    now, left = time.time(), sum(shelf.bytes for shelf in shelves) + _other_bytes(cache)
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
    for shelf in list(_shelves(cache)):
        if shelf.kind in kinds:
            removed += Removed(_remove_leftovers(cache, shelf))
            for segment in shelf.segments:
                removed += _evict(cache, segment)
    for folder in _folders(cache):
        if folder.name in kinds and not _holds_shelves(folder):
            removed += Removed(_other(folder).bytes)
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
    for shelf in _shelves(cache):
        if shelf.segments:
            continue
        with contextlib.suppress(Timeout), contextlib.ExitStack() as held:
            for bucket in range(BUCKETS):
                lock = bucket_lock(cache, shelf.kind, shelf.folder.name, bucket)
                held.enter_context(lock.acquire(timeout=0))
            if not any(shelf.folder.glob("*.keys")):
                shutil.rmtree(shelf.folder)


def _folders(cache: Path) -> list[Path]:
    if not cache.is_dir():
        return []
    return sorted(path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("."))


def _holds_shelves(folder: Path) -> bool:
    if folder.name in OTHERS:
        return False
    return any(entry.is_dir() and _is_shelf(Path(entry.path)) for entry in os.scandir(folder))


def _is_shelf(folder: Path) -> bool:
    return (folder / "description.json").exists() or any(folder.glob("*.keys"))


def _shelves(cache: Path) -> Iterator[ShelfFolder]:
    """Every shelf, by kind and name. Looks at names, sizes and times, and into no file."""
    for kind in _folders(cache):
        if kind.name in OTHERS:
            continue
        for folder in sorted(path for path in kind.iterdir() if path.is_dir()):
            if _is_shelf(folder):
                yield _shelf(kind.name, folder)


def _shelf(kind: str, folder: Path) -> ShelfFolder:
    status: dict[str, os.stat_result] = {}
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # removed since the folder was read
            status[entry.name] = entry.stat()
    segments, stray = [], 0
    for name, about in sorted(status.items()):
        stem, _, ending = name.rpartition(".")
        whole = f"{stem}.npy" in status and f"{stem}.keys" in status
        if whole and ending == "keys":
            segments.append(Segment(folder / name, about.st_size + status[f"{stem}.npy"].st_size, about.st_mtime))
        elif ending == "half" or (ending in ("npy", "keys") and not whole):
            stray += about.st_size
    return ShelfFolder(kind, folder, tuple(segments), stray)


def _other(folder: Path) -> Other:
    files = sizes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes += os.lstat(os.path.join(root, name)).st_size
                files += 1
    return Other(folder.name, folder, sizes, files)


_walked: dict[Path, tuple[int, int]] = {}


def _other_bytes(cache: Path) -> int:
    """What lies there besides rows. A folder is walked again once something was added to it or taken from it."""
    total = 0
    for folder in _folders(cache):
        if _holds_shelves(folder):
            continue
        changed = folder.stat().st_mtime_ns
        if _walked.get(folder, (0, 0))[0] != changed:
            _walked[folder] = (changed, _other(folder).bytes)
        total += _walked[folder][1]
    return total
