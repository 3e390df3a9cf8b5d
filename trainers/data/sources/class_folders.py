"""Class folders: a folder that directly holds images is a class, and its label is its path below the root.

So ``photos/cat/1.jpg`` is "cat" and ``photos/recyclable/paper/1.jpg`` is "recyclable/paper". Folders that only wrap all
class folders are no part of the labels. If all top folders are named as splits (train, val, test ...), they are the
data's own splits, and labels begin below them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from trainers.data.listing import (
    Listing,
    SourceNotes,
    is_text,
    listing,
    name_some,
)
from trainers.data.sources.split_folders import about_wrapping, note_splits, split_folders
from trainers.data.sources.tree import Folder, left_out, note_left_out, note_odd_names, shown
from trainers.errors import TrainerError
from trainers.files.suffixes import is_archive, is_table
from trainers.wording import count


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
        notes.warnings += about_wrapping(inner)
    holders = [folder for folder in tree if folder.path and folder.images]
    own = split_folders([folder.path for folder in holders])
    found = []
    for folder in holders:
        top, _, rest = folder.path.partition("/")
        if own and not rest:
            continue  # images directly in a split's folder are noted below
        label = rest if own else folder.path
        found += [(path, label, own.get(top)) for path in folder.paths(folder.images)]
    note_splits([folder.path for folder in holders], own, notes)
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
