"""Class folders: a folder that directly holds images is a class, and its label is its path below the root.

So ``photos/cat/1.jpg`` is "cat" and ``photos/recyclable/paper/1.jpg`` is "recyclable/paper". If all top folders are
named as splits (train, val, test ...), they are the data's own splits, and labels begin below them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from trainers.data.listing import Listing, SourceNotes, is_text, listing, name_some
from trainers.errors import TrainerError
from trainers.files.suffixes import is_photo, is_table
from trainers.wording import count

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Name of a top folder, in lower case, to its split."""
DEEPEST = 16
"""Maximum depth of folders, which also ends circular links."""


@dataclass(frozen=True)
class Folder:
    """One folder of a tree: ``path`` is posix and relative to the root, "" for the root itself; names are sorted.

    ``closed``: why the folder cannot be listed, "" if it can.
    """

    path: str
    images: tuple[str, ...]
    others: tuple[str, ...]
    closed: str = ""

    def paths(self, names: Sequence[str]) -> list[str]:
        """``names`` of files in this folder, relative to the root."""
        return [f"{self.path}/{name}" if self.path else name for name in names]


def walk(root: Path) -> list[Folder]:
    """``root`` and the folders below it, parents first, without hidden ones and what archives of a Mac leave behind.

    Looks only at names: an entry named like an image may be a pipe, a broken link, or a folder without images.
    A folder below ``root`` that cannot be listed (``lost+found``) is ``closed``. Raises TrainerError if ``root`` is.
    """
    try:
        return _walk(root, "", frozenset())
    except OSError as error:
        raise TrainerError(f"{error.filename or root} cannot be looked into: {error.strerror or error}.") from error


def read_classes(root: Path, tree: Sequence[Folder]) -> Listing:
    """List the images of the class folders in ``tree`` (``walk(root)``). Raise TrainerError if there are none."""
    notes = SourceNotes()
    holders = [folder for folder in tree if folder.path and folder.images]
    if not holders:
        raise TrainerError(" ".join([_why_empty(root, tree[0]), *map(_capitalized, left_out(tree))]))
    own = split_folders([folder.path for folder in holders])
    if not own:
        _refuse_wrapping(root, holders)
    found = []
    for folder in holders:
        top, _, rest = folder.path.partition("/")
        if own and not rest:
            continue  # images directly in a split's folder are noted below
        label = rest if own else folder.path
        found += [(path, label, own.get(top)) for path in folder.paths(folder.images)]
    _note_odd_ones(tree, holders, own, notes)
    odd = [repr(path) for path, _, _ in found if not is_text(path)]
    if odd:
        notes.warnings.append(f"not read, because the name is not valid UTF-8; rename: {name_some(odd)}.")
        found = [row for row in found if is_text(row[0])]
    return listing(root, pd.DataFrame(found, columns=["path", "label", "split"], dtype=object), notes)


def split_folders(paths: Sequence[str]) -> dict[str, str]:
    """Map top folder to split if ``paths`` have two or more top folders, all named as splits; else {}."""
    tops = {path.partition("/")[0] for path in paths}
    named = {top: SPLIT_NAMES[top.lower()] for top in sorted(tops) if top.lower() in SPLIT_NAMES}
    return named if len(named) == len(tops) >= 2 else {}


def _walk(root: Path, path: str, above: frozenset[tuple[int, int]]) -> list[Folder]:
    here = root / path
    status = here.stat()
    place = (status.st_dev, status.st_ino)
    if place in above or len(above) > DEEPEST:
        return []
    with os.scandir(here) as entries:
        visible = sorted((e for e in entries if not e.name.startswith((".", "__MACOSX"))), key=lambda e: e.name)
    files, below = [], []
    for entry in visible:
        name = entry.name
        below_path = f"{path}/{name}" if path else name
        inside = _walk_below(root, below_path, above | {place}) if _is_folder(entry) else None
        if inside is None or (is_photo(name) and not any(folder.images for folder in inside)):
            files.append(name)
        else:
            below += inside
    return [Folder(path, tuple(filter(is_photo, files)), tuple(f for f in files if not is_photo(f))), *below]


