"""The listing that every kind of source gives before any image is opened, and its words: classes and splits."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

COLUMNS = ("path", "label", "split", "group")
REASON = "reason"
"""Column of a listing: why an image is left out unopened, or None."""
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "hold-out", "hold_out", "heldout"), "test"),
}
"""Word for a split, in lower case, to the split."""
ADDED_TO_SPLITS = re.compile(r"[ _-]?(set|split|data|images|imgs|photos)\Z")
"""What may follow such a word in a folder's name: ``train_set``, ``test images``."""


@dataclass(frozen=True)
class LeftOut:
    """A file that is not used. ``path``: relative to the listing's root; ``kind``: one word or two; ``reason``: why."""

    path: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The images of a source and their labels, before any image is opened.

    ``rows``: path (posix, relative to ``root``), label (NFC, without blanks at the ends), split (None if the source has
    no splits), group (None if an image has none), reason (None, or why it is not opened); sorted by path. ``problems``
    prevent a manifest, ``warnings`` do not. ``left_out``: files that are no rows.
    ``folders``: of several sources, the folder of each; empty where ``root`` is the only one.
    ``without_splits``: of several sources, those that have no splits of their own where others have.
    """

    root: Path
    rows: pd.DataFrame
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    without_splits: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def has_splits(self) -> bool:
        return bool(self.rows["split"].notna().any())


@dataclass
class SourceNotes:
    """Messages collected while reading a source: ``problems`` prevent a manifest, ``warnings`` do not."""

    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def leave(self, paths: Iterable[str], kind: str, reason: str) -> None:
        """Note the files at ``paths`` as left out."""
        self.left_out += [LeftOut(path, kind, reason) for path in paths]


def listing(root: Path, rows: pd.DataFrame, notes: SourceNotes) -> Listing:
    """Return a ``Listing`` of ``rows`` sorted by path; missing columns are None.

    Labels become NFC without blanks at the ends, with a warning where spellings are united; words for splits become
    the splits' names.
    """
    rows = rows.reindex(columns=[*COLUMNS, REASON]).astype(object)
    rows = rows.where(rows.notna(), None).sort_values("path", ignore_index=True)
    given = rows["label"].tolist()
    spellings = {label: label_of(label) for label in dict.fromkeys(given)}
    rows["label"] = [spellings[label] for label in given]
    rows["split"] = [split and split_of(split) for split in rows["split"]]
    _note_united(spellings, notes)
    return Listing(root, rows, tuple(notes.warnings), tuple(notes.problems), left_out=tuple(notes.left_out))


def label_of(text: str) -> str:
    """Return a class name in its one spelling: NFC, and no blanks at the ends of its parts.

    A name of blanks alone stays as it is.
    """
    parts = [unicodedata.normalize("NFC", part).strip() or part for part in text.split("/")]
    return "/".join(parts)


def split_of(word: str) -> str:
    """Return the split that ``word`` stands for, in any case and with or without "set"; ``word`` itself if none."""
    plain = unicodedata.normalize("NFC", word).strip().casefold()
    return SPLIT_NAMES.get(plain) or SPLIT_NAMES.get(ADDED_TO_SPLITS.sub("", plain)) or word


def is_split(word: str) -> bool:
    return split_of(word) in SPLIT_NAMES.values()


def like_split(name: str) -> str:
    """Return the split that a part of ``name`` stands for (``train2017``, ``my-test``); "" if none does."""
    words = [split_of(word) for word in [name, *re.split(r"[\W\d_]+", name)]]
    return next((word for word in words if word in SPLIT_NAMES.values()), "")


def note_spellings(labels: Iterable[str], notes: SourceNotes) -> None:
    """Warn of class names that differ in upper and lower case, in joining signs or as numbers do (0 and 0.0)."""
    spellings: dict[str, set[str]] = {}
    for label in set(labels):
        spellings.setdefault(_without_spelling(label), set()).add(label)
    different = [" = ".join(sorted(names)) for _, names in sorted(spellings.items()) if len(names) > 1]
    if different:
        notes.warnings.append(
            f"class names that differ only in their spelling stay apart: {name_some(different)}. If they are one "
            "class, give them one name."
        )


def _without_spelling(label: str) -> str:
    text = unicodedata.normalize("NFKC", label).casefold()
    if re.fullmatch(r"[0-9]+(\.0*)?", text):
        return text.partition(".")[0].lstrip("0") or "0"
    return re.sub(r"[\s_-]+", " ", text)


def _note_united(spellings: dict[str, str], notes: SourceNotes) -> None:
    united: dict[str, list[str]] = {}
    for spelling, label in spellings.items():
        united.setdefault(label, []).append(spelling)
    several = [" = ".join(map(_visible, sorted(names))) for _, names in sorted(united.items()) if len(names) > 1]
    if several:
        notes.warnings.append(
            f"spellings of a class name that look the same, or differ in blanks at the ends, are one class: "
            f"{name_some(several)}."
        )


def _visible(name: str) -> str:
    """Quote ``name`` with combining letters escaped, so that two spellings of one name look different."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


def is_text(name: str) -> bool:
    """Whether a file's name is valid UTF-8; Linux allows any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_some(names: Iterable[str], limit: int = 5) -> str:
    """Join the first ``limit`` names, and count the others."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
