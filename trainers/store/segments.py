"""The files of the store: immutable segments of rows, each with a list of its keys. Imports no TensorFlow.

A segment is two files with the same stem, ``BUCKET-RANDOM``. ``.npy`` holds the rows. ``.keys`` holds the crc32 of
everything after the first line as eight hex digits; a line of JSON (format, dtype, shape of a row, offset of the rows,
seconds spent computing them); a crc32 per row; the keys, one per line. ``.keys`` is renamed into place last and removed
first, so a segment exists if and only if its ``.keys`` does. The mtime of ``.keys`` is when the segment was last used.

The files of a bucket change only under that bucket's lock. A process that has opened a segment holds a shared lock on
its ``.npy``, which protects the segment from eviction.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import math
import mmap
import os
import threading
import time
import uuid
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cachetools import LRUCache
from filelock import FileLock

FORMAT = 2
"""Version of the file format, a suffix of each shelf's folder. Shelves of other versions are never read and are evicted
first."""
BUCKETS = 16
"""Number of buckets per shelf, each written by one worker at a time; equals
``orchestrator.search.next_step.MAX_PREFILL_WORKERS``."""
TOUCH_INTERVAL_S = 60.0
"""Minimum seconds between two updates of a segment's time of last use by one process."""
RESERVE_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EBADF)
"""Error numbers from file systems that do not support preallocation."""
MAX_CACHED_KEYS = 300_000
"""Maximum number of rows whose keys and verified flags a process caches (about 100 bytes each)."""


def suffix() -> str:
    """The suffix of a shelf's folder in the current format."""
    return f"-v{FORMAT}"


def bucket_lock(cache: Path, kind: str, folder: str, bucket: int) -> FileLock:
    """The lock that protects a bucket's files; kept outside the shelf's folder, so that the folder can be removed."""
    locks = cache / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{kind}-{folder}-{bucket:02d}.lock")


@dataclass(frozen=True)
class SegmentHeader:
    """The content of a segment's ``.keys``. ``shape`` is of one row; row i starts at ``offset`` + i * row_bytes.

    ``checked``: bool (n,), the rows that this process has verified. ``seconds``: time spent computing the rows.
    """

    keys_file: Path
    keys: list[str]
    checksums: np.ndarray
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    seconds: float
    data_identity: tuple[int, int, int]
    checked: np.ndarray = field(compare=False, repr=False)

    @property
    def data(self) -> Path:
        return self.keys_file.with_suffix(".npy")

    @property
    def bucket(self) -> int:
        return int(self.keys_file.name[:2])

    @functools.cached_property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @functools.cached_property
    def data_bytes(self) -> int:
        return self.offset + len(self.keys) * self.row_bytes


_headers: LRUCache[Path, tuple[tuple[int, ...], SegmentHeader]] = LRUCache(
    MAX_CACHED_KEYS,
    # cachetools rejects a value larger than the cache, so count such a header as the whole cache.
    getsizeof=lambda kept: min(len(kept[1].keys), MAX_CACHED_KEYS),
)
_headers_lock = threading.Lock()
"""Guards ``_headers``: several threads may read rows, and reading an LRU cache changes it."""
_touched_at: dict[Path, float] = {}


def read_header(keys_file: Path) -> SegmentHeader | None:
    """Read a segment's header; None if one of its files is missing, truncated or damaged.

    Does not read rows. Returns the same object while the header is cached and the files are unchanged.
    """
    try:
        about, data = keys_file.stat(), keys_file.with_suffix(".npy").stat()
        identity = (about.st_ino, about.st_size, *_identity(data))
        with _headers_lock:
            kept = _headers.get(keys_file)
        if kept is not None and kept[0] == identity:
            return kept[1]
        header = _parse(keys_file, keys_file.read_bytes(), _identity(data))
    except FileNotFoundError:
        return None
    if header is None or header.data_bytes != data.st_size:
        return None
    with _headers_lock:
        _headers[keys_file] = (identity, header)
    return header


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _parse(keys_file: Path, content: bytes, data_identity: tuple[int, int, int]) -> SegmentHeader | None:
    checksum, _, rest = content.partition(b"\n")
    if checksum != _checksum_line(rest):
        return None
    line, _, rest = rest.partition(b"\n")
    about = json.loads(line)
    if about["format"] != FORMAT:
        return None
    count = int(about["rows"])
    checksums = np.frombuffer(rest, "<u4", count)
    keys = rest[4 * count :].decode().split("\n")
    return SegmentHeader(
        keys_file,
        keys,
        checksums,
        np.dtype(about["dtype"]),
        tuple(about["shape"]),
        int(about["offset"]),
        float(about["seconds"]),
        data_identity,
        np.zeros(count, bool),
    )


