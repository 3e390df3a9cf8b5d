"""The folders below a root and the names in them, and what about them is not read. Opens no file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainers.data.listing import (
    SourceNotes,
    is_text,
    name_some,
)
from trainers.errors import TrainerError
from trainers.files.suffixes import is_photo, is_system

DEEPEST = 16
"""Maximum depth of folders, which also ends circular links."""
MOST_LOOKED_AT = 2_000
"""Maximum entries of a hidden folder that are looked at to find out whether it holds photos."""


@dataclass(frozen=True)
class Folder:
    """One folder of a tree: ``path`` is posix and relative to the root, "" for the root itself; names are sorted.

    ``closed``: why the folder cannot be listed, "" if it can. ``hidden``: photos and folders of photos in it that are
    not read, because they are hidden or the system's.
    """

    path: str
    images: tuple[str, ...]
    others: tuple[str, ...]
    closed: str = ""
    hidden: tuple[str, ...] = ()

    def paths(self, names: Sequence[str]) -> list[str]:
        """``names`` of files in this folder, relative to the root."""
        return [f"{self.path}/{name}" if self.path else name for name in names]


def walk(root: Path) -> list[Folder]:
    """``root`` and the folders below it, parents first, without hidden ones and what systems leave behind.

    Looks only at names: an entry named like an image may be a pipe, a broken link, or a folder without images.
    A folder below ``root`` that cannot be listed (``lost+found``) is ``closed``. Raises TrainerError if ``root`` is.
    """
    try:
        return _walk(root, "", frozenset())
    except OSError as error:
        raise TrainerError(f"{error.filename or root} cannot be looked into: {error.strerror or error}.") from error


def left_out(tree: Sequence[Folder]) -> list[str]:
    """Sentences about the folders of ``tree`` that cannot be listed, and about hidden photos; [] without any."""
    closed = [folder for folder in tree if folder.closed]
    hidden = [path for folder in tree for path in folder.paths(folder.hidden)]
    sentences = []
    if len(closed) == 1:
        sentences.append(f"the folder {closed[0].path} is left out: it cannot be looked into ({closed[0].closed}).")
    elif closed:
        named = name_some([f"{folder.path} ({folder.closed})" for folder in closed])
        sentences.append(f"{len(closed):,} folders are left out, because they cannot be looked into: {named}.")
    if hidden:
        sentences.append(
            f"hidden or made by the system, so its photos are left out: {name_some(map(shown, hidden))}. Rename it to "
            "use them."
        )
    return sentences


def note_left_out(tree: Sequence[Folder], inner: str, notes: SourceNotes) -> None:
    """Note what ``left_out`` names; ``inner``: the folder of ``tree`` at which the paths of the listing start."""
    notes.warnings += left_out(tree)
    hidden = [path for folder in tree for path in folder.paths(folder.hidden)]
    notes.leave(
        [os.path.relpath(path, inner or ".") for path in hidden], "hidden", "it is hidden or made by the system"
    )
    closed = [folder for folder in tree if folder.closed]
    for folder in closed:
        notes.leave(
            [os.path.relpath(folder.path, inner or ".")], "closed", f"it cannot be looked into: {folder.closed}"
        )


def shown(path: str) -> str:
    """Return ``path`` as it can be printed: quoted and escaped if it is not valid UTF-8."""
    return path if is_text(path) else repr(path)


def note_odd_names(paths: Sequence[str], notes: SourceNotes) -> None:
    """Note images that are left out because their names are not valid UTF-8."""
    notes.warnings.append(f"not read, because the name is not valid UTF-8; rename: {name_some(map(repr, paths))}.")
    notes.leave(paths, "name", "its name is not valid UTF-8")


def _walk(root: Path, path: str, above: frozenset[tuple[int, int]]) -> list[Folder]:
    here = root / path
    status = here.stat()
    place = (status.st_dev, status.st_ino)
    if place in above or len(above) > DEEPEST:
        return []
    with os.scandir(here) as entries:
        sorted_entries = sorted(entries, key=lambda e: e.name)
    files, below, hidden = [], [], []
    for entry in sorted_entries:
        name = entry.name
        if name.startswith(".") or is_system(name):
            if _hides_photos(entry):
                hidden.append(name)
            elif is_system(name) and _is_folder(entry) and not os.access(entry.path, os.R_OK | os.X_OK):
                below += [Folder(f"{path}/{name}" if path else name, (), (), closed="permission denied")]
            continue
        below_path = f"{path}/{name}" if path else name
        inside = _walk_below(root, below_path, above | {place}) if _is_folder(entry) else None
        if inside is None or (is_photo(name) and not any(folder.images for folder in inside)):
            files.append(name)
        else:
            below += inside
    images, others = tuple(filter(is_photo, files)), tuple(f for f in files if not is_photo(f))
    return [Folder(path, images, others, hidden=tuple(hidden)), *below]


def _walk_below(root: Path, path: str, above: frozenset[tuple[int, int]]) -> list[Folder]:
    try:
        return _walk(root, path, above)
    except OSError as error:
        return [Folder(path, (), (), closed=(error.strerror or str(error)).lower())]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder without permission
        return False


def _hides_photos(entry: os.DirEntry[str]) -> bool:
    """Whether a hidden entry is a photo or holds some; not what programs keep there themselves."""
    if is_system(entry.name, rubbish=True):
        return False
    if not _is_folder(entry):
        return is_photo(entry.name)
    looked_at = 0
    for _, folders, names in os.walk(entry.path):
        if any(is_photo(name) for name in names if not name.startswith(".")):
            return True
        looked_at += len(names) + len(folders)
        if looked_at > MOST_LOOKED_AT:
            return False
    return False
