"""Open a file that a person, a table, an archive or a request names: plain files of a bounded size, and nothing else.

A pipe or a device may never end, a sparse file may exceed the memory, and a link may lead to any of them. None of these
is opened, so no call here hangs.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from trainers.errors import TrainerError

LARGEST_FILE = 256 * 10**6
"""Maximum bytes of a photo or a table; a larger file is not read."""
AT_ONCE = 64
"""Maximum photos in one call of a model."""
KINDS = {
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a pipe, not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}
REASONS = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.ELOOP: "it is a link that leads to itself",
    errno.EACCES: "it may not be read (permission denied)",
}


class Unreadable(TrainerError):
    """A file that cannot be read, or decoded. ``reason`` says why, without the file's name and the full stop."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read: {reason}.")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.name, self.reason)


def open_plain(path: str | Path, largest: int | None = LARGEST_FILE) -> BinaryIO:
    """The plain file at ``path``, opened to be read; links are followed. ``largest``: bytes, None for any size.

    Raises Unreadable for everything else. The file is checked before it is opened, because opening a device may have
    side effects, and again afterwards, because it may have been replaced in between.
    """
    try:
        _refuse(path, os.stat(path), largest)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            _refuse(path, os.fstat(descriptor), largest)
        except Unreadable:
            os.close(descriptor)
            raise
        return os.fdopen(descriptor, "rb")
    except OSError as error:
        raise Unreadable(str(path), _reason(error)) from error
    except ValueError as error:
        raise Unreadable(str(path), "no file can have this name") from error


def read_plain(path: str | Path, largest: int | None = LARGEST_FILE) -> bytes:
    """What the plain file at ``path`` holds. Raises Unreadable as ``open_plain`` does, and where reading fails.

    Files of /proc count as empty: their size is 0, and reading some of them waits for ever.
    """
    with open_plain(path, largest) as file:
        try:
            return file.read(os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise Unreadable(str(path), _reason(error)) from error
        except MemoryError as error:
            raise Unreadable(str(path), "there is not enough memory to read it") from error


def _refuse(path: str | Path, status: os.stat_result, largest: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unreadable(str(path), KINDS.get(stat.S_IFMT(status.st_mode), "it is not a plain file"))
    if largest is not None and status.st_size > largest:
        limit = f"{largest / 10**6:,.0f} MB" if largest >= 10**6 else f"{largest:,} bytes"
        raise Unreadable(str(path), f"it holds {status.st_size / 10**6:,.0f} MB, and at most {limit} are read")


def _reason(error: OSError) -> str:
    return REASONS.get(error.errno or 0, error.strerror or str(error))


def batches(files: Iterable[Path], largest: int = LARGEST_FILE) -> Iterator[list[Path]]:
    """Yield ``files`` in order, in batches of at most ``AT_ONCE`` files and ``largest`` bytes, or of one file."""
    batch: list[Path] = []
    total = 0
    for file in files:
        try:
            size = min(file.stat().st_size, largest)
        except OSError:  # reading it will report why
            size = 0
        if batch and (len(batch) == AT_ONCE or total + size > largest):
            yield batch
            batch, total = [], 0
        batch.append(file)
        total += size
    if batch:
        yield batch
