"""Folders, pairs, tables, archives or a built-in -> the manifest: path, label, split, sha256, size, group, fold of
every image.

Imports without TensorFlow. Splits and folds are made here, before any augmentation; duplicates share a group, and a
group never straddles two splits or folds unless the data's own splits say so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from trainers.data.candidates import copies_by_name
from trainers.data.duplicates import Duplicates, Groups, Looks, find_duplicates, make_groups, to_drop
from trainers.data.listing import Listing, SourceNotes, name_some
from trainers.data.report import LARGE_DROP, LARGE_GROUP, LISTED_ABOVE, DataReport
from trainers.data.scan import Progress, ScannedPhoto, scan
from trainers.data.sources import Source, common_folder, is_made, names_of, read_source, source_folders
from trainers.data.splits import Division, Kept, divide, keep_splits
from trainers.data.stratify import SPLITS, check_folds, check_ratios, too_small
from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write
from trainers.images import descriptor
from trainers.wording import count, first_line

DEFAULT_SPLITS = (0.7, 0.15, 0.15)
DUPLICATES = ("group", "drop", "keep")
COLUMNS = ("path", "label", "split", "sha256", "width", "height", "group")
FOLD = "fold"
FEW_OF_CLASS = 5
"""Images of a class in validation or test below which the class is a warning."""
DESCRIPTOR = "descriptor"
METADATA = b"orch"
MANIFEST = "manifest.parquet"
"""Name of the manifest in a sweep's folder."""


@dataclass(frozen=True)
class DataSource:
    """Where the photos are and how they are divided.

    ``source``: a folder of class folders, which may be nested ("recyclable/paper") and lie in top folders train,
    validation and test; a folder of pairs (``img_1.jpg`` next to ``img_1.txt`` that holds ``img_1.jpg, 0``); a .csv or
    .parquet table with the columns path (relative to the table), label and optionally split (train, validation, test)
    and group; a zip or tar archive of one of these; "builtin:digits"; or several of them in a tuple, which are merged.
    ``splits``: ratios of train, validation, test; None takes the data's own; "auto" takes the data's own where it has
    train and test (``with_own_or_ratios``), else ``DEFAULT_SPLITS``.
    ``folds``: 0, or 2 to 20: train and validation are one pool, divided into that many folds.
    ``duplicates``: "group" keeps exact and near duplicates in one split; "drop" keeps the first by path of each set
    of duplicates (of each label, where near duplicates differ in it) and none of those whose bytes are the same and
    labels are not; "keep" holds only exact duplicates together and lets near ones fall where they may. The table's
    own groups are never torn, and nothing is dropped for being in one. Look-alikes are grouped as near duplicates are,
    and never dropped.
    ``keep_splits``: an earlier manifest, or the folder of a sweep that has one: photos that it holds keep their splits
    (and folds, if their number is the same). Not used where the data's own splits are.
    ``cache``: folder where built-ins are written and archives unpacked. ``encoding``: of names in archives and of
    tables that are not UTF-8; "" guesses.
    """

    source: Source
    splits: tuple[float, float, float] | Literal["auto"] | None
    cache: Path
    seed: int = 0
    duplicates: str = "group"
    folds: int = 0
    encoding: str = ""
    keep_splits: Path | None = None


@dataclass(frozen=True, eq=False)
class Manifest:
    """The images of a data set. Two manifests are the same data where their fingerprints are equal.

    ``table``: path (posix, relative to ``root``), label, split, sha256 (of the file), width, height (px, after EXIF
    orientation), group (16 hex digits), fold, descriptor (``trainers.images.descriptor``; not in manifests written
    before it was); sorted by path. A row of fold 1, 2, ... has the split "train"; fold is
    0 for test, and for all where there are no folds. ``classes``: sorted; a label's index is its place there.
    ``seed``: the data's, of splits and augmentation. ``source`` and ``encoding``: as in ``DataSource``; ``folders``:
    where there are several sources, the folder of each.
    """

    root: Path
    classes: tuple[str, ...]
    seed: int
    table: pd.DataFrame
    source: Source = ""
    folders: tuple[Path, ...] = ()
    encoding: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the classes and the sorted (sha256, label, split), with folds also the fold; not over
        where the files lie."""
        columns = ("sha256", "label", "split", *((FOLD,) if self.folds else ()))
        rows = sorted(zip(*(self.table[c].tolist() for c in columns), strict=True))
        return hashlib.sha256(json.dumps([self.classes, rows]).encode()).hexdigest()[:16]

    def split(self, *names: str) -> Manifest:
        """The rows of these splits, with all the classes. Raises TrainerError for an unknown name."""
        unknown = sorted(set(names) - set(SPLITS))
        if unknown:
            raise TrainerError(f"there is no split {', '.join(map(repr, unknown))}; known are {', '.join(SPLITS)}.")
        rows = self.table[self.table["split"].isin(names)].reset_index(drop=True)
        return dataclasses.replace(self, table=rows)

    @cached_property
    def folds(self) -> int:
        """How many folds there are; 0 where the images are not divided into folds."""
        return int(self.table[FOLD].max()) if FOLD in self.table and len(self.table) else 0

    def fold(self, number: int) -> Manifest:
        """The same images, where those of fold ``number`` are "validation" and those of the other folds "train".

        Test stays as it is. Raises TrainerError for a fold that is not there.
        """
        if not 1 <= number <= self.folds:
            known = f"they are 1 to {self.folds}" if self.folds else "the data has none; set folds"
            raise TrainerError(f"there is no fold {number}; {known}.")
        split = self.table["split"].mask(self.table[FOLD] > 0, "train").mask(self.table[FOLD] == number, "validation")
        return dataclasses.replace(self, table=self.table.assign(split=split))

    def labels(self) -> np.ndarray:
        """int32 (images,): each label's place in ``classes``."""
        place = {label: i for i, label in enumerate(self.classes)}
        return np.array([place[label] for label in self.table["label"]], np.int32)

    def paths(self) -> list[Path]:
        """The absolute path of each image."""
        return [self.root / path for path in self.table["path"]]

    def write(self, path: Path) -> None:
        """Write one Parquet file; root, classes, seed and source in its metadata."""
        about = {
            "root": str(self.root),
            "classes": self.classes,
            "seed": self.seed,
            "source": self.source,
            "folders": [str(folder) for folder in self.folders],
            "encoding": self.encoding,
            "descriptor": descriptor.VERSION,
        }
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), METADATA: json.dumps(about).encode()})
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            pq.write_table(table, temporary)

    @classmethod
    def read(cls, path: Path, files: bool = True) -> Manifest:
        """What ``write`` wrote; without a column fold, as older ones are, no row is in a fold.

        Descriptors of another version are left out. Where ``files`` are wanted, what lay in the cache and is missing
        on this machine (a built-in, an archive's files) is put there again. Raises TrainerError for a missing file,
        for one that is not a manifest, and for an archive that is gone or has changed.
        """
        try:
            table = pq.read_table(path)
        except FileNotFoundError as error:
            raise TrainerError(f"there is no manifest {path}.") from error
        except (pa.ArrowException, OSError) as error:
            raise TrainerError(f"{path} cannot be read as a manifest: {first_line(error)}.") from error
        about = (table.schema.metadata or {}).get(METADATA)
        if about is None or not set(COLUMNS) <= set(table.column_names):
            raise TrainerError(f"{path} is a Parquet file but not a manifest of orch.")
        values = json.loads(about)
        source = values["source"]
        rows = table.to_pandas()
        if DESCRIPTOR in rows and values.get("descriptor") != descriptor.VERSION:
            rows = rows.drop(columns=DESCRIPTOR)
        manifest = cls(
            Path(values["root"]),
            tuple(values["classes"]),
            values["seed"],
            rows if FOLD in rows else rows.assign(fold=0),
            source if isinstance(source, str) else tuple(source),
            tuple(Path(folder) for folder in values.get("folders", ())),
            values.get("encoding", ""),
        )
        if files and manifest.source and is_made(manifest.source) and not all(p.exists() for p in manifest.paths()):
            return _made_again(manifest)
        return manifest