def _checksum_line(rest: bytes) -> bytes:
    return f"{zlib.crc32(rest):08x}".encode()


def checksums_of(rows: np.ndarray) -> np.ndarray:
    """The crc32 of the bytes of each row, uint32 (n,)."""
    if not len(rows):
        return np.zeros(0, np.uint32)
    as_bytes = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    return np.fromiter((zlib.crc32(row.data) for row in as_bytes), np.uint32, len(rows))


class OpenSegment:
    """An open segment, one file descriptor. While this object lives, the segment is not evicted."""

    def __init__(self, header: SegmentHeader, file: int) -> None:
        """``file``: descriptor of the rows' file, which this object closes."""
        self.header, self._file = header, file
        weakref.finalize(self, os.close, file)

    @property
    def rows(self) -> np.ndarray:
        """The rows (n, *shape), read-only, mapped anew.

        Pages read from it count as this process's memory, and the mapping holds another descriptor, until the array and
        its views are gone. The file must be whole.
        """
        memory = mmap.mmap(self._file, self.header.data_bytes, access=mmap.ACCESS_READ)
        flat = np.frombuffer(memory, np.uint8, offset=self.header.offset)
        return flat.view(self.header.dtype).reshape(len(self.header.keys), *self.header.shape)

    @property
    def is_whole(self) -> bool:
        """False if the file was truncated after it was opened: reading past its end would kill the process."""
        return os.fstat(self._file).st_size >= self.header.data_bytes

    def is_on_disk(self) -> bool:
        """Whether the file has been neither removed nor replaced since it was opened."""
        try:
            return self.header.data.stat().st_ino == self.header.data_identity[0]
        except FileNotFoundError:
            return False

    def read(self, row: int, out: np.ndarray) -> bool:
        """Read a row into ``out``, contiguous, without mapping its pages; False if the file ends before it does."""
        place = self.header.offset + row * self.header.row_bytes
        return os.preadv(self._file, [out.reshape(-1).view(np.uint8).data], place) == self.header.row_bytes

    def intact(self, begin: int, end: int) -> np.ndarray:
        """Verify the checksums of ``rows[begin:end]``, bool (end - begin,)."""
        if not self.is_whole:
            return np.zeros(end - begin, bool)
        return checksums_of(self.rows[begin:end]) == self.header.checksums[begin:end]


def open_segment(header: SegmentHeader, touch: bool = True) -> OpenSegment | None:
    """Open a segment and, with ``touch``, record its use. None if it has been removed or replaced."""
    try:
        file = os.open(header.data, os.O_RDONLY)
    except FileNotFoundError:
        return None
    segment = OpenSegment(header, file)
    fcntl.flock(file, fcntl.LOCK_SH)  # waits briefly while another process tests or evicts it
    if _identity(os.fstat(file)) != header.data_identity:
        return None
    if touch:
        _touch(header.keys_file)
    return segment


def _touch(keys_file: Path) -> None:
    now = time.monotonic()
    if now - _touched_at.get(keys_file, -TOUCH_INTERVAL_S) < TOUCH_INTERVAL_S:
        return
    _touched_at[keys_file] = now
    # In a cache that this user cannot write, the times stay those of other users; rows are only evicted earlier.
    with contextlib.suppress(OSError):
        os.utime(keys_file)


