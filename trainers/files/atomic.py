"""Write files so that a reader, or a crash, sees the old file or all of the new one. Free of TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from trainers.errors import TrainerError
from trainers.files.lookup import obstacle

TEMPORARY = ".tmp"
"""Ending of a temporary file's name, before the suffix that a format asks for."""
NAME_CHARACTERS = 48
"""Maximum characters of the file's name in that of its temporary one, which must not exceed 255 bytes."""
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)
"""Errors of file systems that cannot sync a folder, or do not let this user read it."""


class NotAFile(TrainerError, OSError):
    """The path to replace is a folder, a device, a pipe or a socket."""


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = True, suffix: str = "") -> Iterator[Path]:
    """Yield a temporary path next to ``path`` to write to; rename it over ``path`` at the end, remove it on an error.

    The temporary name is hidden, differs per process and call, and ends in ``.tmp`` and ``suffix``, for writers that
    look at it. A symbolic link stays, and what it names is replaced. ``durable``: the content is on the disk upon
    return; without it a power cut may leave an empty file, a killed process cannot. Raises NotAFile, and OSError.
    """
    refuse_special(path)
    target = Path(os.path.realpath(path))
    name = f".{target.name[:NAME_CHARACTERS]}.{os.getpid()}-{uuid.uuid4().hex[:8]}{TEMPORARY}{suffix}"
    temporary = target.with_name(name)
    try:
        yield temporary
        if durable:
            _sync(temporary)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        _sync_folder(target.parent)


def atomic_write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by a file of ``content``, as ``atomic_write`` does."""
    with atomic_write(path, durable=durable) as temporary:
        temporary.write_bytes(content)


def atomic_write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace ``path`` by a UTF-8 file of ``text``, as ``atomic_write`` does."""
    atomic_write_bytes(path, text.encode(), durable=durable)


def make_folders(folder: Path) -> None:
    """Create ``folder`` and what is missing above it; their entries are on the disk upon return."""
    missing = [folder, *folder.parents]
    missing = missing[: next((i for i, path in enumerate(missing) if path.exists()), len(missing))]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def refuse_special(path: Path) -> None:
    """Raise NotAFile if ``path`` exists and is no regular file: renaming over ``/dev/null`` would remove the device.

    Also raised if it cannot be looked up, such as in a folder that may not be entered.
    """
    if why := obstacle(path):
        raise NotAFile(f"{path} cannot be written: {why}; name another file.")
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        raise NotAFile(f"{path} is {_kind(mode)}, not a file, and is not replaced; name another file.")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    """Make a renaming in ``folder`` durable, where the file system can."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise
