"""Folders, tables or a built-in -> the manifest: path, label, split, sha256, size, group of every image.

Imports without TensorFlow. Splits are made here, before any augmentation; duplicates share a group, and a group never
straddles two splits unless the data's own splits say so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.contract import TrainerError
from trainers.datareport import LARGE_GROUP, DataReport
from trainers.duplicates import THUMBNAIL, Duplicates, find_duplicates, group_names, members_of, to_drop
from trainers.images import Unreadable, thumbnail
from trainers.sources import BUILTIN, Listing, count, make_builtin, name_some, read_source, split_problems
from trainers.splits import SPLITS, assign, check_ratios, too_small, too_small_sentence

__all__ = ["DEFAULT_SPLITS", "DataReport", "DataSource", "Manifest", "build_manifest", "check_data"]

DEFAULT_SPLITS = (0.7, 0.15, 0.15)
DUPLICATES = ("group", "drop", "keep")
COLUMNS = ("path", "label", "split", "sha256", "width", "height", "group")
METADATA = b"orch"
READ_AT_ONCE = 512
MOST_THREADS = 16

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class DataSource:
    """Where the photos are and how they are divided.

    ``source``: a folder per class; a .csv or .parquet table with the columns path (relative to the table), label and
    optionally split (train, validation, test) and group; or "builtin:digits".
    ``splits``: ratios of train, validation, test; None takes the table's own split column.
    ``duplicates``: "group" keeps exact and near duplicates in one split; "drop" keeps the first by path of each set
    of duplicates (of each label, where near duplicates differ in it) and none of those whose bytes are the same and
    labels are not; "keep" holds only exact duplicates together and lets near ones fall where they may. The table's
    own groups are never torn, and nothing is dropped for being in one.
    ``cache``: folder where built-ins are written.
    """

    source: str
    splits: tuple[float, float, float] | None
    cache: Path
    seed: int = 0
    duplicates: str = "group"


@dataclass(frozen=True, eq=False)
class Manifest:
    """The images of a data set. Two manifests are the same data where their fingerprints are equal.

    ``table``: path (posix, relative to ``root``), label, split, sha256 (of the file), width, height (px, after EXIF
    orientation), group (16 hex digits); sorted by path. ``classes``: sorted; a label's index is its place there.
    ``seed``: the data's, of splits and augmentation. ``source``: as in ``DataSource``.
    """

    root: Path
    classes: tuple[str, ...]
    seed: int
    table: pd.DataFrame
    source: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the classes and the sorted (sha256, label, split); not over where the files lie."""
        rows = sorted(zip(*(self.table[c].tolist() for c in ("sha256", "label", "split")), strict=True))
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()[:16]

    def split(self, *names: str) -> Manifest:
        """The rows of these splits, with all the classes. Raises TrainerError for an unknown name."""
        unknown = sorted(set(names) - set(SPLITS))
        if unknown:
            raise TrainerError(f"there is no split {', '.join(map(repr, unknown))}; known are {', '.join(SPLITS)}.")
        rows = self.table[self.table["split"].isin(names)].reset_index(drop=True)
        return dataclasses.replace(self, table=rows)

    def labels(self) -> np.ndarray:
        """int32 (images,): each label's place in ``classes``."""
        place = {label: i for i, label in enumerate(self.classes)}
        return np.array([place[label] for label in self.table["label"]], np.int32)

    def paths(self) -> list[Path]:
        """The absolute path of each image."""
        return [self.root / path for path in self.table["path"]]

    def write(self, path: Path) -> None:
        """One Parquet file, written beside and then renamed; root, classes, seed and source in its metadata."""
        about = {"root": str(self.root), "classes": self.classes, "seed": self.seed, "source": self.source}
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(about).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            pq.write_table(table, beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """What ``write`` wrote. A built-in whose files are missing on this machine is written again into the cache.

        Raises TrainerError for a missing file and for one that is not a manifest.
        """
        try:
            table = pq.read_table(path)
        except FileNotFoundError as error:
            raise TrainerError(f"there is no manifest {path}.") from error
        except (pa.ArrowException, OSError) as error:
            raise TrainerError(f"{path} cannot be read as a manifest: {str(error).splitlines()[0]}.") from error
        about = (table.schema.metadata or {}).get(METADATA)
        if about is None or not set(COLUMNS) <= set(table.column_names):
            raise TrainerError(f"{path} is a Parquet file but not a manifest of orch.")
        values = json.loads(about)
        manifest = cls(
            Path(values["root"]), tuple(values["classes"]), values["seed"], table.to_pandas(), values["source"]
        )
        if manifest.source.startswith(BUILTIN) and not all(p.exists() for p in manifest.paths()):
            manifest = dataclasses.replace(manifest, root=make_builtin(manifest.source, _cache_folder()))
        return manifest


def build_manifest(source: DataSource, progress: Progress | None = None) -> tuple[Manifest, DataReport]:
    """Read every image once, find duplicates, make the splits.

    Unreadable images are left out and named in the report. Raises TrainerError with every problem at once: nothing
    there, folders nested too deep, a wrong table, a class too small to split, no splits at all.
    """
    _check(source)
    listing = read_source(source.source, source.cache)
    if listing.problems:  # before the images are opened, which can take minutes
        raise TrainerError("\n".join(listing.problems))
    manifest, report = _examine(source, listing, progress)
    if manifest is None:
        raise TrainerError("\n".join(report.problems))
    return manifest, report


def check_data(source: DataSource, progress: Progress | None = None) -> DataReport:
    """All that can be said about the data, even where no manifest can be made: ``problems`` then says why.

    Without ratios and without own splits the default ratios are used. Raises TrainerError only where there is nothing
    to look at.
    """
    _check(source)
    listing = read_source(source.source, source.cache)
    if source.splits is None and not listing.has_splits:
        source = dataclasses.replace(source, splits=DEFAULT_SPLITS)
    return _examine(source, listing, progress)[1]


def _check(source: DataSource) -> None:
    if source.duplicates not in DUPLICATES:
        raise TrainerError(f"duplicates is {source.duplicates!r}; it must be one of {', '.join(DUPLICATES)}.")
    if source.splits is not None:
        check_ratios(source.splits)


def _examine(source: DataSource, listing: Listing, progress: Progress | None) -> tuple[Manifest | None, DataReport]:
    """The report, and the manifest where the report has no problems."""
    opened = _open_all(listing, progress)
    notes = _Notes([*listing.warnings], [*listing.problems])
    unreadable = _note_unreadable(listing, opened, notes)
    readable = [image for image in opened if not image.reason]
    rows = listing.rows[[not image.reason for image in opened]].reset_index(drop=True)
    rows = rows.assign(**{c: [getattr(image, c) for image in readable] for c in ("sha256", "width", "height")})

    same = find_duplicates(rows, [image.thumbnail for image in readable])
    rows["group"] = group_names(rows, same, near_too=source.duplicates != "keep")
    dropped = to_drop(rows, same) if source.duplicates == "drop" else []
    _note_duplicates(rows, same, source.duplicates, notes)
    report = DataReport(
        source.source,
        unreadable=unreadable,
        exact_duplicates=tuple(tuple(rows["path"][i] for i in members) for members in same.exact),
        near_duplicates=tuple((rows["path"][a], rows["path"][b]) for a, b in same.near),
        conflicts=tuple(tuple((rows["path"][i], rows["label"][i]) for i in members) for members in same.conflicts),
        dropped=tuple(rows["path"][i] for i in dropped),
    )
    rows = rows.drop(index=dropped).reset_index(drop=True)
    _note_classes(listing, rows, notes)
    rows["split"], straddling_groups = _splits(source, listing, rows, notes)
    report = _with_counts(report, rows, straddling_groups, notes)
    if report.problems:
        return None, report
    classes = tuple(sorted(set(rows["label"])))
    table = rows[list(COLUMNS)].astype({c: str for c in COLUMNS if c not in ("width", "height")})
    return Manifest(listing.root, classes, source.seed, table, source.source), report


@dataclass
class _Notes:
    warnings: list[str]
    problems: list[str]


@dataclass(frozen=True)
class _Opened:
    """One image as found: ``reason`` is why it cannot be read, or empty."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""
    thumbnail: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))


def _open(path: Path) -> _Opened:
    try:
        data = path.read_bytes()
        width, height, small = thumbnail(data, THUMBNAIL)
    except Unreadable as error:
        return _Opened(reason=error.reason)
    except OSError as error:
        return _Opened(reason=error.strerror or str(error))
    return _Opened(hashlib.sha256(data).hexdigest(), width, height, thumbnail=small)


def _open_all(listing: Listing, progress: Progress | None) -> list[_Opened]:
    """Every image of the listing, in its order; Pillow decodes outside Python's lock, so threads help."""
    paths = [listing.root / path for path in listing.rows["path"]]
    done: list[_Opened] = []
    with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, MOST_THREADS)) as pool:
        for start in range(0, len(paths), READ_AT_ONCE):
            for opened in pool.map(_open, paths[start : start + READ_AT_ONCE]):
                done.append(opened)
                if progress is not None:
                    progress(len(done), len(paths))
    return done


