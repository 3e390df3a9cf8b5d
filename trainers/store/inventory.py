"""Contents and size limit of the cache folder. Read-only; imports no TensorFlow.

Rows of images and features are evicted when room is needed (``trainers.store.eviction``). Everything else (photos
unpacked from archives, built-in sets, calibrations) counts towards the limit and stays until a user clears it.
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
from trainers.files.lookup import obstacle
from trainers.store.segments import open_segment, read_header, suffix
from trainers.wording import GB

MAX_DEFAULT_BYTES = 200 * GB
"""Maximum bytes of the cache if ORCH_CACHE_GB is not set."""
MIN_FREE_BYTES = 256 * 2**20
"""Bytes of the disk that are always left free, whatever the limit."""
OTHER_FOLDERS = {
    "archives": "photos unpacked from archives",
    "builtin": "built-in data sets",
    "index": "which rows belong to which backbone",
    "calibration": "how fast this machine is at each part of a sweep",
}
"""Folder without rows -> what it holds."""


@dataclass(frozen=True)
class StoredSegment:
    """A segment on disk. ``keys_file``: its ``.keys``; ``used``: time of last use in seconds since the epoch."""

    keys_file: Path
    bytes: int
    used: float


@dataclass(frozen=True)
class ShelfFolder:
    """A shelf on disk. ``stray_bytes``: size of files that are not part of a complete segment, either being written or
    left by a killed writer; ``stray_buckets``: the buckets they belong to."""

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
        """Time of last use in seconds since the epoch; 0 if it holds no rows."""
        return max((segment.used for segment in self.segments), default=0.0)

    @property
    def is_old(self) -> bool:
        """Whether it was written in a format that is no longer read."""
        return not self.folder.name.endswith(suffix())

    def description(self) -> dict[str, Any]:
        """What its rows depend on, apart from their keys; {} if unreadable."""
        try:
            found = json.loads((self.folder / "description.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class ShelfRows:
    """Totals over the segments of a shelf. ``seconds``: worker time spent computing the rows; ``damaged``: segments
    with an unreadable header, whose rows are computed again when needed."""

    rows: int
    seconds: float
    damaged: int


@dataclass(frozen=True)
class OtherFolder:
    """A folder that holds no rows."""

    name: str
    folder: Path
    bytes: int
    files: int


@dataclass(frozen=True)
class Contents:
    """Contents of a cache folder. ``limit_bytes``: its maximum size; ``limit_is_set``: whether ORCH_CACHE_GB is set."""

    cache: Path
    shelves: tuple[ShelfFolder, ...]
    others: tuple[OtherFolder, ...]
    limit_bytes: int
    limit_is_set: bool

    @property
    def bytes(self) -> int:
        return sum(shelf.bytes for shelf in self.shelves) + sum(other.bytes for other in self.others)


def contents(cache: Path) -> Contents:
    """List ``cache``, shelves and other folders sorted by name; a missing folder is empty.

    Raises TrainerError if ORCH_CACHE_GB is not a positive number, or if the cache cannot be looked up.
    """
    if why := obstacle(cache):
        raise TrainerError(f"the cache {cache} cannot be read: {why}. Set ORCH_CACHE to another folder.")
    shelves = tuple(shelves_of(cache))
    unshelved = [other_folder(folder) for folder in folders_of(cache) if not holds_shelves(folder)]
    others = tuple(other for other in unshelved if other.files)
    used = sum(shelf.bytes for shelf in shelves) + sum(other.bytes for other in others)
    return Contents(cache, shelves, others, limit(cache, used), configured_limit() is not None)


def rows_of(shelf: ShelfFolder) -> ShelfRows:
    """Count the rows of a shelf from the headers of its segments."""
    headers = [None if shelf.is_old else read_header(segment.keys_file) for segment in shelf.segments]
    readable = [header for header in headers if header is not None]
    damaged = 0 if shelf.is_old else len(headers) - len(readable)
    return ShelfRows(sum(len(header.keys) for header in readable), sum(header.seconds for header in readable), damaged)


def verify(shelf: ShelfFolder) -> int:
    """Count rows whose checksum does not match. Reads every row; changes nothing."""
    damaged = 0
    for segment in () if shelf.is_old else shelf.segments:
        header = read_header(segment.keys_file)
        opened = open_segment(header, touch=False) if header is not None else None
        if header is None or opened is None:
            continue
        step = max(1, 2**24 // max(header.row_bytes, 1))
        count = len(header.keys)
        damaged += sum(int((~opened.intact(start, min(start + step, count))).sum()) for start in range(0, count, step))
    return damaged


def configured_limit() -> int | None:
    """ORCH_CACHE_GB in bytes; None if not set. Raises TrainerError if it is not a positive number."""
    text = os.environ.get("ORCH_CACHE_GB", "").strip()
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < float("inf"):
        raise TrainerError(
            f"ORCH_CACHE_GB={text} is not a positive number. Set it to the maximum size of the cache in gigabytes, "
            "such as ORCH_CACHE_GB=50."
        )
    return int(size * GB)


def limit(cache: Path, used: int) -> int:
    """Maximum bytes of the cache, of which ``used`` are taken: ORCH_CACHE_GB, or half of the space that the disk would
    have free without the cache (at most MAX_DEFAULT_BYTES); never more than the disk can hold."""
    existing = next(folder for folder in (cache, *cache.absolute().parents) if os.path.exists(folder))
    free = shutil.disk_usage(existing).free
    configured = configured_limit()
    allowed = min((used + free) // 2, MAX_DEFAULT_BYTES) if configured is None else configured
    return max(0, min(allowed, used + free - MIN_FREE_BYTES))


def folders_of(cache: Path) -> list[Path]:
    """The visible folders of the cache, one per kind, sorted by name."""
    return [folder for folder in _folders(cache) if not folder.name.startswith(".")]


def holds_shelves(folder: Path) -> bool:
    """Whether a folder of the cache holds shelves."""
    return folder.name not in OTHER_FOLDERS and any(map(_is_shelf, _folders(folder)))


def _is_shelf(folder: Path) -> bool:
    names = [entry.name for entry in _entries(folder)]
    return "description.json" in names or any(name.endswith(".keys") for name in names)


def shelves_of(cache: Path) -> Iterator[ShelfFolder]:
    """Every shelf, sorted by kind and name. Reads file names, sizes and times, no contents."""
    for kind in folders_of(cache):
        if kind.name in OTHER_FOLDERS:
            continue
        for folder in _folders(kind):
            if _is_shelf(folder):
                yield shelf_of(kind.name, folder)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder; [] if it is missing, or another user's and closed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name."""
    return sorted(Path(entry.path) for entry in _entries(folder) if os.path.isdir(entry.path))


def shelf_of(kind: str, folder: Path) -> ShelfFolder:
    """The shelf in ``folder``: its complete segments, and its stray files."""
    status: dict[str, os.stat_result] = {}
    for entry in _entries(folder):
        with contextlib.suppress(OSError):  # removed since the folder was listed, or of another user
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


def other_folder(folder: Path) -> OtherFolder:
    """Size and number of all files below a folder without rows."""
    files = sizes = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                sizes += os.lstat(os.path.join(root, name)).st_size
                files += 1
    return OtherFolder(folder.name, folder, sizes, files)


_other_sizes: dict[Path, tuple[dict[str, int], int]] = {}
"""Folder -> (mtime in ns of it and of each folder below, its bytes)."""


def other_bytes(cache: Path) -> int:
    """Bytes in the cache other than rows. A folder is walked again only if an entry below it was added or removed."""
    total = 0
    for folder in folders_of(cache):
        if holds_shelves(folder):
            continue
        times, _ = _other_sizes.get(folder, ({}, 0))
        if not times or times != {path: _mtime_ns(path) for path in times}:
            times = {
                path: _mtime_ns(path) for path, _, _ in os.walk(folder)
            }  # before the sizes, so no change is missed
            _other_sizes[folder] = (times, other_folder(folder).bytes)
        total += _other_sizes[folder][1]
    return total


def _mtime_ns(path: str) -> int:
    """Mtime of a folder in ns; 0 if it no longer exists."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
