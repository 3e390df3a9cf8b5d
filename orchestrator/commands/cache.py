"""`orch cache`: what the cache holds, as a table and in words, and the sentences on what a clean-up did."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchError
from orchestrator.terminal_table import Column, FittedTable
from trainers.config import parts_of
from trainers.store import eviction
from trainers.store.eviction import Removed
from trainers.store.inventory import OTHER_FOLDERS, Contents, ShelfFolder, contents, rows_of, verify
from trainers.wording import GB, count

if TYPE_CHECKING:
    from rich.console import Console

DAY_S = 86_400.0
"""Seconds of a day."""
KINDS = {
    "images": "photos, decoded and made square",
    "looks": "thumbnails and keypoints of photos, by which copies are found",
    "verdicts": "which pairs of photos are the same, look alike or differ",
    "features": "what a frozen part of a backbone makes of the photos",
    **OTHER_FOLDERS,
}
"""Folder of the cache -> what it holds; ``orch cache clear`` takes these names."""
OLD = "written by an older version, which this one does not read"


@dataclass(frozen=True)
class Entry:
    """One line of ``orch cache list``. ``used``: seconds since the epoch of the last use, None if not recorded.

    ``rows`` and ``seconds`` (of computing them) are None for what holds no rows. ``damaged`` counts segments whose list
    of keys is damaged and, if rows were read, wrong rows.
    """

    kind: str
    name: str
    what: str
    bytes: int
    used: float | None = None
    rows: int | None = None
    seconds: float | None = None
    damaged: int = 0

    def to_dict(self) -> dict[str, Any]:
        used = None if self.used is None else datetime.fromtimestamp(self.used).astimezone().isoformat("T", "seconds")
        return {**self.__dict__, "used": used}


def entries(found: Contents, check: bool = False) -> list[Entry]:
    """List the shelves and other folders, the largest first. ``check``: compare every row with its checksum."""
    shelves = [_shelf_entry(shelf, check) for shelf in found.shelves]
    others = [Entry(other.name, other.name, KINDS.get(other.name, "files"), other.bytes) for other in found.others]
    return sorted(shelves + others, key=lambda entry: -entry.bytes)


def _shelf_entry(shelf: ShelfFolder, check: bool) -> Entry:
    used = shelf.used or None
    if shelf.is_old:
        return Entry(shelf.kind, shelf.folder.name, f"{shelf.kind} {OLD}", shelf.bytes, used)
    held = rows_of(shelf)
    damaged = held.damaged + (verify(shelf) if check else 0)
    what = in_words(shelf.kind, shelf.description().get("description", {}))
    return Entry(shelf.kind, shelf.folder.name, what, shelf.bytes, used, held.rows, held.seconds, damaged)


def in_words(kind: str, description: dict[str, Any]) -> str:
    """Describe a row by what it depends on: "photos at 224 px, squash, decode needed"."""
    view, decode = parts_of(description.get("view", ""))
    framing = view if decode == "ample" else f"{view}, decode {decode}"
    if kind == "images" and "size" in description:
        return ", ".join(filter(None, [f"photos at {description['size']} px", framing]))
    if kind == "features" and "backbone" in description:
        layer = description.get("layer") or "its end"
        words = f"{description['backbone']} at {description.get('image_size', '?')} px to {layer}"
        more = [framing, description.get("dtype", "")]
        if description.get("output_stride"):
            more.append(f"stride {description['output_stride']}")
        if description.get("stages"):
            more.append(f"with {len(description['stages'])} pooled stages")
        return ", ".join(filter(None, [words, *more]))
    return ", ".join(f"{name} {value}" for name, value in sorted(description.items())) or "no description"


def size(amount: int) -> str:
    """Format a size: "1.2 GB", "340 MB", "12 kB"; decimal, as ORCH_CACHE_GB."""
    for unit, name in ((GB, "GB"), (10**6, "MB"), (10**3, "kB")):
        if amount >= unit:
            return f"{amount / unit:.1f} {name}" if amount < 100 * unit else f"{amount / unit:,.0f} {name}"
    return f"{amount} B"


def ago(used: float | None, now: float) -> str:
    if used is None:
        return ""
    passed = max(0.0, now - used)
    for unit_s, name in ((DAY_S, "day"), (3600.0, "hour"), (60.0, "minute")):
        if passed >= unit_s:
            number = int(passed // unit_s)
            return f"{count(number, name)} ago"
    return "just now"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_table(found: Contents, rows: Sequence[Entry], console: Console) -> None:
    if not rows:
        console.print(_empty(found))
        return
    columns = (
        Column("kind", "left"),
        Column("what", "left"),
        Column("rows", leaves=1),
        Column("size"),
        Column("last used", "left", leaves=2),
        Column("", "left"),
    )
    table = FittedTable("", columns, names=2)
    now = time.time()
    for row in rows:
        number = "" if row.rows is None else f"{row.rows:,}"
        damage = f"{row.damaged} damaged" if row.damaged else ""
        table.add_row(row.kind, row.what, number, size(row.bytes), ago(row.used, now), damage)
    table.print(console)
    console.print(f"\n{_total(found)}", soft_wrap=True)
    if any(row.damaged for row in rows):
        console.print("What is damaged is never used: it is computed again when it is needed.", soft_wrap=True)


def _empty(found: Contents) -> str:
    return f"the cache {found.cache} is empty; it may take {size(found.limit_bytes)}."


def _total(found: Contents) -> str:
    why = "ORCH_CACHE_GB" if found.limit_is_set else "half of the disk's free space and 200 GB at most; ORCH_CACHE_GB"
    verb = "says" if found.limit_is_set else "sets it"
    return f"{size(found.bytes)} in {found.cache}, of {size(found.limit_bytes)} that it may take ({why} {verb})."


def to_dict(found: Contents, rows: Sequence[Entry]) -> dict[str, Any]:
    return {
        "cache": str(found.cache),
        "bytes": found.bytes,
        "limit_bytes": found.limit_bytes,
        "limit_is_set": found.limit_is_set,
        "entries": [row.to_dict() for row in rows],
    }


def explanation(found: Contents, rows: Sequence[Entry]) -> list[str]:
    """Return paragraphs: what each entry is, cost and is read by; then how the limit works."""
    if not rows:
        return [_empty(found), *_HOW[:1]]
    now = time.time()
    return [_paragraph(row, now) for row in rows] + [_total(found), *_HOW]


def _paragraph(row: Entry, now: float) -> str:
    begin = f"{row.kind}: {row.what}; {size(row.bytes)}"
    if OLD in row.what:
        return f"{begin}. {_OLD_GOES}"
    if row.rows is None:
        return f"{begin}. {_READERS.get(row.kind, 'Nothing here is known to this version.')}"
    each = row.bytes / row.rows if row.rows else 0
    parts = [f"{begin}, {row.rows:,} rows of {size(int(each))}, last used {ago(row.used, now) or 'never'}."]
    if row.seconds and row.seconds >= 1:
        parts.append(f"Computing it took {duration(row.seconds)} of a worker's time, which reading it saves.")
    parts.append(_READERS.get(row.kind, ""))
    if row.damaged:
        parts.append(f"{row.damaged} parts of it are damaged; they are never used, and computed again when needed.")
    return " ".join(filter(None, parts))


_READERS = {
    "images": "Read again by every trial, sweep and leaderboard over these photos at this size and view.",
    "features": (
        "Read again by every trial, refit and sweep over these photos whose backbone is frozen up to this layer, with "
        "the same weights; head, dropout, learning rate and the like may differ."
    ),
    "archives": "Read by sweeps whose data is such an archive; unpacked again when it is missing.",
    "builtin": "Read by the quick sweep; written again when it is missing.",
    "index": "Lets a sweep find its features without building the network first; made again when it is missing.",
    "calibration": "Read by orch plan and orch sweep; measured again, in under a minute, when it is missing.",
}
_OLD_GOES = "It goes first when room is needed; `orch cache prune` removes it now."
_HOW = (
    "How it works: each photo is decoded once per size and view, and each frozen part of a backbone runs once over "
    "each photo or augmented copy. Rows are kept under a key that names the photo by its content, so that trials, "
    "workers and later sweeps share them. A row is compared with its checksum when a process reads it first.",
    "When the limit is reached, the rows unused for longest make room for new ones; rows that a running sweep has open "
    "stay. A set that is larger than the limit is not stored: its frozen part then runs in every epoch.",
    "Everything here can be removed without losing a result: orch cache prune --to 10 keeps the 10 GB used last, and "
    "orch cache clear features removes one kind. What is needed again is computed again.",
)


def prune(cache: Path, to_gb: float | None, older_than_days: float | None) -> str:
    """Clean up; return a sentence on it. Without a size or an age: down to the limit in force."""
    found = contents(cache)
    if not found.bytes:
        return _empty(found)
    to_bytes = found.limit_bytes if to_gb is None and older_than_days is None else None
    if to_gb is not None:
        to_bytes = int(to_gb * GB)
    older_than_s = None if older_than_days is None else older_than_days * DAY_S
    removed = eviction.prune(cache, to_bytes, older_than_s)
    left = contents(cache).bytes
    sentence = _summary(removed, left)
    if to_bytes is not None and left > to_bytes and not removed.in_use_bytes:
        others = sum(other.bytes for other in found.others)
        sentence += f" {size(others)} of it are no rows; `orch cache clear` removes them."
    return sentence


def clear(cache: Path, kinds: Sequence[str]) -> str:
    """Remove these kinds of ``kinds_in``; return a sentence on it."""
    removed = eviction.clear(cache, kinds)
    return _summary(removed, contents(cache).bytes)


def kinds_in(found: Contents, kind: str | None) -> dict[str, int]:
    """Return what ``orch cache clear`` would remove: kind -> bytes. Raises OrchError for a kind not in the cache."""
    sizes: dict[str, int] = {}
    for name, amount in [(s.kind, s.bytes) for s in found.shelves] + [(o.name, o.bytes) for o in found.others]:
        sizes[name] = sizes.get(name, 0) + amount
    if kind is None or kind in sizes:
        return sizes if kind is None else {kind: sizes[kind]}
    here = f"it holds {', '.join(sorted(sizes))}" if sizes else "it is empty"
    raise OrchError(f"the cache {found.cache} has no {kind}; {here}.")


def question(sizes: dict[str, int]) -> str:
    """Return the question to ask before these are removed."""
    listed = ", ".join(f"{name} ({size(amount)})" for name, amount in sorted(sizes.items()))
    warning = " A sweep that runs now would miss its photos." if {"archives", "builtin"} & set(sizes) else ""
    return f"Remove {listed}?{warning}"


def _summary(removed: Removed, left: int) -> str:
    sentence = f"{size(removed.bytes)} removed, {size(left)} left."
    if removed.in_use_bytes:
        sentence += f" {size(removed.in_use_bytes)} are in use by a process and stay."
    return sentence
