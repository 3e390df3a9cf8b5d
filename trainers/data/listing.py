"""What every kind of source says before any image is opened, and the words it is said in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

COLUMNS = ("path", "label", "split", "group")
REASON = "reason"
"""Column of a listing: why an image is left out without being opened; None for all others."""


@dataclass(frozen=True)
class Listing:
    """What a source says before any image is opened.

    ``rows``: path (posix, relative to ``root``), label, split (None where the source has no splits), group (None
    where an image has none), reason (None, or why it is not even opened); sorted by path. ``problems`` prevent a
    manifest, ``warnings`` do not.
    ``folders``: of several sources, the folder of each; empty where ``root`` is the only one.
    ``without_splits``: of several sources, those that have no splits of their own where others have.
    """

    root: Path
    rows: pd.DataFrame
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    without_splits: tuple[str, ...] = ()

    @property
    def has_splits(self) -> bool:
        return bool(self.rows["split"].notna().any())


@dataclass
class SourceNotes:
    """Sentences gathered on the way: ``problems`` prevent a manifest, ``warnings`` do not."""

    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def listing(root: Path, rows: pd.DataFrame, notes: SourceNotes) -> Listing:
    """A ``Listing`` of ``rows``, with every column, None for what is missing, sorted by path."""
    rows = rows.reindex(columns=[*COLUMNS, REASON]).astype(object)
    rows = rows.where(rows.notna(), None).sort_values("path", ignore_index=True)
    return Listing(root, rows, tuple(notes.warnings), tuple(notes.problems))


def is_text(name: str) -> bool:
    """Whether a file's name is valid UTF-8; Linux allows any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_some(names: Iterable[str], limit: int = 5) -> str:
    """The first ``limit`` names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