def build_manifest(source: DataSource, progress: Progress | None = None) -> tuple[Manifest, DataReport]:
    """Read every image once, find duplicates, make the splits.

    Unreadable images are left out and named in the report. Raises TrainerError with every problem at once: nothing
    there, one folder around all classes, a wrong table or text, a broken archive, a class too small to
    split, no splits at all.
    """
    _check(source)
    earlier = _earlier(source)
    listing = read_source(source.source, source.cache, source.encoding)
    if listing.problems:  # before the images are opened, which can take minutes
        raise TrainerError("\n".join(listing.problems))
    manifest, report = _examine(source, listing, earlier, progress)
    if manifest is None:
        raise TrainerError("\n".join(report.problems))
    return manifest, report


def check_data(source: DataSource, progress: Progress | None = None) -> DataReport:
    """Report on the data even if no manifest can be built: ``problems`` then gives the reasons.

    Raises TrainerError only if there is nothing to look at.
    """
    _check(source)
    earlier = _earlier(source)
    listing = read_source(source.source, source.cache, source.encoding)
    return _examine(source, listing, earlier, progress)[1]


def _check(source: DataSource) -> None:
    if source.duplicates not in DUPLICATES:
        raise TrainerError(f"duplicates is {source.duplicates!r}; it must be one of {', '.join(DUPLICATES)}.")
    if not isinstance(source.splits, str | None):
        check_ratios(source.splits)
    if source.folds:
        check_folds(source.folds)


def _earlier(source: DataSource) -> pd.DataFrame | None:
    """The table of the manifest whose splits are kept. Raises TrainerError if it cannot be read."""
    if source.keep_splits is None:
        return None
    path = source.keep_splits
    return Manifest.read(path / MANIFEST if path.is_dir() else path, files=False).table


def _examine(
    source: DataSource, listing: Listing, earlier: pd.DataFrame | None, progress: Progress | None
) -> tuple[Manifest | None, DataReport]:
    """Return the report, and the manifest if the report has no problems."""
    notes = SourceNotes([*listing.warnings], [*listing.problems])
    with Looks() as looks:
        photos = scan(listing, looks, progress)
        unreadable = _note_unreadable(listing, photos, notes)
        readable = [photo for photo in photos if not photo.reason]
        usable = np.array([not photo.reason for photo in photos], bool)  # a list of none would select columns
        rows = listing.rows[usable].reset_index(drop=True)
        columns = ("sha256", "width", "height", DESCRIPTOR)
        rows = rows.assign(**{c: [getattr(photo, c) for photo in readable] for c in columns})
        same = find_duplicates(rows, looks)
    groups = make_groups(rows, same, source.duplicates != "keep")
    kept = None if earlier is None else _keep(listing, rows, same, groups, source, earlier)
    rows["group"] = groups.names
    dropped = to_drop(rows, same, kept.known if kept else None) if source.duplicates == "drop" else []
    bridging = kept.bridging if kept else []
    _note_duplicates(rows, same, groups, source.duplicates, notes)
    _note_names(rows, notes)
    _note_kept(rows, kept, source, notes)
    report = DataReport(
        " + ".join(names_of(source.source)),
        unreadable=unreadable,
        exact_duplicates=tuple(tuple(rows["path"][i] for i in members) for members in same.exact),
        near_duplicates=tuple((rows["path"][a], rows["path"][b]) for a, b in same.near),
        look_alikes=tuple((rows["path"][a], rows["path"][b]) for a, b in same.alike),
        conflicts=tuple(tuple((rows["path"][i], rows["label"][i]) for i in members) for members in same.conflicts),
        dropped=tuple(rows["path"][i] for i in dropped),
        bridging=tuple(rows["path"][i] for i in bridging),
        left_out=tuple((file.path, file.reason, file.kind) for file in listing.left_out),
        root=str(listing.root),
    )
    gone = {*dropped, *bridging}
    kept = kept and kept.without(gone)
    rows = rows.drop(index=list(gone)).reset_index(drop=True)
    _note_classes(listing, rows, notes)
    listing, rows, ratios = with_own_or_ratios(listing, rows, source, notes)
    division = divide(listing, rows, ratios, source.folds, source.seed, notes, kept)
    rows["split"], rows[FOLD] = division.splits, np.array(division.folds, np.int64)
    _note_few_of_class(rows, notes)
    report = dataclasses.replace(report, own_splits=ratios is None)
    report = _with_counts(report, rows, division, source.folds, notes)
    if report.problems:
        return None, report
    classes = tuple(sorted(set(rows["label"])))
    table = rows[[*COLUMNS, FOLD, DESCRIPTOR]].astype({c: str for c in COLUMNS if c not in ("width", "height")})
    single = names_of(source.source)
    manifest = Manifest(listing.root, classes, source.seed, table, single[0] if len(single) == 1 else single)
    return dataclasses.replace(manifest, folders=listing.folders, encoding=source.encoding), report