def _note_unreadable(listing: Listing, opened: Sequence[_Opened], notes: _Notes) -> dict[str, str]:
    unreadable = {p: o.reason for p, o in zip(listing.rows["path"], opened, strict=True) if o.reason}
    if unreadable:
        notes.warnings.append(
            f"left out, because they cannot be read: {count(len(unreadable), 'image')}, {name_some(unreadable)}."
        )
    return unreadable


def _note_duplicates(rows: pd.DataFrame, same: Duplicates, duplicates: str, notes: _Notes) -> None:
    if same.conflicts:
        what = "files with the same bytes are all left out, of near ones one of each label is kept"
        notes.warnings.append(
            f"{count(len(same.conflicts), 'set')} of duplicates with different labels"
            f"{f' ({what})' if duplicates == 'drop' else ''}; correct the labels or take the files out: "
            f"{name_some(' = '.join(rows['path'][members]) for members in same.conflicts)}."
        )
    largest = max(same.sets, key=len, default=[])
    if len(largest) > LARGE_GROUP * len(rows):
        notes.warnings.append(
            f"{len(largest)} images, {len(largest) / len(rows):.1%} of all, are duplicates of one another: "
            f"{name_some(rows['path'][largest])}. Look whether they really show the same; if not, use duplicates: keep."
        )


