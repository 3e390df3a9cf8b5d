"""Class folders: a folder that directly holds images is a class, and its label is its path below the root.

So ``photos/cat/1.jpg`` is "cat" and ``photos/recyclable/paper/1.jpg`` is "recyclable/paper". Folders that only wrap all
class folders are no part of the labels. If all top folders are named as splits (train, val, test ...), they are the
data's own splits, and labels begin below them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import pandas as pd

from trainers.data.listing import (
    Listing,
    SourceNotes,
    is_split,
    is_text,
    label_of,
    like_split,
    listing,
    name_some,
    split_of,
)
from trainers.errors import TrainerError
from trainers.files.suffixes import is_archive, is_photo, is_system, is_table
from trainers.wording import count

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


def read_classes(root: Path, tree: Sequence[Folder], packed: bool = False) -> Listing:
    """List the images of the class folders in ``tree`` (``walk(root)``), below the folders that only wrap them.

    ``packed``: whether ``root`` is an unpacked archive, where no advice may name another folder. Raises TrainerError
    if there are no class folders.
    """
    notes = SourceNotes()
    if not any(folder.path and folder.images for folder in tree):
        raise TrainerError(" ".join([_why_empty(root, tree, packed), *map(_capitalized, left_out(tree))]))
    inner = wrapping(tree)
    loose, whole = tree[0].images, tree
    if inner:
        tree = [replace(f, path=f.path[len(inner) + 1 :]) for f in tree if f"{f.path}/".startswith(f"{inner}/")]
        notes.warnings += _about_wrapping(inner)
    holders = [folder for folder in tree if folder.path and folder.images]
    own = split_folders([folder.path for folder in holders])
    found = []
    for folder in holders:
        top, _, rest = folder.path.partition("/")
        if own and not rest:
            continue  # images directly in a split's folder are noted below
        label = rest if own else folder.path
        found += [(path, label, own.get(top)) for path in folder.paths(folder.images)]
    _note_splits([folder.path for folder in holders], own, notes)
    _note_odd_ones(tree, holders, bool(own), notes)
    note_left_out(whole, inner, notes)
    _note_loose(loose, inner, notes)
    odd = [path for path, _, _ in found if not is_text(path)]
    if odd:
        note_odd_names(odd, notes)
        found = [row for row in found if is_text(row[0])]
    rows = pd.DataFrame(found, columns=["path", "label", "split"], dtype=object)
    return listing(root / inner if inner else root, rows, notes)


def wrapping(tree: Sequence[Folder]) -> str:
    """Return the path of the deepest folder that holds all class folders of ``tree``; "" for the root."""
    above = [folder.path.rpartition("/")[0] for folder in tree if folder.path and folder.images]
    return os.path.commonpath(above) if above else ""


def split_folders(paths: Sequence[str]) -> dict[str, str]:
    """Map top folder to split if ``paths`` have two or more top folders, all named as splits; else {}."""
    tops = {path.partition("/")[0] for path in paths}
    named = {top: split_of(top) for top in sorted(tops) if is_split(top)}
    return named if len(named) == len(tops) >= 2 else {}


def splits_next_to_others(paths: Sequence[str]) -> list[str]:
    """Return a problem if top folders of ``paths`` are named as two or more splits and others are not; else []."""
    tops = sorted({path.partition("/")[0] for path in paths})
    splits, others = [top for top in tops if is_split(top)], [top for top in tops if not is_split(top)]
    if not others or len(set(map(split_of, splits))) < 2:
        return []
    return [
        f"the folders {_and(splits)} look like splits, but {name_some(others)} next to them {_is(others)} none. "
        f"Move {name_some(others)} elsewhere or into one of them; or, if they are no splits, rename them."
    ]


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


def _about_wrapping(inner: str) -> list[str]:
    """Warn where wrapping folders that are no part of the labels could mean something; [] for a plain wrapping."""
    if like_split(inner.rpartition("/")[2]):
        return [f"the only split is {inner}; it is not used, and all of its images are divided."]
    return []


def _note_splits(paths: Sequence[str], own: dict[str, str], notes: SourceNotes) -> None:
    """Note folders that look like splits and are none; a problem where the classes would be wrong for certain."""
    tops = sorted({path.partition("/")[0] for path in paths})
    alike = {top: like_split(top) for top in tops if like_split(top)}
    if own:
        notes.problems += [
            f"the folder {path} is named as a split but holds images directly; put them into class folders inside it."
            for path in paths
            if path in own
        ]
        return
    below = {top: {label_of(p.partition("/")[2]) for p in paths if p.startswith(f"{top}/")} for top in alike}
    with_classes = [top for top in alike if below[top]]
    others = [top for top in tops if top not in alike]
    pairs = [pair for pair in combinations(with_classes, 2) if alike[pair[0]] != alike[pair[1]]]
    if any((is_split(a) and is_split(b)) or below[a] & below[b] for a, b in pairs):
        todo = "Name them train, validation and test; or, if they are classes, rename them."
        if others:
            todo = f"Move {name_some(others)} elsewhere or into one of them; or, if they are classes, rename them."
        notes.problems.append(
            f"the folders {_and(with_classes)} look like splits"
            f"{f', but {name_some(others)} next to them {_is(others)} none' if others else ''}. {todo}"
        )
    elif single := [top for top in with_classes if is_split(top)]:
        example = f"{single[0]}/{min(below[single[0]])}"
        notes.warnings.append(
            f"the folder {single[0]} is named as a split, but there is no other; it is a part of the class names, as "
            f"in {example!r}."
        )
    elif len(set(map(split_of, filter(is_split, tops)))) > 1:
        named = _and([*filter(is_split, tops)])
        notes.warnings.append(f"the folders {named} are named as splits but hold images directly, so they are classes.")
    _note_splits_below(paths, notes)


def _note_splits_below(paths: Sequence[str], notes: SourceNotes) -> None:
    """Note folders below others that are named as splits; a problem if each class folder is one."""
    below = sorted({part for path in paths for part in path.split("/")[1:] if is_split(part)})
    if len({split_of(part) for part in below}) < 2:
        return
    if all(is_split(path.rpartition("/")[2]) for path in paths):
        first = paths[0].rpartition("/")
        notes.problems.append(
            f"each class folder is divided into splits ({', '.join(below)}), as in {paths[0]}; splits must be the top "
            f"folders, as in {first[2]}/{first[0]}."
        )
    else:
        notes.warnings.append(
            f"folders named as splits ({', '.join(below)}) lie inside others and are part of the class names; "
            "splits must be the top folders."
        )


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _note_odd_ones(tree: Sequence[Folder], holders: Sequence[Folder], own: bool, notes: SourceNotes) -> None:
    """Note files that are not read and folders that look like mistakes."""
    paths = [folder.path for folder in holders]
    for path in () if own else paths:
        inside = [other for other in paths if other.startswith(f"{path}/")]
        if inside:
            notes.warnings.append(
                f"the folder {path} holds images and class folders; its own images are the class {path!r}, "
                f"next to {name_some(map(repr, inside))}."
            )
    others = [path for f in holders for path in f.paths(f.others) if not is_table(path) and not is_archive(path)]
    if others:
        notes.warnings.append(
            f"{count(len(others), 'file')} without an image's suffix will not be read: {name_some(map(shown, others))}."
        )
        notes.leave(others, "no image", "its suffix is not an image's")
    hollow = _hollow([folder.path for folder in tree if folder.path and not folder.closed], paths)
    if hollow:
        notes.warnings.append(
            f"the folder {shown(hollow[0])} holds no image and is no class."
            if len(hollow) == 1
            else f"{len(hollow):,} folders hold no image and are no classes: {name_some(map(shown, hollow))}."
        )


def _note_loose(images: Sequence[str], inner: str, notes: SourceNotes) -> None:
    if images:
        notes.warnings.append(
            f"{count(len(images), 'image')} next to the class folders will not be read: "
            f"{name_some(map(shown, images))}."
        )
        up = "../" * (inner.count("/") + 1) if inner else ""
        notes.leave([up + name for name in images], "no class", "it lies in no class folder")


def _capitalized(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _hollow(folders: Sequence[str], holders: Sequence[str]) -> list[str]:
    """Return the topmost of the folders without any image in or below them."""
    full = {"/".join(path.split("/")[: i + 1]) for path in holders for i in range(path.count("/") + 1)}
    return [path for path in folders if path not in full and (path.rpartition("/")[0] or path) in {*full, path}]


def _why_empty(root: Path, tree: Sequence[Folder], packed: bool) -> str:
    """Return the message for a folder that has no class folders with images."""
    here = tree[0]
    if here.images:
        one = "" if packed else f"; if {root.name} is itself one class, pass {root.parent}"
        return (
            f"{root} holds {count(len(here.images), 'image')} but no class folders. Sort them into one folder per "
            "class, put a text with the class's number next to each (img_1.txt holding: img_1.jpg, 0), or give a table "
            f"with the columns path and label{one}."
        )
    inside = [path for folder in tree for path in folder.paths(folder.others) if is_archive(path)]
    if inside:
        todo = f"unpack {root} and pass {inside[0]}" if packed else f"pass {root / inside[0]}"
        return f"{root} holds no images but {count(len(inside), 'archive')} ({name_some(inside)}); {todo}."
    return f"{root} holds no images. Put one folder per class into it, with the images of that class inside."
