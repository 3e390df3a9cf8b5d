"""The files of the store: immutable segments of rows, each beside the list of its keys. Free of TensorFlow.

A segment is two files of one stem, ``BUCKET-RANDOM``. ``.npy`` holds the rows. ``.keys`` holds eight hex digits, the
crc32 of all that follows them; a line of JSON (format, dtype, one row's shape, where the rows begin, the seconds that
computing them took); a crc32 for each row; the keys, a line each. ``.keys`` is renamed into place last and removed
first, so a segment counts while its ``.keys`` is there. Its time of change is when the segment was last used.

All that happens to the files of a bucket happens under that bucket's lock. Whoever has a segment mapped holds a shared
lock on its ``.npy``, so that nobody takes it away meanwhile.
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
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cachetools import LRUCache
from filelock import FileLock

FORMAT = 2
"""Counts up when the files change. A shelf's folder ends in it: those of another format are never read, and are the
first to go when room is needed."""
BUCKETS = 16
"""Parts of a shelf, each written by one worker at a time; as ``orchestrator.search.queue.MAX_PREFILL_WORKERS``."""
TOUCH_S = 60.0
"""How often at most a process notes that it uses a segment."""
WITHOUT_RESERVING = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EBADF)
"""What file systems say that cannot give a file its space before it is written."""
KEPT_KEYS = 300_000
"""Maximum rows of which a process remembers the keys, and which it has checked, for the next fit (about 100 bytes
each)."""


def suffix() -> str:
    """How the folder of a shelf of this format ends."""
    return f"-v{FORMAT}"


def bucket_lock(cache: Path, kind: str, folder: str, bucket: int) -> FileLock:
    """The lock under which the files of a bucket change. It lies outside the shelf, so that a shelf can be removed."""
    locks = cache / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / f"{kind}-{folder}-{bucket:02d}.lock")


@dataclass(frozen=True)
class SegmentHeader:
    """What a segment's ``.keys`` says. ``shape`` is one row's; row i of ``.npy`` begins at ``offset`` + i * row_bytes.

    ``checked`` (n,): which rows this process has read and found right. ``seconds``: what computing the rows took.
    """

    names: Path
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
        return self.names.with_suffix(".npy")

    @property
    def bucket(self) -> int:
        return int(self.names.name[:2])

    @functools.cached_property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @functools.cached_property
    def data_bytes(self) -> int:
        return self.offset + len(self.keys) * self.row_bytes


_heads: LRUCache[Path, tuple[tuple[int, ...], SegmentHeader]] = LRUCache(
    KEPT_KEYS,
    # cachetools refuses a value larger than the cache; counted as all of the cache, it is kept alone.
    getsizeof=lambda kept: min(len(kept[1].keys), KEPT_KEYS),
)
_heads_lock = threading.Lock()
"""Several threads may take rows, and an LRU cache changes when it is read."""
_touched: dict[Path, float] = {}


def read_header(names: Path) -> SegmentHeader | None:
    """The head of the segment whose keys are in ``names``; None where a file is missing, cut short or damaged.

    Rows are not read. A head that this process has read before is the same object.
    """
    try:
        about, data = names.stat(), names.with_suffix(".npy").stat()
        identity = (about.st_ino, about.st_size, *_identity(data))
        with _heads_lock:
            kept = _heads.get(names)
        if kept is not None and kept[0] == identity:
            return kept[1]
        head = _parse(names, names.read_bytes(), _identity(data))
    except FileNotFoundError:
        return None
    if head is None or head.data_bytes != data.st_size:
        return None
    with _heads_lock:
        _heads[names] = (identity, head)
    return head


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _parse(names: Path, content: bytes, data_identity: tuple[int, int, int]) -> SegmentHeader | None:
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
        names,
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
    """The crc32 of each row's bytes, uint32 (n,)."""
    if not len(rows):
        return np.zeros(0, np.uint32)
    as_bytes = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    return np.fromiter((zlib.crc32(row.data) for row in as_bytes), np.uint32, len(rows))


