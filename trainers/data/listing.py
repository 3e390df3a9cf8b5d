"""The listing that every kind of source gives before any image is opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

COLUMNS = ("path", "label", "split", "group")
REASON = "reason"
"""Column of a listing: why an image is left out unopened, or None."""


@dataclass(frozen=True)
class Listing:
    """The images of a source and their labels, before any image is opened.

    ``rows``: path (posix, relative to ``root``), label, split (None if the source has no splits), group (None
    if an image has none), reason (None, or why it is not opened); sorted by path. ``problems`` prevent a
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
    """Messages collected while reading a source: ``problems`` prevent a manifest, ``warnings`` do not."""

    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def listing(root: Path, rows: pd.DataFrame, notes: SourceNotes) -> Listing:
    """Return a ``Listing`` of ``rows`` sorted by path; missing columns are None."""
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
    """Join the first ``limit`` names, and count the others."""
    names = list(names)
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
