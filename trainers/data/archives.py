"""Zip and tar archives of photos: unpacked once into the cache, and again where the cache was lost.

An archive may come from anywhere, so only plain files are written, each below its folder, and no more of them than the
disk holds. Permissions, owners and links of the archive play no part.
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

FREE_BYTES = 64 * 2**20
"""So much of the disk is left free."""
COPY_BYTES = 2**20
SHOWN_CHARACTERS = 60
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError)
"""What the readers raise on an archive that is damaged, cut short or none at all."""
CLASHES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
"""What the system says of a name that is too long, and of one that is a file's and a folder's."""

Member = tuple[str, int, Callable[[], IO[bytes]]]
"""A plain file of an archive: name, bytes, how to open it."""


def unpack(archive: Path, cache: Path) -> Path:
    """The folder below ``cache`` with the files of ``archive``; what is missing there is unpacked first.

    The folder belongs to the archive's path, size and time of change: a changed archive gets a new one. Written beside
    and then renamed, safe against another process that does the same. Hidden files are left out.
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
                _unpack_beside(archive, folder)
    except OSError as error:
        raise TrainerError(
            f"{archive} cannot be unpacked into the cache {cache} ({error.strerror or error}); free some space there, "
            "or set ORCH_CACHE to another folder."
        ) from error
    return folder


def _list_of(folder: Path) -> Path:
    """Where the names and sizes of the files in ``folder`` are kept."""
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


def _unpack_beside(archive: Path, folder: Path) -> None:
    """Only under the folder's lock: what a killed process left half done is written over."""
    beside = folder.with_name(f".{folder.name}.half")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        with _explained(archive):
            files = _write_all(archive, beside)
        if not files:
            raise TrainerError(f"the archive {archive} holds no files.")
        if folder.exists():  # damaged: readers keep what they have open, and nothing whole is taken away
            _mend(beside, folder, files)
        else:
            os.replace(beside, folder)
        atomic_write_text(_list_of(folder), json.dumps(sorted(files.items())))
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _mend(beside: Path, folder: Path, files: dict[str, int]) -> None:
    for name, size in files.items():
        target = folder / name
        if not target.is_file() or target.stat().st_size != size:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(beside / name, target)


def _write_all(archive: Path, folder: Path) -> dict[str, int]:
    """Writes the plain files of ``archive`` below ``folder``: name -> bytes."""
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
    """Raises ValueError where the member's ``name`` cannot be a file's here; what the disk lacks stays an OSError."""
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
    """Turns what the readers raise on a damaged archive into a sentence; a full disk stays an OSError."""
    try:
        yield
    except (*BROKEN, NotImplementedError, RuntimeError) as error:
        raise _broken(archive, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _broken(archive, error) from error  # bz2 has no error of its own


def _broken(archive: Path, error: Exception) -> TrainerError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return TrainerError(f"the archive {archive} cannot be read: {reason}. Is it complete? Fetch or pack it again.")
