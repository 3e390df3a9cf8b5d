"""Read sources of labelled photos: folders, pairs, tables, archives, built-ins, or several of them. Opens no image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from trainers.data.archives import unpack
from trainers.data.builtins import BUILTIN, make_builtin
from trainers.data.contest_pairs import holds_pairs, read_pairs
from trainers.data.folders import read_classes, walk
from trainers.data.listing import Listing, SourceNotes, listing, name_some
from trainers.data.tables import is_photo_table, read_table
from trainers.errors import TrainerError
from trainers.files.lookup import obstacle
from trainers.files.suffixes import ARCHIVES, TABLES, is_archive, is_table
from trainers.wording import count

Source = str | tuple[str, ...]
"""One source, or several that are merged."""


def read_source(source: Source, cache: Path) -> Listing:
    """List the images of ``source``; several sources are merged, with labels and groups united by name.

    ``cache`` is where built-ins are written and archives unpacked. Raises TrainerError, with a sentence for each
    source that cannot be read.
    """
    sources = names_of(source)
    listings, errors = [], []
    for one in sources:
        try:
            listings.append(_read_place(_place(one, cache)))
        except TrainerError as error:
            errors.append(str(error))
    if errors:
        raise TrainerError("\n".join(errors))
    return listings[0] if len(listings) == 1 else _merge(sources, listings)


def names_of(source: Source) -> tuple[str, ...]:
    """The single sources. Raises TrainerError for none, and for one that is given twice."""
    sources = (source,) if isinstance(source, str) else tuple(source)
    if not sources:
        raise TrainerError("there is no source of photos; give a folder, a table or an archive.")
    twice = sorted({one for one in sources if sources.count(one) > 1})
    if twice:
        raise TrainerError(f"given more than once as a source: {name_some(twice)}.")
    return sources


def is_made(source: Source) -> bool:
    """Whether some of the images lie in the cache, from which they may be lost."""
    return any(one.startswith(BUILTIN) or is_archive(one) for one in names_of(source))


def source_folders(source: Source, cache: Path) -> tuple[Path, ...]:
    """For each single source the folder its images lie in; built-ins and archives are made again where missing.

    Raises TrainerError where a source is gone.
    """
    places = [_place(one, cache) for one in names_of(source)]
    return tuple(place if place.is_dir() else place.parent for place in places)


def common_folder(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all of ``folders``, which are absolute."""
    return Path(os.path.commonpath(folders))


def _place(source: str, cache: Path) -> Path:
    """The folder or the table, absolute, that ``source`` stands for once built-ins and archives are on the disk."""
    if source.startswith(BUILTIN):
        return make_builtin(source, cache)
    path = Path(source).expanduser()
    if why := obstacle(path):
        raise TrainerError(f"{source} cannot be read: {why}.")
    if not path.exists():
        raise TrainerError(f"there is no folder, table or archive {source}.")
    if path.is_dir() or is_table(path.name):
        return path.resolve()
    if is_archive(path.name):
        return _inside(unpack(path, cache), path)
    raise TrainerError(
        f"{source} is neither a folder nor a table nor an archive; give a folder of class folders, a table "
        f"({', '.join(TABLES)}) or an archive ({', '.join(ARCHIVES)})."
    )


def _inside(folder: Path, archive: Path) -> Path:
    """The table or the folder in an unpacked archive: folders that are only a wrapping are looked through."""
    while True:
        here = walk(folder)
        tables = [name for name in here[0].others if is_photo_table(folder / name)]
        if len(tables) > 1:
            raise TrainerError(
                f"the archive {archive} holds several tables of photos: {name_some(tables)}. Unpack it and pass one "
                "of them."
            )
        if tables:
            return folder / tables[0]
        below = [f for f in here[1:] if "/" not in f.path]
        if len(below) != 1 or here[0].images or below[0].images:
            return folder
        folder = folder / below[0].path


def _read_place(place: Path) -> Listing:
    if not place.is_dir():
        return read_table(place)
    tree = walk(place)
    return read_pairs(place, tree) if holds_pairs(place, tree) else read_classes(place, tree)


def _merge(sources: Sequence[str], listings: Sequence[Listing]) -> Listing:
    """One listing of several. A file that two of them hold is listed once; paths start at the common folder."""
    notes = SourceNotes()
    root = common_folder([one.root for one in listings])
    with_splits = [one.has_splits for one in listings]
    without = tuple(s for s, has in zip(sources, with_splits, strict=True) if not has) if any(with_splits) else ()
    parts = []
    for source, one in zip(sources, listings, strict=True):
        notes.warnings += [f"{source}: {text}" for text in one.warnings]
        notes.problems += [f"{source}: {text}" for text in one.problems]
        paths = [os.path.normpath(one.root / path) for path in one.rows["path"]]
        rows = one.rows.assign(path=[os.path.relpath(path, root) for path in paths], file=_real(paths))
        parts.append(rows.assign(split=None) if without else rows)
    rows = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    _note_contradictions(rows, notes)
    rows = rows.drop_duplicates("file")
    _note_spellings(rows["label"], notes)
    merged = listing(root, rows, notes)
    return dataclasses.replace(merged, folders=tuple(one.root for one in listings), without_splits=without)


def _real(paths: Sequence[str]) -> list[str]:
    """Each path with the links in its folders resolved, so that the same file has one name."""
    folders: dict[str, str] = {}
    found = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        found.append(os.path.join(folders[folder], name))
    return found


def _note_contradictions(rows: pd.DataFrame, notes: SourceNotes) -> None:
    """A file in several sources with different labels or splits."""
    twice = rows[rows["file"].duplicated(keep=False)]
    for column in ("label", "split"):
        different = twice.groupby("file")[column].nunique()
        files = different[different > 1].index
        names = [f"{path} ({' and '.join(sorted(set(own[column].dropna())))})" for path, own in _by_file(twice, files)]
        if names:
            notes.problems.append(
                f"{count(len(names), 'file')} with a different {column} in each source: {name_some(names)}."
            )


def _by_file(rows: pd.DataFrame, files: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    return [(own["path"].iloc[0], own) for file in files for own in [rows[rows["file"] == file]]]


def _note_spellings(labels: pd.Series, notes: SourceNotes) -> None:
    spellings: dict[str, set[str]] = {}
    for label in set(labels):
        spellings.setdefault(label.casefold(), set()).add(label)
    different = [" = ".join(sorted(names)) for _, names in sorted(spellings.items()) if len(names) > 1]
    if different:
        notes.warnings.append(
            f"class names that differ only in upper and lower case stay apart: {name_some(different)}."
        )