class OpenSegment:
    """A mapped segment. While this object lives, nobody removes the segment to make room.

    ``rows`` (n, *shape) is read-only. What is read from it counts as this process's memory until ``release``.
    """

    def __init__(self, head: SegmentHeader, memory: mmap.mmap) -> None:
        self.head, self._memory = head, memory
        flat = np.frombuffer(memory, np.uint8, len(head.keys) * head.row_bytes, head.offset)
        self.rows = flat.view(head.dtype).reshape(len(head.keys), *head.shape)

    @property
    def is_whole(self) -> bool:
        """False where the file was cut short since it was opened: reading past its end would kill the process."""
        return self._memory.size() >= self.head.data_bytes

    def is_on_disk(self) -> bool:
        """Whether it was neither removed nor replaced since."""
        try:
            return self.head.data.stat().st_ino == self.head.data_identity[0]
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the memory of what was read back to the system; the next read finds it in the file."""
        self._memory.madvise(mmap.MADV_DONTNEED)

    def sound(self, begin: int, end: int) -> np.ndarray:
        """Which of the rows from ``begin`` to ``end`` are what was written, bool (end - begin,). Reads them all."""
        if not self.is_whole:
            return np.zeros(end - begin, bool)
        right = checksums_of(self.rows[begin:end]) == self.head.checksums[begin:end]
        self.release()
        return right


def open_segment(head: SegmentHeader, note_use: bool = True) -> OpenSegment | None:
    """The segment mapped, and its use noted; None where it is not there any more, or is another."""
    try:
        file = os.open(head.data, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH)  # waits for one who asks whether it is in use, or removes it: a moment
        if _identity(os.fstat(file)) != head.data_identity:
            return None
        memory = mmap.mmap(file, 0, access=mmap.ACCESS_READ)  # keeps a copy of the descriptor, and so the lock
    finally:
        os.close(file)
    if note_use:
        _note_use(head.names)
    return OpenSegment(head, memory)


def _note_use(names: Path) -> None:
    now = time.monotonic()
    if now - _touched.get(names, -TOUCH_S) < TOUCH_S:
        return
    _touched[names] = now
    # A cache that this user may only read keeps the times of those who may write. Without a note rows only go earlier.
    with contextlib.suppress(OSError):
        os.utime(names)


class SegmentWriter:
    """A segment in the making: ``reserve``, then ``add`` until ``missing`` is 0, then ``finish``; or ``abandon``.

    Written, not mapped: on a full disk a mapped page kills the process, where a write says why.
    """

    def __init__(self, folder: Path, bucket: int, keys: Sequence[str], like: np.ndarray) -> None:
        """``like``: rows of the dtype and shape that all have."""
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
        """Bytes on the disk, the list of keys included; a little more than it takes."""
        about = 256
        return self.bytes + about + sum(len(key.encode()) + 5 for key in self._keys)

    def reserve(self) -> None:
        """Give the file its final size at once, and its space where the file system can, so that others who count what
        is taken and what is free see it."""
        try:
            os.posix_fallocate(self._file.fileno(), 0, self.bytes)
        except OSError as error:
            if error.errno not in WITHOUT_RESERVING:
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
        """The new segment's ``.keys``: from here on it counts."""
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
        names_half = self._folder / f".{self._stem}.keys.half"
        names = self._folder / f"{self._stem}.keys"
        names_half.write_bytes(_checksum_line(rest) + b"\n" + rest)
        os.replace(self._half, names.with_suffix(".npy"))
        os.replace(names_half, names)
        return names

    def abandon(self) -> None:
        """Leave nothing of it behind."""
        with contextlib.suppress(OSError):  # closing writes what is buffered, and the disk may be what is full
            self._file.close()
        for name in (f".{self._stem}.npy.half", f".{self._stem}.keys.half"):
            (self._folder / name).unlink(missing_ok=True)
        if not (self._folder / f"{self._stem}.keys").exists():
            (self._folder / f"{self._stem}.npy").unlink(missing_ok=True)


def remove_segment(names: Path) -> None:
    names.unlink(missing_ok=True)
    names.with_suffix(".npy").unlink(missing_ok=True)


def remove_leftovers(folder: Path, bucket: int) -> int:
    """Remove what nobody reads: files of killed writers, segments that are damaged as a whole. Only under the bucket's
    lock. Gives the bytes."""
    freed = 0
    for half in folder.glob(f".{bucket:02d}-*.half"):
        freed += half.stat().st_size
        half.unlink()
    for file in [*folder.glob(f"{bucket:02d}-*.npy"), *folder.glob(f"{bucket:02d}-*.keys")]:
        if read_header(file.with_suffix(".keys")) is None:
            freed += file.stat().st_size
            file.unlink()
    return freed
