"""Sentences about photos that have been read: duplicates, names, kept splits, classes; and the counts of the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd

from trainers.data.candidates import copies_by_name
from trainers.data.data_source import DataSource
from trainers.data.duplicates import Duplicates, Groups, to_drop
from trainers.data.listing import Listing, SourceNotes, name_some
from trainers.data.manifest import FOLD
from trainers.data.report import LARGE_DROP, LARGE_GROUP, LISTED_ABOVE, DataReport
from trainers.data.scan import ScannedPhoto
from trainers.data.splits import Division, Kept
from trainers.data.stratify import SPLITS, too_small
from trainers.wording import count

FEW_OF_CLASS = 5
"""Images of a class in validation or test below which the class is a warning."""

LARGE_IN_CLASS = 0.1
"""Share of a class's images above which one group of it is large."""
SHORT_OF_TRAIN = 0.2
"""Share of a class's images by which train may fall short of the ratios without a warning."""


def note_unreadable(listing: Listing, photos: Sequence[ScannedPhoto], notes: SourceNotes) -> dict[str, str]:
    unreadable = {path: p.reason for path, p in zip(listing.rows["path"], photos, strict=True) if p.reason}
    if unreadable:
        notes.warnings.append(f"{LISTED_ABOVE} {count(len(unreadable), 'image')}, {name_some(unreadable)}.")
    return unreadable


def note_duplicates(rows: pd.DataFrame, same: Duplicates, groups: Groups, duplicates: str, notes: SourceNotes) -> None:
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


def note_names(rows: pd.DataFrame, notes: SourceNotes) -> None:
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


def note_kept(rows: pd.DataFrame, kept: Kept | None, source: DataSource, notes: SourceNotes) -> None:
    if kept is None:
        if source.keep_splits is not None and not source.kept_by_default:
            notes.warnings.append("keep_splits is not used, because the data's own splits are.")
        return
    if not kept.known.any() and not source.kept_by_default:
        notes.warnings.append(
            f"none of the {len(rows):,} images is in {source.keep_splits}, whose splits are to be kept; "
            "all are divided anew."
        )
    if kept.bridging:
        notes.warnings.append(
            f"left out, because they are copies of photos in two splits: {count(len(kept.bridging), 'image')}, "
            f"{name_some(rows['path'][kept.bridging])}."
        )


def note_torn(rows: pd.DataFrame, division: Division, notes: SourceNotes) -> None:
    """Warn of groups that are torn by splits that are kept; those that the data's own splits tear are named there."""
    if division.torn:
        notes.warnings.append(
            f"the splits that are kept tear {count(len(division.torn), 'group')} of images that belong together: "
            f"{name_some(' ~ '.join(rows['path'][members]) for members in division.torn)}. Set data.keep_splits: none "
            "to divide them anew."
        )


def empty_sentence(source: DataSource, division: Division) -> str:
    """Say that the splits that would be kept by default are not, because ``division`` by them has an empty part."""
    return (
        f"the splits of {source.keep_splits}, the earlier sweep of this model, would leave no image in "
        f"{' and '.join(division.empty)}, so all are divided anew; test may hold photos that earlier models have seen."
    )


def kept_sentences(kept: Kept | None, source: DataSource) -> tuple[str, ...]:
    """Say which manifest's splits are kept, for how many of the images, and how to divide all anew."""
    if kept is None or source.keep_splits is None:
        return () if source.keep_splits else source.split_notes
    known, total = int(kept.known.sum()), len(kept.splits)
    new = f", {total - known:,} {'is' if total - known == 1 else 'are'} new" if known < total else ""
    verb = "keeps its split" if known == 1 else "keep their splits"
    sentence = f"{known:,} of {count(total, 'image')} {verb} of {source.keep_splits}{new}"
    if not known and source.kept_by_default:
        sentence = (
            f"none of {count(total, 'image')} is in {source.keep_splits}, the earlier sweep of this model, so all are "
            "divided anew; to keep those of another sweep, set data.keep_splits to its folder"
        )
        return (*source.split_notes, sentence)
    how = "; data.keep_splits: none divides all anew" if source.kept_by_default else ""
    return (*source.split_notes, f"{sentence}{how}")


def note_classes(listing: Listing, rows: pd.DataFrame, notes: SourceNotes) -> None:
    gone = sorted(set(listing.rows["label"]) - set(rows["label"]))
    if rows.empty and gone:
        notes.problems.append(
            f"no image can be used: all {len(listing.rows):,} of the source are left out; the report names each with "
            "its reason."
        )
        return
    notes.problems += [
        f"class {label!r} has no image left that can be used. Add images to it, or take the class out."
        for label in gone
    ]
    if rows["label"].nunique() == 1 and not gone:
        notes.problems.append(
            f"there is only one class, {rows['label'][0]!r}; a classifier needs two or more. Add images of another "
            "class."
        )


def note_few_of_class(rows: pd.DataFrame, notes: SourceNotes) -> None:
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


def note_uneven_groups(rows: pd.DataFrame, ratios: Sequence[float], notes: SourceNotes) -> None:
    """Warn of classes whose share of train is far below the one of ``ratios``, because their groups are large."""
    splits, folds = rows["split"], rows[FOLD].any()
    if splits.isna().any() or rows.empty:
        return
    train, validation, test = ratios
    wanted = (train + (validation if folds else 0)) / (train + validation + test)
    short = {}
    for label, own in rows.groupby("label"):
        largest = int(own["group"].value_counts().iloc[0])
        held = int((own["split"] == SPLITS[0]).sum())
        if largest > max(1, LARGE_IN_CLASS * len(own)) and held < (wanted - SHORT_OF_TRAIN) * len(own):
            short[label] = (
                f"{held:,} of {len(own):,} images, {held / len(own):.0%}; its largest group holds {largest:,}"
            )
    if short:
        all_held = int((splits == SPLITS[0]).sum())
        who = "a class has" if len(short) == 1 else f"{len(short):,} classes have"
        notes.warnings.append(
            f"{who} far fewer images in train than the {wanted:.0%} of the ratios, because a group goes to one split "
            f"whole: {name_some(f'{label} ({figures})' for label, figures in short.items())}. Train holds "
            f"{all_held:,} of all {len(rows):,} images, {all_held / len(rows):.0%}. Add images of other groups, make "
            "the groups smaller, or give a table with a column split."
        )


def with_counts(
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
