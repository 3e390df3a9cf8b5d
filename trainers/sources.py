"""Where labelled photos come from: a folder per class, a table, a built-in. Gives a list; opens no image."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image

from trainers.contract import TrainerError
from trainers.splits import SPLITS

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".tga"),
)
"""Files in a class folder that end so are images; one that Pillow cannot read is reported by name."""
TABLES = (".csv", ".parquet")
BUILTIN = "builtin:"
BUILTINS = ("builtin:digits",)
COLUMNS = ("path", "label", "split", "group")
NESTED_DEPTH, MOST_FOLDERS = 4, 1000
"""How far down, and through how many folders a level, a mistaken folder is searched for the right one."""


@dataclass(frozen=True)
class Listing:
    """What a source says before any image is opened.

    ``rows``: path (posix, relative to ``root``), label, split (None where the source has no splits), group (None
    where an image has none); sorted by path. ``problems`` prevent a manifest, ``warnings`` do not.
    """

    root: Path
    rows: pd.DataFrame
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def has_splits(self) -> bool:
        return bool(self.rows["split"].notna().any())


@dataclass
class _Notes:
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_source(source: str, cache: Path) -> Listing:
    """The images that ``source`` names. Raises TrainerError where there is nothing at all to look at."""
    if source.startswith(BUILTIN):
        return _read_folder(make_builtin(source, cache))
    path = Path(source).expanduser()
    if not path.exists():
        raise TrainerError(f"there is no folder or table {source}.")
    if path.is_dir():
        try:
            return _read_folder(path.resolve())
        except OSError as error:
            raise TrainerError(
                f"{error.filename or source} cannot be looked into: {error.strerror or error}."
            ) from error
    if path.suffix.lower() in TABLES:
        return _read_table(path.resolve())
    raise TrainerError(
        f"{source} is neither a folder nor a table; give a folder of class folders, a .csv or a .parquet."
    )


def name_some(names: Iterable[str], limit: int = 5) -> str:
    """The first ``limit`` names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def count(n: int, noun: str) -> str:
    """A number and its noun: "1 image", "2,527 images"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def make_builtin(source: str, cache: Path) -> Path:
    """The folder of a built-in data set below ``cache``; files that are missing there are written first.

    Safe against another process that does the same. Raises TrainerError for an unknown name or an unwritable cache.
    """
    if source not in BUILTINS:
        raise TrainerError(f"there is no built-in data set {source!r}; known are {', '.join(BUILTINS)}.")
    root = cache.expanduser().resolve() / "builtin" / source.removeprefix(BUILTIN)
    try:
        root.mkdir(parents=True, exist_ok=True)
        _write_digits(root)
    except OSError as error:
        raise TrainerError(
            f"the cache {cache} cannot be written ({error.strerror or error}); free some space there, or set "
            "ORCH_CACHE to another folder."
        ) from error
    return root


def _write_digits(root: Path) -> None:
    from sklearn.datasets import load_digits  # takes a second to import

    data = load_digits()
    names = [root / str(label) / f"{number:04d}.png" for number, label in enumerate(data.target)]
    if all(name.exists() for name in names):
        return
    with FileLock(root.parent / f".{root.name}.lock"):
        for name, pixels in zip(names, data.images, strict=True):
            if name.exists():
                continue
            name.parent.mkdir(exist_ok=True)
            beside = name.with_name(f".{name.name}.{os.getpid()}")
            # 0..16 becomes 0..255. Uncompressed, so that the bytes do not depend on the version of zlib.
            picture = Image.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
            picture.save(beside, format="PNG", compress_level=0)
            os.replace(beside, name)


def _read_folder(root: Path) -> Listing:
    notes = _Notes()
    here, folders = _entries(root)
    found: list[tuple[str, str]] = []
    for folder in folders:
        files, below = _entries(folder)
        images = [f for f in files if f.suffix.lower() in SUFFIXES]
        others = [f.name for f in files if f.suffix.lower() not in SUFFIXES]
        deeper = [b.name for b in below if any(f.suffix.lower() in SUFFIXES for f in _entries(b)[0])]
        found += [(f"{folder.name}/{f.name}", folder.name) for f in images]
        if images and deeper:
            notes.warnings.append(f"folders inside the class folder {folder.name} are not read: {name_some(deeper)}.")
        if not images and not deeper:
            notes.warnings.append(f"the folder {folder.name} holds no image and is no class.")
        if images and others:
            notes.warnings.append(
                f"{count(len(others), 'file')} in {folder.name} without an image's suffix will not be read: "
                f"{name_some(others)}."
            )
        if not images and deeper and found:
            notes.warnings.append(f"the images below {folder.name} lie one folder too deep and are not read.")
    if not found:
        raise TrainerError(_why_empty(root, here))
    odd = [repr(path) for path, _ in found if not _is_text(path)]
    if odd:
        notes.warnings.append(f"not read, because the name is not valid UTF-8; rename: {name_some(odd)}.")
        found = [row for row in found if _is_text(row[0])]
    loose = [f.name for f in here if f.suffix.lower() in SUFFIXES]
    if loose:
        notes.warnings.append(
            f"{count(len(loose), 'image')} beside the class folders will not be read: {name_some(loose)}."
        )
    return _listing(root, pd.DataFrame(found, columns=["path", "label"]), notes)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders in ``folder``, sorted, without hidden ones and what archives of a Mac leave behind."""
    visible = [p for p in sorted(folder.iterdir()) if not p.name.startswith((".", "__MACOSX"))]
    return [p for p in visible if not p.is_dir()], [p for p in visible if p.is_dir()]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _why_empty(root: Path, here: Sequence[Path]) -> str:
    """The sentence for a folder without class folders that hold images."""
    loose = [f for f in here if f.suffix.lower() in SUFFIXES]
    if loose:
        return (
            f"{root} holds {count(len(loose), 'image')} but no class folders. Sort them into one folder per class, or "
            f"give a table with the columns path and label; if {root.name} is itself one class, pass {root.parent}."
        )
    level = [root]
    for _ in range(NESTED_DEPTH):
        level = [folder for parent in level for folder in _entries(parent)[1]][:MOST_FOLDERS]
        holders = [
            p for p in level if any(any(f.suffix.lower() in SUFFIXES for f in _entries(c)[0]) for c in _entries(p)[1])
        ]
        if len(holders) == 1:
            return f"the class folders lie deeper than {root}; pass {holders[0]} instead."
        if holders:
            return (
                f"{root} holds no class folders, but these do: {name_some(str(p.relative_to(root)) for p in holders)}. "
                f"Pass one of them, for example {holders[0]}; if they are splits of one data set, write a table with "
                "the columns path, label and split (train, validation, test) and pass that."
            )
    if root.suffix.lower() not in TABLES and any(f.suffix.lower() in TABLES for f in here):
        table = next(f for f in here if f.suffix.lower() in TABLES)
        return f"{root} holds no class folders with images; to use the table in it, pass {table}."
    return f"{root} holds no images. Put one folder per class into it, with the images of that class inside."