def _note_classes(listing: Listing, rows: pd.DataFrame, notes: _Notes) -> None:
    gone = sorted(set(listing.rows["label"]) - set(rows["label"]))
    notes.problems += [f"class {label!r} has no image left that can be used." for label in gone]
    if rows["label"].nunique() == 1 and not gone:
        notes.problems.append(f"there is only one class, {rows['label'][0]!r}; a classifier needs two or more.")


def _splits(
    source: DataSource, listing: Listing, rows: pd.DataFrame, notes: _Notes
) -> tuple[list[str | None], list[list[int]]]:
    """The split of each row, None where none can be made, and the groups that the data's own splits tear apart."""
    labels, groups = rows["label"].tolist(), rows["group"].tolist()
    none: list[str | None] = [None] * len(rows)
    if source.splits is None:
        if not listing.has_splits:
            notes.problems.append(
                "the data has no splits of its own; give ratios of train, validation and test (such as 0.7, 0.15, "
                "0.15), or a table with a column split."
            )
            return none, []
        problems = split_problems(rows["split"])
        notes.problems += problems
        return (none, []) if problems else (rows["split"].tolist(), _note_own_splits(rows, notes))
    if listing.has_splits:
        notes.warnings.append("the table has splits of its own; they are not used, because ratios are given.")
    small = too_small(labels, groups)
    if not small and labels:
        try:
            return list(assign(labels, groups, source.splits, source.seed)), []
        except TrainerError as error:
            notes.problems.append(str(error))
    counts = Counter(labels)
    notes.problems += [too_small_sentence(label, counts[label], n) for label, n in small.items()]
    return none, []


def _note_own_splits(rows: pd.DataFrame, notes: _Notes) -> list[list[int]]:
    for label, own in rows.groupby("label")["split"]:
        absent = [s for s in SPLITS if s not in set(own)]
        if "train" in absent:
            notes.problems.append(f"class {label!r} has no image in train, so it cannot be learnt.")
        elif absent:
            notes.warnings.append(f"class {label!r} has no image in {' and '.join(absent)}.")
    torn = [members for members in members_of(rows["group"]) if rows["split"][members].nunique() > 1]
    if torn:
        notes.warnings.append(
            f"the table's own splits tear {count(len(torn), 'group')} of images that belong together: "
            f"{name_some(' ~ '.join(rows['path'][members]) for members in torn)}."
        )
    return torn


def _with_counts(report: DataReport, rows: pd.DataFrame, torn: Sequence[list[int]], notes: _Notes) -> DataReport:
    """``report`` with what can be counted once it is known which images are used and where."""
    labels = rows["label"]
    splits = {
        name: {str(c): int(n) for c, n in labels[rows["split"] == name].value_counts().sort_index().items()}
        for name in SPLITS
        if bool((rows["split"] == name).any())
    }
    sizes = rows["group"].value_counts()
    together = sizes[sizes > 1]
    return dataclasses.replace(
        report,
        images=len(rows),
        classes={str(c): int(n) for c, n in labels.value_counts().sort_index().items()},
        splits=splits,
        sizes={
            side: (int(rows[side].min()), int(rows[side].median()), int(rows[side].max()))
            for side in ("width", "height")
            if len(rows)
        },
        groups=len(together),
        largest_group=int(together.max()) if len(together) else 0,
        too_small=too_small(labels.tolist(), rows["group"].tolist()),
        straddling=tuple(tuple(rows["path"][i] for i in members) for members in torn),
        warnings=tuple(notes.warnings),
        problems=tuple(notes.problems),
    )


def _cache_folder() -> Path:
    """Where built-ins are made again on a machine that has not got them: ``ORCH_CACHE``, or the user's cache folder."""
    if os.environ.get("ORCH_CACHE"):
        return Path(os.environ["ORCH_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orch"
