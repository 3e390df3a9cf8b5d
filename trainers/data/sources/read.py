"""Read sources of labelled photos: folders, pairs, tables, archives, built-ins, or several of them. Opens no image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from trainers.data.listing import Listing, SourceNotes, is_text, label_of, listing, name_some, note_spellings
from trainers.data.sources.archives import guessed_names, unpack
from trainers.data.sources.builtins import BUILTIN, make_builtin
from trainers.data.sources.class_folders import read_classes, wrapping
from trainers.data.sources.contest_pairs import holds_pairs, read_pairs
from trainers.data.sources.tables import NEEDED, columns_of, is_photo_table, read_table
from trainers.data.sources.tree import Folder, note_left_out, walk
from trainers.errors import TrainerError
from trainers.files.encodings import check_encoding
from trainers.files.lookup import obstacle
from trainers.files.suffixes import ARCHIVES, TABLES, is_archive, is_spreadsheet, is_table
from trainers.wording import count

Source = str | tuple[str, ...]
"""One source, or several that are merged."""
MOST_TABLES = 3
"""Maximum unused tables that are described."""


def read_source(source: Source, cache: Path, encoding: str = "") -> Listing:
    """List the images of ``source``; several sources are merged, with labels and groups united by name.

    ``cache`` is where built-ins are written and archives unpacked. ``encoding``: of names in archives and of tables
    that are not UTF-8; "" guesses. Raises TrainerError, with a sentence for each source that cannot be read.
    """
    if encoding:
        check_encoding(encoding)
    sources = names_of(source)
    listings, errors = [], []
    for one in sources:
        try:
            listings.append(_read(one, cache, encoding))
        except TrainerError as error:
            errors.append(str(error))
    if errors:
        raise TrainerError("\n".join(errors))
    found = listings[0] if len(listings) == 1 else _merge(sources, listings)
    notes = SourceNotes([*found.warnings], [*found.problems])
    note_spellings(found.rows["label"], notes)
    if found.rows.empty and not found.problems:
        notes.problems.append("there is no image that can be used.")
    return dataclasses.replace(found, warnings=tuple(notes.warnings), problems=tuple(notes.problems))


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


def obstacle_to_moving(source: str) -> str:
    """Explain why files of ``source`` cannot be moved elsewhere, as the rest of a sentence about it; "" if they can."""
    path = Path(source).expanduser()
    if path.is_dir():
        tables = _tables_on_top(path, walk(path))
        return f"is read by the table {tables[0]}, which would miss the files; take their rows out" if tables else ""
    if is_table(source):
        return "is a table, which would miss the files; take their rows out"
    return "is no folder; unpack it and pass the folder" if is_archive(source) else "is no folder"


def source_folders(source: Source, cache: Path, encoding: str = "") -> tuple[Path, ...]:
    """For each single source the folder its images lie in; built-ins and archives are made again where missing.

    Raises TrainerError where a source is gone.
    """
    return tuple(_images_folder(_place(one, cache, encoding)) for one in names_of(source))


def common_folder(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds all of ``folders``, which are absolute."""
    return Path(os.path.commonpath(folders))


def _place(source: str, cache: Path, encoding: str) -> Path:
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
        return unpack(path, cache, encoding)
    if is_spreadsheet(path.name):
        raise TrainerError(f"{source} is a spreadsheet; save it as CSV in the same folder, and pass that.")
    raise TrainerError(
        f"{source} is neither a folder nor a table nor an archive; give a folder of class folders, a table "
        f"({', '.join(TABLES)}) or an archive ({', '.join(ARCHIVES)})."
    )


def _read(source: str, cache: Path, encoding: str) -> Listing:
    place = _place(source, cache, encoding)
    if not place.is_dir():
        return read_table(place, encoding)
    if not is_archive(source) or Path(source).expanduser().is_dir():
        return _read_folder(place, False, encoding)
    try:
        found = _read_folder(place, True, encoding)
    except TrainerError as error:
        raise TrainerError(str(error).replace(str(place), source)) from error
    # What is said about an archive must not send a person into the cache.
    guessed = guessed_names(Path(source).expanduser(), encoding)
    warnings = (*guessed, *(text.replace(str(place), source) for text in found.warnings))
    problems = tuple(text.replace(str(place), source) for text in found.problems)
    return dataclasses.replace(found, warnings=warnings, problems=problems)


