"""Paths that a table gives: as the disk spells them, and what to do about those that lead out of the table's folder."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from trainers.data.listing import SourceNotes, name_some
from trainers.wording import count


def spelled_as_on_disk(table: Path, paths: Sequence[str], notes: SourceNotes) -> list[str]:
    """Return ``paths`` as posix; those that are not there as the one file that differs only in how it is written.

    That is: with the separators of Windows, in upper and lower case, or composed otherwise (NFC and NFD). Absolute
    paths into the table's folder become relative to it.
    """
    folders: dict[Path, dict[str, list[str]]] = {}
    found, respelled = [], []
    for given in paths:
        path = _relative(table.parent, Path(given)).as_posix()
        if not is_there(table.parent / path):
            near = _as_on_disk(table.parent, path.replace("\\", "/"), folders)
            if near and near != path:
                respelled.append(f"{path} (on the disk {near})")
                path = near
        found.append(path)
    if respelled:
        notes.warnings.append(
            f"{count(len(respelled), 'path')} of {table.name} {'is' if len(respelled) == 1 else 'are'} written "
            f"otherwise than the files: {name_some(respelled, 3)}."
        )
    return found


def _relative(folder: Path, path: Path) -> Path:
    """Return an absolute ``path`` into ``folder`` relative to it; any other as it is."""
    for root in (folder, folder.resolve()):
        if path.is_absolute() and path.is_relative_to(root) and ".." not in path.parts:
            return path.relative_to(root)
    return path


def _as_on_disk(folder: Path, path: str, folders: dict[Path, dict[str, list[str]]]) -> str:
    """Return ``path`` in the spelling of the disk below ``folder``; "" where there is not exactly one such file."""
    if is_there(folder / path):
        return Path(path).as_posix()
    parts: list[str] = []
    for part in Path(path).parts:
        here = folder.joinpath(*parts)
        if part == ".." or part == "/":
            return ""
        if here not in folders:
            folders[here] = _names_in(here)
        same = folders[here].get(_key(part), [])
        if len(same) != 1:
            return ""
        parts.append(same[0])
    return "/".join(parts)


def _names_in(folder: Path) -> dict[str, list[str]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_key(name), []).append(name)
    return found


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def reasons_outside(folder: Path, paths: Sequence[str]) -> list[str | None]:
    """For each path, explain what to do if it leads out of the table's ``folder``; None if it does not."""
    outside = [os.path.normpath(path).split("/")[0] == ".." for path in paths]
    holder = _holder(folder, paths) if any(outside) else folder
    reasons: list[str | None] = [None] * len(paths)
    for index, path in enumerate(paths):
        if not outside[index]:
            continue
        advice = "copy the photo into that folder and write the path of the copy"
        if holder != Path(holder.anchor):
            shorter = _below(holder, folder, path)
            advice = f"move the table to {holder} and write its paths relative to {holder}, this one as {shorter}"
        reasons[index] = f"its path leads out of the table's folder; {advice}"
    return reasons


def absolute_sentence(folder: Path, paths: Sequence[str], absolute: Sequence[str]) -> str:
    """Explain what to do about the ``absolute`` ones of ``paths``."""
    holder = _holder(folder, paths)
    advice = f"Write its paths relative to {holder}, the first as {_below(holder, folder, absolute[0])}."
    if holder == Path(holder.anchor):
        advice = f"Copy those photos into {folder} and write the paths of the copies."
    elif holder != folder:
        advice = f"Move the table to {holder} and write{advice.removeprefix('Write')}"
    return f"paths must be relative to the table's folder; not so: {name_some(absolute)}. {advice}"


def _holder(folder: Path, paths: Sequence[str]) -> Path:
    """Return the table's folder if it holds all files, else the innermost folder that does."""
    holder = Path(os.path.commonpath([os.path.dirname(os.path.normpath(folder / path)) for path in paths]))
    return folder if holder.is_relative_to(folder) else holder


def _below(holder: Path, folder: Path, path: str) -> str:
    """Return ``path``, of a table in ``folder``, relative to ``holder``."""
    return os.path.relpath(os.path.normpath(folder / path), holder)


def is_there(path: Path) -> bool:
    """Whether anything is there, also what cannot be read: that is left out later, with its reason."""
    try:
        path.stat()
    except (OSError, ValueError) as error:
        return getattr(error, "errno", errno.ENOENT) not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
    return True
