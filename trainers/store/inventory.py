"""What lies in the cache folder, and how much it may take. Free of TensorFlow; changes nothing.

Rows of images and features are what comes and goes (``trainers.store.eviction``). What else lies there (photos
unpacked from archives, built-in sets, calibrations) counts towards the limit and stays until somebody clears it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainers.errors import TrainerError
from trainers.store.segments import open_segment, read_header, suffix

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
class StoredSegment:
    """Some rows of a shelf on the disk. ``used``: seconds since the epoch."""

    names: Path
    bytes: int
    used: float


@dataclass(frozen=True)
class ShelfFolder:
    """Rows of one description. ``stray_bytes``: files in it that are no whole segment, being written or left over;
    ``stray_buckets``: whose they are."""

    kind: str
    folder: Path
    segments: tuple[StoredSegment, ...]
    stray_bytes: int
    stray_buckets: frozenset[int] = frozenset()

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


def contents(cache: Path) -> Contents:
    """What lies in ``cache``, shelves and others by name. An empty or missing folder holds nothing.

    Raises TrainerError where ORCH_CACHE_GB is no number.
    """
    shelves = tuple(shelves_of(cache))
    beside = [other_of(folder) for folder in folders_of(cache) if not holds_shelves(folder)]
    others = tuple(other for other in beside if other.files)
    used = sum(shelf.bytes for shelf in shelves) + sum(other.bytes for other in others)
    return Contents(cache, shelves, others, limit(cache, used), asked_limit() is not None)


def rows_of(shelf: ShelfFolder) -> ShelfRows:
    """Reads the list of keys of every segment."""
    heads = [None if shelf.is_old else read_header(segment.names) for segment in shelf.segments]
    whole = [head for head in heads if head is not None]
    damaged = 0 if shelf.is_old else len(heads) - len(whole)
    return ShelfRows(sum(len(head.keys) for head in whole), sum(head.seconds for head in whole), damaged)


def verify(shelf: ShelfFolder) -> int:
    """How many of its rows are not what was written. Reads every byte of them; changes nothing."""
    wrong = 0
    for segment in () if shelf.is_old else shelf.segments:
        head = read_header(segment.names)
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


def folders_of(cache: Path) -> list[Path]:
    """One for each kind, and what else lies there, by name."""
    if not cache.is_dir():
        return []
    return sorted(path for path in cache.iterdir() if path.is_dir() and not path.name.startswith("."))


def holds_shelves(folder: Path) -> bool:
    """Whether rows lie in a folder of the cache."""
    if folder.name in OTHERS:
        return False
    return any(entry.is_dir() and _is_shelf(Path(entry.path)) for entry in os.scandir(folder))


def _is_shelf(folder: Path) -> bool:
    return (folder / "description.json").exists() or any(folder.glob("*.keys"))


def shelves_of(cache: Path) -> Iterator[ShelfFolder]:
    """Every shelf, by kind and name. Looks at names, sizes and times, and into no file."""
    for kind in folders_of(cache):
        if kind.name in OTHERS:
            continue
        for folder in sorted(path for path in kind.iterdir() if path.is_dir()):
            if _is_shelf(folder):
                yield shelf_of(kind.name, folder)


def shelf_of(kind: str, folder: Path) -> ShelfFolder:
    """The shelf in ``folder``, as far as its files are whole."""
    status: dict[str, os.stat_result] = {}
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # removed since the folder was read
            status[entry.name] = entry.stat()
    segments, stray, buckets = [], 0, set()
    for name, about in sorted(status.items()):
        stem, _, ending = name.rpartition(".")
        whole = f"{stem}.npy" in status and f"{stem}.keys" in status
        if whole and ending == "keys":
            segments.append(StoredSegment(folder / name, about.st_size + status[f"{stem}.npy"].st_size, about.st_mtime))
        elif ending == "half" or (ending in ("npy", "keys") and not whole):
            stray += about.st_size
            bucket = name.lstrip(".")[:2]
            buckets.update([int(bucket)] if bucket.isdecimal() else [])
    return ShelfFolder(kind, folder, tuple(segments), stray, frozenset(buckets))


def other_of(folder: Path) -> Other:
    """A folder without rows, every file below it counted."""
    files = sizes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes += os.lstat(os.path.join(root, name)).st_size
                files += 1
    return Other(folder.name, folder, sizes, files)


_walked: dict[Path, tuple[dict[str, int], int]] = {}
"""Folder -> when it and each folder below it changed, and its bytes."""


def bytes_beside(cache: Path) -> int:
    """What lies there besides rows. A folder is walked again once something was added or taken anywhere below it."""
    total = 0
    for folder in folders_of(cache):
        if holds_shelves(folder):
            continue
        times, _ = _walked.get(folder, ({}, 0))
        if not times or times != {path: _changed(path) for path in times}:
            times = {path: _changed(path) for path, _, _ in os.walk(folder)}  # before the sizes, so no change is missed
            _walked[folder] = (times, other_of(folder).bytes)
        total += _walked[folder][1]
    return total


def _changed(path: str) -> int:
    """When a folder changed, in ns; 0 where it is not there any more."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