def _read_folder(folder: Path, packed: bool, encoding: str) -> Listing:
    """List the images of ``folder`` by the table on top of it, by the texts next to them, or by their folders."""
    tree = walk(folder)
    tables = _tables_on_top(folder, tree)
    if len(tables) > 1:
        todo = "Unpack it and pass one of them" if packed else "Pass one of them, or move all but one elsewhere"
        what = "the archive " if packed else ""
        raise TrainerError(f"{what}{folder} holds several tables of photos: {name_some(tables)}. {todo}.")
    if tables:
        found = read_table(folder / tables[0], encoding)
    elif holds_pairs(folder, tree):
        found = read_pairs(_pairs_folder(folder, tree), tree, folder)
    else:
        found = read_classes(folder, tree, packed)
    notes = SourceNotes([*found.warnings], left_out=[*found.left_out])
    _note_unread(folder, tree, tables, notes)
    if tables:
        _note_beyond_table(tables[0], tree, found, notes)
    return dataclasses.replace(found, warnings=tuple(notes.warnings), left_out=tuple(notes.left_out))


def _note_beyond_table(table: str, tree: Sequence[Folder], found: Listing, notes: SourceNotes) -> None:
    """Note what the folders around a used ``table`` hold or say besides it."""
    labels = dict(zip(found.rows["path"], found.rows["label"], strict=True))
    folders = {path: label_of(path.rpartition("/")[0]) for path in labels}
    differ = any(not f"/{folders[path]}".endswith(f"/{label}") for path, label in labels.items())
    if differ and len(set(folders.values())) > 1:
        notes.warnings.append(
            f"labels are taken from the table {table}, not from the names of the folders; to use the folders, move the "
            "table elsewhere."
        )
    here = table.rpartition("/")[0]
    images = [os.path.relpath(path, here or ".") for f in tree for path in f.paths(f.images)]
    unnamed = sorted(path for path in images if path not in labels and is_text(path))
    if unnamed:
        notes.warnings.append(
            f"{count(len(unnamed), 'image')} that the table {table} does not name will not be read: "
            f"{name_some(unnamed)}."
        )
        notes.leave(unnamed, "no label", "the table does not name it")
    note_left_out(tree, here, notes)


def _images_folder(place: Path) -> Path:
    """The root of the listing that is read at ``place``, as ``_read_folder`` decides it."""
    if not place.is_dir():
        return place.parent
    tree = walk(place)
    tables = _tables_on_top(place, tree)
    if tables:
        return (place / tables[0]).parent
    return _pairs_folder(place, tree) if holds_pairs(place, tree) else place / wrapping(tree)


def _tables_on_top(folder: Path, tree: Sequence[Folder]) -> list[str]:
    """The tables of photos in the topmost folder that has some, of those that hold all images."""
    holders = [f.path for f in tree if f.images]
    common = os.path.commonpath(holders) if holders else None
    for each in tree:
        if common is not None and each.path and not f"{common}/".startswith(f"{each.path}/"):
            continue
        tables = [path for path in each.paths(each.others) if is_photo_table(folder / path)]
        if tables:
            return tables
    return []


def _pairs_folder(folder: Path, tree: Sequence[Folder]) -> Path:
    """``folder``, or the one below that it only wraps: chains of single folders without images are looked through."""
    here = ""
    while True:
        below = [f for f in tree if f.path and f.path.rpartition("/")[0] == here]
        images = any(f.images for f in tree if f.path == here)
        if len(below) != 1 or images or below[0].images:
            return folder / here
        here = below[0].path


def _note_unread(folder: Path, tree: Sequence[Folder], used: Sequence[str], notes: SourceNotes) -> None:
    """Note tables and archives among the photos that are not read."""
    files = [path for each in tree for path in each.paths(each.others)]
    tables = [path for path in files if path not in used and (is_table(path) or is_spreadsheet(path))]
    if tables:
        named = [f"{path} ({_about_table(folder / path)})" for path in tables[:MOST_TABLES]]
        named += tables[MOST_TABLES:]
        notes.warnings.append(f"not used: {count(len(tables), 'table')}, {name_some(named, MOST_TABLES)}.")
    archives = [path for path in files if is_archive(path)]
    if archives:
        notes.warnings.append(
            f"not unpacked: {count(len(archives), 'archive')} among the photos, {name_some(archives)}. Unpack them, or "
            "pass each as a source."
        )


def _about_table(table: Path) -> str:
    """Why ``table`` is not used, in a few words."""
    if is_spreadsheet(table):
        return "a spreadsheet; save it as CSV"
    columns = columns_of(table)
    if set(columns) >= NEEDED:
        return "not on top of the photos; to use it, pass it as the source"
    return f"it has no columns path and label, but {name_some(columns) or 'none'}"


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
        notes.left_out += [
            dataclasses.replace(file, path=os.path.relpath(os.path.normpath(one.root / file.path), root))
            for file in one.left_out
        ]
    rows = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    _note_contradictions(rows, notes)
    rows = rows.drop_duplicates("file")
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
