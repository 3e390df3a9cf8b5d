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
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from filelock import FileLock

from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write_text
from trainers.files.encodings import guess_encoding, is_utf8
from trainers.files.plain import open_plain
from trainers.files.suffixes import is_system
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
UTF8_NAME = 0x800
"""Flag of a zip's member whose name is UTF-8."""
UNICODE_PATH = 0x7075
"""Kind of the extra field of a zip's member that holds its name as UTF-8 (Info-ZIP)."""
WINDOWS = (0, 10, 11, 14)
"""Systems in a zip's member, on which a backslash separates folders: FAT, NTFS (two numbers) and VFAT."""


@dataclass(frozen=True)
class _Names:
    """``of``: name as Python reads it -> right name, where they differ. ``encoding``: what was assumed of names that do
    not say theirs, "" if there are none. ``example``: one of them, decoded."""

    of: Mapping[str, str]
    encoding: str = ""
    example: str = ""


def unpack(archive: Path, cache: Path, encoding: str = "") -> Path:
    """Return the folder below ``cache`` with the files of ``archive``, unpacked first if any is missing.

    The folder is keyed by the archive's path, size and modification time, and by how odd names are read: a changed
    archive gets a new one. Files are written to a temporary folder that is then renamed, under a lock between
    processes. ``encoding``: of a zip's names that neither say theirs nor are UTF-8; "" guesses.
    Raises TrainerError for an archive that is broken, encrypted, unsafe (a path that leads out, a link, a device) or
    larger than the free disk, and for an unwritable cache.
    """
    with open_plain(archive, largest=None) as file:
        status = os.fstat(file.fileno())
    with _explained(archive):
        names = _names(archive, encoding)
    key = [str(archive.resolve()), status.st_size, status.st_mtime_ns]
    identity = json.dumps([*key, names.encoding or "names"] if names.of else key)  # older ones had wrong names
    folder = cache.expanduser().resolve() / "archives" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if not _is_whole(folder):
                _unpack(archive, folder, names.of)
    except OSError as error:
        raise TrainerError(
            f"{archive} cannot be unpacked into the cache {cache} ({error.strerror or error}); free some space there, "
            "or set ORCH_CACHE to another folder."
        ) from error
    return folder


def guessed_names(archive: Path, encoding: str = "") -> list[str]:
    """Return a warning if ``unpack`` guesses the encoding of names of ``archive``; [] if it does not."""
    with _explained(archive):
        names = _names(archive, encoding)
    if names.encoding in ("", "utf-8") or encoding:
        return []
    return [
        f"file names in {archive} do not say their encoding and are read as {names.encoding}, such as {names.example}; "
        "if that is wrong, name the encoding in data.encoding or with --encoding."
    ]


def _names(archive: Path, encoding: str) -> _Names:
    """Find out the names of a zip's members. A tar's are UTF-8, or are left out as such when they are read."""
    if not _is_zip(archive):
        return _Names({})
    with open_plain(archive, largest=None) as file, zipfile.ZipFile(file) as opened:
        members = opened.infolist()
    raw = {m.filename: _raw_name(m) for m in members}
    unmarked = [data for data in raw.values() if isinstance(data, bytes) and not data.isascii()]
    used = (
        ("utf-8" if all(map(is_utf8, unmarked)) else encoding or guess_encoding(unmarked, "cp437")) if unmarked else ""
    )
    names = {}
    for name, data in raw.items():
        try:
            names[name] = data.decode(used or "ascii") if isinstance(data, bytes) else data
        except UnicodeDecodeError as error:
            raise TrainerError(f"file names in {archive} are not {used}: {error.reason} in {data!r}.") from error
    slashes = any("/" in name for name in names.values())
    for member in members:
        if member.create_system in WINDOWS or not slashes:
            names[member.filename] = names[member.filename].replace("\\", "/")
    example = next((names[name] for name, data in raw.items() if isinstance(data, bytes) and not data.isascii()), "")
    return _Names({old: new for old, new in names.items() if old != new}, used, example)


def _raw_name(member: zipfile.ZipInfo) -> bytes | str:
    """The name of a zip's member: bytes if it does not say its encoding."""
    if member.flag_bits & UTF8_NAME:
        return member.filename
    raw = member.orig_filename.encode("cp437")  # as which Python has decoded it
    extra = member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and len(field) > 5 and struct.unpack("<I", field[1:5])[0] == zlib.crc32(raw):
            return field[5:].decode("utf-8", errors="replace").partition("\0")[0]
    return raw.partition(b"\0")[0]


def _is_zip(archive: Path) -> bool:
    return archive.name.lower().endswith(".zip")


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


def _unpack(archive: Path, folder: Path, names: Mapping[str, str]) -> None:
    """Unpack into a temporary folder, then rename it; overwrites what a killed process left. Call under the lock."""
    temporary = folder.with_name(f".{folder.name}.half")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        with _explained(archive):
            files = _write_all(archive, temporary, names)
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


def _write_all(archive: Path, folder: Path, names: Mapping[str, str]) -> dict[str, int]:
    """Write the regular files of ``archive`` below ``folder``; return name -> bytes. ``names``: as in ``_Names``."""
    free = shutil.disk_usage(folder).free - FREE_BYTES
    read = partial(_zip_members, names=names) if _is_zip(archive) else _tar_members
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


def _zip_members(archive: Path, names: Mapping[str, str]) -> Iterator[Member]:
    with open_plain(archive, largest=None) as file, zipfile.ZipFile(file) as opened:
        members = opened.infolist()
        if any(m.flag_bits & 0x1 for m in members):
            raise TrainerError(f"the archive {archive} is encrypted; unpack it yourself and pass the folder.")
        seen: set[str] = set()
        for member in members:
            if member.is_dir() or names.get(member.filename, "").endswith("/"):
                continue
            name = str(PurePosixPath(names.get(member.filename, member.filename)))
            kind = stat.S_IFMT(member.external_attr >> 16)
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
    return any(is_system(part, rubbish=True) for part in PurePosixPath(name).parts)


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