def _walk_below(root: Path, path: str, above: frozenset[tuple[int, int]]) -> list[Folder]:
    try:
        return _walk(root, path, above)
    except OSError as error:
        return [Folder(path, (), (), closed=(error.strerror or str(error)).lower())]


def left_out(tree: Sequence[Folder]) -> list[str]:
    """A sentence about the folders of ``tree`` that cannot be listed; [] if there are none."""
    closed = [folder for folder in tree if folder.closed]
    if not closed:
        return []
    if len(closed) == 1:
        return [f"the folder {closed[0].path} is left out: it cannot be looked into ({closed[0].closed})."]
    named = name_some([f"{folder.path} ({folder.closed})" for folder in closed])
    return [f"{len(closed):,} folders are left out, because they cannot be looked into: {named}."]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder without permission
        return False


def _note_odd_ones(tree: Sequence[Folder], holders: Sequence[Folder], own: dict[str, str], notes: SourceNotes) -> None:
    """Note files that are not read and folders that look like mistakes."""
    paths = [folder.path for folder in holders]
    if own:
        direct = [path for path in paths if path in own]
        notes.problems += [
            f"the folder {path} is named as a split but holds images directly; put them into class folders inside it."
            for path in direct
        ]
    else:
        for path in paths:
            inside = [other for other in paths if other.startswith(f"{path}/")]
            if inside:
                notes.warnings.append(
                    f"the folder {path} holds images and class folders; its own images are the class {path!r}, "
                    f"next to {name_some(map(repr, inside))}."
                )
        below = sorted({part for path in paths for part in path.split("/")[1:] if part.lower() in SPLIT_NAMES})
        if len(below) > 1:
            notes.warnings.append(
                f"folders named as splits ({', '.join(below)}) lie inside others and are part of the class names; "
                "splits must be the top folders."
            )
    others = [path for folder in holders for path in folder.paths(folder.others)]
    if others:
        notes.warnings.append(
            f"{count(len(others), 'file')} without an image's suffix will not be read: {name_some(others)}."
        )
    notes.warnings += left_out(tree)
    hollow = _hollow([folder.path for folder in tree if folder.path and not folder.closed], paths)
    if hollow:
        notes.warnings.append(
            f"the folder {hollow[0]} holds no image and is no class."
            if len(hollow) == 1
            else f"{len(hollow):,} folders hold no image and are no classes: {name_some(hollow)}."
        )
    if tree[0].images:
        notes.warnings.append(
            f"{count(len(tree[0].images), 'image')} next to the class folders will not be read: "
            f"{name_some(tree[0].images)}."
        )


def _capitalized(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _hollow(folders: Sequence[str], holders: Sequence[str]) -> list[str]:
    """Return the topmost of the folders without any image in or below them."""
    full = {"/".join(path.split("/")[: i + 1]) for path in holders for i in range(path.count("/") + 1)}
    return [path for path in folders if path not in full and (path.rpartition("/")[0] or path) in {*full, path}]


def _refuse_wrapping(root: Path, holders: Sequence[Folder]) -> None:
    """Raise TrainerError if one folder holds all classes: it would prefix every label."""
    common = os.path.commonpath([folder.path.rpartition("/")[0] for folder in holders])
    if common:
        raise TrainerError(f"the class folders lie deeper than {root}; pass {root / common} instead.")


def _why_empty(root: Path, here: Folder) -> str:
    """Return the message for a folder that has no class folders with images."""
    if here.images:
        return (
            f"{root} holds {count(len(here.images), 'image')} but no class folders. Sort them into one folder per "
            "class, put a text with the class's number next to each (img_1.txt holding: img_1.jpg, 0), or give a table "
            f"with the columns path and label; if {root.name} is itself one class, pass {root.parent}."
        )
    tables = [name for name in here.others if is_table(name)]
    if tables:
        return f"{root} holds no class folders with images; to use the table in it, pass {root / tables[0]}."
    return f"{root} holds no images. Put one folder per class into it, with the images of that class inside."