def _read_table(path: Path) -> Listing:
    table = _load_table(path)
    notes = _Notes()
    _check_columns(path, [str(c) for c in table.columns], notes)
    if table.empty:
        raise TrainerError(f"the table {path} has no rows.")
    rows = pd.DataFrame({c: _text(table[c]) if c in table else None for c in COLUMNS}, dtype=object)
    for column in ("path", "label"):
        blank = [str(i + 1) for i in np.flatnonzero(rows[column].isna())]
        if blank:
            notes.problems.append(
                f"the column {column} is empty in {count(len(blank), 'row')}: row {name_some(blank)}."
            )
    rows = rows[rows["path"].notna() & rows["label"].notna()].copy()
    rows["path"] = [Path(p).as_posix() for p in rows["path"]]
    absolute = [p for p in rows["path"] if Path(p).is_absolute()]
    if absolute:
        notes.problems.append(f"paths must be relative to the table's folder; not so: {name_some(absolute)}.")
    twice = rows["path"][rows["path"].duplicated()].unique().tolist()
    if twice:
        notes.problems.append(f"{count(len(twice), 'file')} listed more than once: {name_some(twice)}.")
    missing = [p for p in rows["path"].unique() if not (path.parent / p).is_file()]
    if missing:
        notes.problems.append(
            f"{count(len(missing), 'file')} of {path.name} cannot be found: {name_some(missing)}. Paths are relative "
            f"to {path.parent}."
        )
    rows = rows[~rows["path"].isin({*missing, *absolute})].drop_duplicates("path")
    if rows.empty:
        raise TrainerError(" ".join(notes.problems))
    return _listing(path.parent, rows, notes)


def _load_table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except Exception as error:  # the readers raise a dozen kinds; each is about this file
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise TrainerError(f"the table {path} cannot be read: {reason}.") from error


def _text(column: pd.Series) -> list[str | None]:
    """Strings without blanks around them; None where there is nothing."""
    texts = [None if pd.isna(value) else str(value).strip() for value in column]
    return [text or None for text in texts]


def _check_columns(path: Path, columns: list[str], notes: _Notes) -> None:
    mistakes = []
    for column in columns:
        near = difflib.get_close_matches(column.strip().lower(), [c for c in COLUMNS if c not in columns], 1, 0.75)
        if column not in COLUMNS and near:
            mistakes.append(f"there is an unknown column {column!r}; did you mean {near[0]}?")
    for column in ("path", "label"):
        if column not in columns:
            mistakes.append(f"there is no column {column}.")
    if mistakes:
        raise TrainerError(
            f"the table {path}: {' '.join(mistakes)} It has {', '.join(columns) or 'no column'}; needed are path and "
            "label, and optionally split and group."
        )
    others = [c for c in columns if c not in COLUMNS]
    if others:
        notes.warnings.append(f"columns of {path.name} that are not used: {name_some(others)}.")


def split_problems(splits: pd.Series) -> list[str]:
    """What is wrong with a table's own split column; empty where it can be used as it is."""
    problems = []
    blank = int(splits.isna().sum())
    if blank:
        problems.append(f"the column split is empty in {count(blank, 'row')}; each needs one of {', '.join(SPLITS)}.")
    names = set(splits.dropna())
    unknown = sorted(names - set(SPLITS))
    if unknown:
        problems.append(f"the column split holds {name_some(map(repr, unknown))}; allowed are {', '.join(SPLITS)}.")
    absent = [s for s in SPLITS if s not in names]
    if absent:
        problems.append(f"no row has the split {' or '.join(absent)}; all of {', '.join(SPLITS)} are needed.")
    return problems


def _listing(root: Path, rows: pd.DataFrame, notes: _Notes) -> Listing:
    rows = rows.reindex(columns=list(COLUMNS)).astype(object)
    rows = rows.where(rows.notna(), None).sort_values("path", ignore_index=True)
    return Listing(root, rows, tuple(notes.warnings), tuple(notes.problems))