def _keep(
    listing: Listing, rows: pd.DataFrame, same: Duplicates, groups: Groups, source: DataSource, earlier: pd.DataFrame
) -> Kept | None:
    """What ``earlier`` says of ``rows``, whose column group is still the source's; None where own splits are used."""
    copies = make_groups(rows, dataclasses.replace(same, alike=[]), source.duplicates != "keep").names
    grouped = rows.assign(group=groups.names)
    if with_own_or_ratios(listing, grouped, source, SourceNotes())[2] is None:
        return None
    return keep_splits(grouped, earlier, source.folds, copies)


def with_own_or_ratios(
    listing: Listing, rows: pd.DataFrame, source: DataSource, notes: SourceNotes
) -> tuple[Listing, pd.DataFrame, tuple[float, float, float] | None]:
    """Return ``listing`` and ``rows`` with the splits to use, and the ratios, or None where the data's own are used.

    For ``source.splits`` "auto": own splits of which train and test are there. If validation is missing and there are
    no folds, train is divided into both. Anything less is divided anew, with a warning.
    """
    if source.splits != "auto":
        return listing, rows, source.splits
    anew = dataclasses.replace(listing, rows=listing.rows.assign(split=None), without_splits=())
    if listing.without_splits:
        notes.warnings.append(
            "these sources have no splits of their own, so those of the others are not used and all images are "
            f"divided anew: {name_some(listing.without_splits)}. Give all of them splits to keep test images out of "
            "training."
        )
    found = set(rows["split"].dropna())
    if listing.without_splits or not found:
        return anew, rows, DEFAULT_SPLITS
    if not found & {*SPLITS}:
        notes.warnings.append(
            f"the column split holds {name_some(sorted(map(repr, found)))} and none of {', '.join(SPLITS)}, so it is "
            "not used, and all images are divided anew."
        )
        return anew, rows, DEFAULT_SPLITS
    known = found <= {*SPLITS} and not rows["split"].isna().any()
    if known and found == {"train", "test"} and not source.folds:
        return listing, _with_validation(anew, rows, source.seed, notes), None
    if known and not {"train", "test"} <= found:
        notes.warnings.append(
            f"the data's own splits are not used, because there is only {' and '.join(sorted(found))}: all images are "
            "divided anew. To keep them, name the part to train on train, and the part to hold out test."
        )
        return anew, rows, DEFAULT_SPLITS
    return listing, rows, None


