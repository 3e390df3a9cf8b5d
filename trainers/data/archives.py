"""Unpack zip and tar archives of photos into the cache, once, and again if the cache was lost.

An archive is not trusted: only regular files are written, only below their folder, and only as many as the disk holds.
Permissions, owners and links are ignored.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write_text
from trainers.files.plain import open_plain
from trainers.wording import first_line

FREE_BYTES = 64 * 2**20
"""Bytes of the disk that unpacking leaves free."""
COPY_BYTES = 2**20
SHOWN_CHARACTERS = 60
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError)
"""Errors of the readers on a file that is damaged, truncated or not an archive."""
CLASHES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""Errors of a name that is too long, or that is both a file's and a folder's."""

Member = tuple[str, int, Callable[[], IO[bytes]]]
"""A regular file of an archive: its name, its size in bytes, a function that opens it."""


def unpack(archive: Path, cache: Path) -> Path:
    """Return the folder below ``cache`` with the files of ``archive``, unpacked first if any is missing.

    The folder is keyed by the archive's path, size and modification time: a changed archive gets a new one. Files are
    written to a temporary folder that is then renamed, under a lock between processes. Hidden files are left out.
    Raises TrainerError for an archive that is broken, encrypted, unsafe (a path that leads out, a link, a device) or
    larger than the free disk, and for an unwritable cache.
    """
    with open_plain(archive, largest=None) as file:
        status = os.fstat(file.fileno())
    identity = json.dumps([str(archive.resolve()), status.st_size, status.st_mtime_ns])
    folder = cache.expanduser().resolve() / "archives" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_whole(folder):
                _unpack(archive, folder)
    except OSError as error:
        raise TrainerError(
            f"{archive} cannot be unpacked into the cache {cache} ({error.strerror or error}); free some space there, "
            "or set ORCH_CACHE to another folder."
        ) from error
    return folder


def _list_of(folder: Path) -> Path:
    """Return the path of the list of names and sizes of the files in ``folder``."""
    return folder.with_name(f"{folder.name}.json")


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads(_list_of(folder).read_text())
    except (FileNotFoundError, ValueError):
        return False
    for name, size in files:
        try:
            if (folder / name).stat().st_size != size:
                return False
        except FileNotFoundError:
            return False
    return True


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack into a temporary folder, then rename it; overwrites what a killed process left. Call under the lock."""
    temporary = folder.with_name(f".{folder.name}.half")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with _explained(archive):
            files = _write_all(archive, temporary)
        if not files:
            raise TrainerError(f"the archive {archive} holds no files.")
        if folder.exists():  # damaged: readers keep what they have open, and nothing whole is taken away
            _replace_damaged(temporary, folder, files)
        else:
            os.replace(temporary, folder)
        atomic_write_text(_list_of(folder), json.dumps(sorted(files.items())))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_damaged(temporary: Path, folder: Path, files: dict[str, int]) -> None:
    for name, size in files.items():
        target = folder / name
        if not target.is_file() or target.stat().st_size != size:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary / name, target)


def _write_all(archive: Path, folder: Path) -> dict[str, int]:
    """Write the regular files of ``archive`` below ``folder``; return name -> bytes."""
    free = shutil.disk_usage(folder).free - FREE_BYTES
    read = _zip_members if archive.name.lower().endswith(".zip") else _tar_members
    files: dict[str, int] = {}
    total = 0
    for name, size, opened in read(archive):
        total += size
        if total > free:
            raise TrainerError(
                f"the archive {archive} unpacks to {total / 1e6:,.0f} MB or more, and the cache's disk has "
                f"{max(free, 0) / 1e6:,.0f} MB to spare; free some space there, or set ORCH_CACHE to a folder on "
                "another disk."
            )
        if _is_hidden(name):
            continue
        path = folder / name
        with opened() as source, _created(path, name) as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        if path.stat().st_size != size:
            raise EOFError(f"{name} is cut short")
        files[name] = size
    return files


def _created(path: Path, name: str) -> IO[bytes]:
    """Open ``path`` to write. Raise ValueError if ``name`` is no valid file name here; a full disk stays an OSError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        if error.errno not in CLASHES:
            raise
        shown = name if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]}..."
        raise ValueError(f"{shown!r} cannot be a file's name here ({error.strerror})") from error


def _zip_members(archive: Path) -> Iterator[Member]:
    with open_plain(archive, largest=None) as file, zipfile.ZipFile(file) as opened:
        members = opened.infolist()
        if any(m.flag_bits & 0x1 for m in members):
            raise TrainerError(f"the archive {archive} is encrypted; unpack it yourself and pass the folder.")
        seen: set[str] = set()
        for member in members:
            if member.is_dir():
                continue
            kind, name = stat.S_IFMT(member.external_attr >> 16), str(PurePosixPath(member.filename))
            _refuse_unsafe(archive, name, kind in (0, stat.S_IFREG))
            if name in seen:
                raise zipfile.BadZipFile(f"it holds {name!r} twice")
            seen.add(name)
            yield name, member.file_size, lambda m=member: opened.open(m)  # type: ignore[misc]


def _tar_members(archive: Path) -> Iterator[Member]:
    with open_plain(archive, largest=None) as file, tarfile.open(fileobj=file, mode="r:*") as opened:
        for member in opened:
            name = str(PurePosixPath(member.name))
            if member.size < 0:  # the next member would be looked for before this one, again and again
                raise tarfile.HeaderError(f"{name!r} has a negative size")
            if member.isdir():
                continue
            _refuse_unsafe(archive, name, member.isreg())
            yield name, member.size, lambda m=member: _plain(opened, m)  # type: ignore[misc]


def _plain(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = opened.extractfile(member)
    if file is None:
        raise tarfile.TarError(f"{member.name} is no file")
    return file


def _refuse_unsafe(archive: Path, name: str, is_plain: bool) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise TrainerError(
            f"the archive {archive} holds {name!r}, which would be written outside its folder; nothing is unpacked. Do "
            "not use this archive."
        )
    if not is_plain:
        raise TrainerError(
            f"the archive {archive} holds {name!r}, a link or a device; only plain files are read. Pack it again with "
            "the files themselves (tar --dereference --hard-dereference), or unpack it yourself and pass the folder."
        )


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


@contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Turn a reader's error on a damaged archive into a TrainerError; a full disk stays an OSError."""
    try:
        yield
    except (*BROKEN, NotImplementedError, RuntimeError) as error:
        raise _broken(archive, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _broken(archive, error) from error  # bz2 has no error of its own


def _broken(archive: Path, error: Exception) -> TrainerError:
    reason = first_line(error)
    return TrainerError(f"the archive {archive} cannot be read: {reason}. Is it complete? Fetch or pack it again.")
