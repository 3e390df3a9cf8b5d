"""Build a manifest: read a source, find duplicates, make the splits.

Imports without TensorFlow. Splits and folds are made here, before any augmentation; duplicates share a group, and a
group never straddles two splits or folds unless the data's own splits say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from trainers.data.data_source import DataSource, check_source
from trainers.data.duplicates import Duplicates, Groups, find_duplicates, make_groups, to_drop
from trainers.data.findings import (
    empty_sentence,
    kept_sentences,
    note_classes,
    note_duplicates,
    note_few_of_class,
    note_kept,
    note_names,
    note_torn,
    note_uneven_groups,
    note_unreadable,
    with_counts,
)
from trainers.data.listing import Listing, SourceNotes
from trainers.data.manifest import COLUMNS, DESCRIPTOR, FOLD, MANIFEST, Manifest
from trainers.data.near_duplicates import Looks
from trainers.data.own_splits import with_own_or_ratios
from trainers.data.report import DataReport
from trainers.data.scan import Progress, scan
from trainers.data.sources.read import names_of, read_source
from trainers.data.splits import Kept, divide, keep_splits
from trainers.errors import TrainerError


def build_manifest(source: DataSource, progress: Progress | None = None) -> tuple[Manifest, DataReport]:
    """Read every image once, find duplicates, make the splits.

    Unreadable images are left out and named in the report. Raises TrainerError with every problem at once: nothing
    there, one folder around all classes, a wrong table or text, a broken archive, a class too small to
    split, no splits at all.
    """
    check_source(source)
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
    check_source(source)
    earlier = _earlier(source)
    listing = read_source(source.source, source.cache, source.encoding)
    return _examine(source, listing, earlier, progress)[1]


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
    with Looks(folder=source.cache) as looks:
        photos = scan(listing, looks, progress, source.cache)
        unreadable = note_unreadable(listing, photos, notes)
        readable = [photo for photo in photos if not photo.reason]
        usable = np.array([not photo.reason for photo in photos], bool)  # a list of none would select columns
        rows = listing.rows[usable].reset_index(drop=True)
        columns = ("sha256", "width", "height", DESCRIPTOR)
        rows = rows.assign(**{c: [getattr(photo, c) for photo in readable] for c in columns})
        same = find_duplicates(rows, looks, source.cache)
    return _divided(source, _Read(listing, rows, same, unreadable, notes), earlier)


@dataclasses.dataclass(frozen=True)
class _Read:
    """Photos that have been read: one of ``rows`` for each that can be used, and what was noted on the way."""

    listing: Listing
    rows: pd.DataFrame
    same: Duplicates
    unreadable: Mapping[str, str]
    notes: SourceNotes


def _divided(
    source: DataSource, read: _Read, earlier: pd.DataFrame | None, warnings: Sequence[str] = ()
) -> tuple[Manifest | None, DataReport]:
    """Return the report, and the manifest if the report has no problems.

    Divides all anew, with a warning, where ``earlier`` was found by default and would leave a split or fold empty.
    """
    notes = SourceNotes([*read.notes.warnings, *warnings], [*read.notes.problems])
    listing, rows, same = read.listing, read.rows, read.same
    groups = make_groups(rows, same, source.duplicates != "keep")
    kept = None if earlier is None else _keep(listing, rows, same, groups, source, earlier)
    rows = rows.assign(group=groups.names)
    dropped = to_drop(rows, same, kept.known if kept else None) if source.duplicates == "drop" else []
    bridging = kept.bridging if kept else []
    note_duplicates(rows, same, groups, source.duplicates, notes)
    note_names(rows, notes)
    note_kept(rows, kept, source, notes)
    report = DataReport(
        " + ".join(names_of(source.source)),
        unreadable=read.unreadable,
        exact_duplicates=tuple(tuple(rows["path"][i] for i in members) for members in same.exact),
        near_duplicates=tuple((rows["path"][a], rows["path"][b]) for a, b in same.near),
        look_alikes=tuple((rows["path"][a], rows["path"][b]) for a, b in same.alike),
        conflicts=tuple(tuple((rows["path"][i], rows["label"][i]) for i in members) for members in same.conflicts),
        dropped=tuple(rows["path"][i] for i in dropped),
        bridging=tuple(rows["path"][i] for i in bridging),
        kept=kept_sentences(kept, source),
        left_out=tuple((file.path, file.reason, file.kind) for file in listing.left_out),
        root=str(listing.root),
    )
    gone = {*dropped, *bridging}
    kept = kept and kept.without(gone)
    rows = rows.drop(index=list(gone)).reset_index(drop=True)
    note_classes(listing, rows, notes)
    listing, rows, ratios = with_own_or_ratios(listing, rows, source, notes)
    division = divide(listing, rows, ratios, source.folds, source.seed, notes, kept)
    if division.empty and source.kept_by_default:
        anew = dataclasses.replace(source, keep_splits=None)
        return _divided(anew, read, None, [empty_sentence(source, division)])
    rows["split"], rows[FOLD] = division.splits, np.array(division.folds, np.int64)
    note_few_of_class(rows, notes)
    if ratios is not None:
        note_torn(rows, division, notes)
        note_uneven_groups(rows, ratios, notes)
    report = dataclasses.replace(report, own_splits=ratios is None)
    report = with_counts(report, rows, division, source.folds, notes)
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