class SegmentWriter:
    """Writes a segment: ``reserve``, then ``add`` until ``missing`` is 0, then ``finish``; or ``abandon``.

    Uses writes, not a mapping: on a full disk a write raises an error, while a mapped page kills the process.
    """

    def __init__(self, folder: Path, bucket: int, keys: Sequence[str], like: np.ndarray) -> None:
        """``like``: rows with the dtype and row shape of the segment."""
        self._folder, self._stem, self._keys = folder, f"{bucket:02d}-{uuid.uuid4().hex[:16]}", keys
        self._half = folder / f".{self._stem}.npy.half"
        self._dtype, self._shape = like.dtype, like.shape[1:]
        self._checksums: list[np.ndarray] = []
        self.missing = len(keys)
        self._file = self._half.open("wb")
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (len(keys), *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._offset = self._file.tell()
        self.bytes = self._offset + len(keys) * int(np.prod(self._shape)) * self._dtype.itemsize

    @property
    def needed(self) -> int:
        """Upper bound on the bytes of both files."""
        header_bytes = 256
        return self.bytes + header_bytes + sum(len(key.encode()) + 5 for key in self._keys)

    def reserve(self) -> None:
        """Set the file's final size, preallocated if the file system supports it, so that other processes count it as
        used."""
        try:
            os.posix_fallocate(self._file.fileno(), 0, self.bytes)
        except OSError as error:
            if error.errno not in RESERVE_UNSUPPORTED:
                raise
            self._file.truncate(self.bytes)

    def add(self, rows: np.ndarray) -> None:
        if rows.dtype != self._dtype or rows.shape[1:] != self._shape:
            raise AssertionError(f"rows of {rows.dtype} {rows.shape[1:]} among rows of {self._dtype} {self._shape}")
        rows = np.ascontiguousarray(rows)
        self._checksums.append(checksums_of(rows))
        self._file.write(rows.reshape(-1).view(np.uint8).data)
        self.missing -= len(rows)

    def finish(self, seconds: float) -> Path:
        """Publish the segment and return its ``.keys``."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        about = {
            "format": FORMAT,
            "rows": len(self._keys),
            "dtype": np.lib.format.dtype_to_descr(self._dtype),
            "shape": list(self._shape),
            "offset": self._offset,
            "seconds": round(seconds, 3),
        }
        checksums = np.concatenate(self._checksums).astype("<u4").tobytes()
        rest = json.dumps(about).encode() + b"\n" + checksums + "\n".join(self._keys).encode()
        keys_half = self._folder / f".{self._stem}.keys.half"
        keys_file = self._folder / f"{self._stem}.keys"
        keys_half.write_bytes(_checksum_line(rest) + b"\n" + rest)
        os.replace(self._half, keys_file.with_suffix(".npy"))
        os.replace(keys_half, keys_file)
        return keys_file

    def abandon(self) -> None:
        """Remove the unfinished files."""
        with contextlib.suppress(OSError):  # closing flushes the buffer, and the disk may be full
            self._file.close()
        for name in (f".{self._stem}.npy.half", f".{self._stem}.keys.half"):
            (self._folder / name).unlink(missing_ok=True)
        if not (self._folder / f"{self._stem}.keys").exists():
            (self._folder / f"{self._stem}.npy").unlink(missing_ok=True)


def remove_segment(keys_file: Path) -> None:
    keys_file.unlink(missing_ok=True)
    keys_file.with_suffix(".npy").unlink(missing_ok=True)


def remove_leftovers(folder: Path, bucket: int) -> int:
    """Remove unfinished files and segments with an unreadable header; return the bytes freed. Needs the lock."""
    freed = 0
    for half in folder.glob(f".{bucket:02d}-*.half"):
        freed += half.stat().st_size
        half.unlink()
    for file in [*folder.glob(f"{bucket:02d}-*.npy"), *folder.glob(f"{bucket:02d}-*.keys")]:
        if read_header(file.with_suffix(".keys")) is None:
            freed += file.stat().st_size
            file.unlink()
    return freed