def _with_validation(listing: Listing, rows: pd.DataFrame, seed: int, notes: SourceNotes) -> pd.DataFrame:
    """``rows`` of train and test, with part of train as validation, in the proportion of the default ratios."""
    train, validation, _ = DEFAULT_SPLITS
    share = validation / (train + validation)
    pool = rows[rows["split"] == "train"]
    found = SourceNotes()
    three = ((1 - share) / 2, share, (1 - share) / 2)  # the first and the last are train
    division = divide(listing, pool.reset_index(drop=True), three, 0, seed, found)
    notes.problems += found.problems
    parts = ["validation" if split == "validation" else "train" for split in division.splits]
    notes.warnings.append(
        f"the data has its own train and test but no validation: {parts.count('validation'):,} of the "
        f"{len(parts):,} images of train are used for validation. To train on each of them, use folds."
    )
    return rows.assign(split=pd.Series(parts, index=pool.index).reindex(rows.index).fillna(rows["split"]))


def _note_unreadable(listing: Listing, photos: Sequence[ScannedPhoto], notes: SourceNotes) -> dict[str, str]:
    unreadable = {path: p.reason for path, p in zip(listing.rows["path"], photos, strict=True) if p.reason}
    if unreadable:
        notes.warnings.append(f"{LISTED_ABOVE} {count(len(unreadable), 'image')}, {name_some(unreadable)}.")
    return unreadable


def _note_duplicates(rows: pd.DataFrame, same: Duplicates, groups: Groups, duplicates: str, notes: SourceNotes) -> None:
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
    would_drop = len(to_drop(rows, same))
    if would_drop > LARGE_DROP * len(rows):
        verb = "leaves" if duplicates == "drop" else "would leave"
        notes.warnings.append(
            f"duplicates: drop {verb} out {count(would_drop, 'image')}, {would_drop / len(rows):.1%} of all."
        )
    if groups.cut:
        notes.warnings.append(
            f"{count(groups.cut, 'image')} look alike in chains too long to be held in one split: a group of "
            f"look-alikes holds at most {groups.most} images, the most similar ones. If photos of one object or series "
            "belong together, give a table with a column group."
        )


def _note_names(rows: pd.DataFrame, notes: SourceNotes) -> None:
    """Warn of file names that look like those of copies, and say whether the pictures do as well."""
    pairs = copies_by_name(rows["path"].tolist())
    apart = [(a, b) for a, b in pairs if rows["group"][a] != rows["group"][b]]
    if not pairs:
        return
    found = f"{len(pairs) - len(apart):,} of them are kept in one split with it"
    rest = f"{len(apart):,} {'is' if len(apart) == 1 else 'are'} not{', such as' if apart else ':'}"
    named = name_some(f"{rows['path'][a]} of {rows['path'][b]}" for a, b in apart or pairs)
    notes.warnings.append(
        f"{count(len(pairs), 'file name')} {'looks' if len(pairs) == 1 else 'look'} like that of a copy of another "
        f"file; {found}, {rest} {named}."
        f"{' If these are copies, give a table with a column group.' if apart else ''}"
    )


def _note_kept(rows: pd.DataFrame, kept: Kept | None, source: DataSource, notes: SourceNotes) -> None:
    if kept is None:
        if source.keep_splits is not None:
            notes.warnings.append("keep_splits is not used, because the data's own splits are.")
        return
    if not kept.known.any():
        notes.warnings.append(
            f"none of the {len(rows):,} images is in {source.keep_splits}, whose splits are to be kept; "
            "all are divided anew."
        )
    if kept.bridging:
        notes.warnings.append(
            f"left out, because they are copies of photos in two splits: {count(len(kept.bridging), 'image')}, "
            f"{name_some(rows['path'][kept.bridging])}."
        )


def _note_classes(listing: Listing, rows: pd.DataFrame, notes: SourceNotes) -> None:
    gone = sorted(set(listing.rows["label"]) - set(rows["label"]))
    notes.problems += [f"class {label!r} has no image left that can be used." for label in gone]
    if rows["label"].nunique() == 1 and not gone:
        notes.problems.append(f"there is only one class, {rows['label'][0]!r}; a classifier needs two or more.")


def _note_few_of_class(rows: pd.DataFrame, notes: SourceNotes) -> None:
    """Warn of classes with too few images in validation or test to judge them by."""
    parts = [split for split in SPLITS[1:] if (rows["split"] == split).any()]
    counts = {split: rows["label"][rows["split"] == split].value_counts() for split in parts}
    few = {}
    for label in sorted(set(rows["label"])):
        found = [(int(counts[split].get(label, 0)), split) for split in parts]
        if any(0 < number < FEW_OF_CLASS for number, _ in found):
            few[label] = " and ".join(f"{number} in {split}" for number, split in found if number < FEW_OF_CLASS)
    if few:
        notes.warnings.append(
            f"{'a class has' if len(few) == 1 else f'{len(few):,} classes have'} fewer than {FEW_OF_CLASS} images in "
            f"validation or test, too few to judge by: {name_some(f'{label} ({n})' for label, n in few.items())}. Add "
            "images, or use folds."
        )


def _with_counts(
    report: DataReport, rows: pd.DataFrame, division: Division, folds: int, notes: SourceNotes
) -> DataReport:
    """``report`` with what can be counted once it is known which images are used and where."""
    labels = rows["label"]
    splits = {name: _by_class(labels[rows["split"] == name]) for name in SPLITS if (rows["split"] == name).any()}
    numbers = sorted(set(rows[FOLD]) - {0})
    sizes = rows["group"].value_counts()
    together = sizes[sizes > 1]
    return dataclasses.replace(
        report,
        images=len(rows),
        classes=_by_class(labels),
        splits=splits,
        folds=tuple(_by_class(labels[rows[FOLD] == number]) for number in numbers),
        sizes={
            side: (int(rows[side].min()), int(rows[side].median()), int(rows[side].max()))
            for side in ("width", "height")
            if len(rows)
        },
        groups=len(together),
        largest_group=int(together.max()) if len(together) else 0,
        too_small=too_small(labels.tolist(), rows["group"].tolist(), max(len(SPLITS), folds + 1)),
        straddling=tuple(tuple(rows["path"][i] for i in members) for members in division.torn),
        warnings=tuple(notes.warnings),
        problems=tuple(notes.problems),
    )


def _by_class(labels: pd.Series) -> dict[str, int]:
    return {str(c): int(n) for c, n in labels.value_counts().sort_index().items()}


def _made_again(manifest: Manifest) -> Manifest:
    """Return ``manifest`` with its images' current paths; unpack archives and write built-ins again.

    The cache may be elsewhere than when the manifest was made, so each path is moved from its source's old folder to
    the new one.
    """
    old = manifest.folders or (manifest.root,)
    new = source_folders(manifest.source, _cache_folder(), manifest.encoding)
    moves = sorted(zip(map(str, old), map(str, new), strict=True), key=lambda move: -len(move[0]))
    root = common_folder(new)
    paths = [os.path.relpath(_moved(os.path.normpath(path), moves), root) for path in manifest.paths()]
    table = manifest.table.assign(path=pd.Series(paths, dtype=manifest.table["path"].dtype))
    found = dataclasses.replace(manifest, root=root, table=table, folders=new if manifest.folders else ())
    missing = [path.as_posix() for path in found.paths() if not path.exists()]
    if missing:
        raise TrainerError(
            f"{count(len(missing), 'image')} of the manifest cannot be found in {' + '.join(names_of(found.source))} "
            f"any more: {name_some(missing)}. Bring back the data as it was, or begin a new sweep."
        )
    return found


def _moved(path: str, moves: Sequence[tuple[str, str]]) -> str:
    for old, new in moves:
        if path.startswith(f"{old}/"):
            return new + path[len(old) :]
    return path


def _cache_folder() -> Path:
    """Folder for built-ins and unpacked archives: ``ORCH_CACHE``, or the user's cache."""
    given = os.environ.get("ORCH_CACHE")
    base = Path(given or os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return base.expanduser() if given else base.expanduser() / "orch"
    except RuntimeError as error:
        raise TrainerError("this user has no home folder, so set ORCH_CACHE to a folder for the cache.") from error
