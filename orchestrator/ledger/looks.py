"""Looks at a test split, counted across sweeps by the photos in it.

A sweep's ledger records each of its looks. A file of the user's (``RECORD``) repeats them, so that looks of sweeps that
are elsewhere or were deleted count too. A look at another split counts where it holds half of this one's photos, as a
split has grown where photos were added; see docs/decisions/0014-looks-at-a-test-split.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.ledger import user_record
from orchestrator.ledger.folder import Sweep, list_sweeps, read_sweep, reads_of_test
from orchestrator.ledger.segments import Event
from orchestrator.paths import SweepPaths
from trainers.wording import count

RECORD = "test-looks.jsonl"
"""Name of the user's file: one JSON object a line, appended to and never changed."""
TEST = "test_fingerprint"
"""Key of the payload of a look: the test split's fingerprint."""


MOST_PHOTOS = 1000
"""Maximum photos of a split on record: those with the smallest hashes, by which overlaps are known within 2 %."""
SHARED = 0.5
"""Share of a split's photos that a look at another split must have read to count."""
_DIGITS = 16


@dataclass(frozen=True)
class Look:
    """One reading of a test split for a leaderboard. ``sweep``: 12 hex digits, the same wherever its folder lies.

    ``photos``: the first 16 hex digits of the sha256 of the split's photos, ascending, at most ``MOST_PHOTOS``; () in
    lines from before they were recorded.
    """

    test: str
    sweep: str
    folder: str
    time_s: float
    photos: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, float]:
        return self.sweep, self.time_s


@dataclass(frozen=True)
class Looks:
    """``reads``: how often leaderboards read a test split. ``sweeps``: how many sweeps did. ``in_part``: whether some
    read another split that holds at least half of its photos."""

    reads: int
    sweeps: int
    in_part: bool = False

    def sentence(self) -> str:
        """Say how often the split was read; "" for a first look."""
        if self.reads < 2:
            return ""
        by = "by this sweep" if self.sweeps == 1 else f"by {count(self.sweeps, 'sweep')}"
        part = ", at least in part," if self.in_part else ""
        return (
            f"this test split was read {self.reads} times{part} {by}; each further look makes the best figure on it a "
            "little too good"
        )


def fingerprint_of_test(hashes: Iterable[str]) -> str:
    """Return 16 hex digits over the sha256 of a test split's photos, in any order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()[:16]


def shared_photos(asked: Collection[str], recorded: Sequence[str]) -> float:
    """Return the share of the photos ``asked`` that a look has read, of which ``recorded`` are the smallest hashes.

    Exact where all are recorded. Else it is that of the photos asked up to the largest recorded hash, an unbiased
    estimate since hashes do not depend on splits (Broder 1997, "On the resemblance and containment of documents").
    """
    largest = recorded[-1] if len(recorded) >= MOST_PHOTOS else ""
    comparable = {photo for photo in asked if not largest or photo <= largest}
    return len(comparable.intersection(recorded)) / len(comparable) if comparable else 0.0


def sweep_id(first: Event) -> str:
    """Return 12 hex digits that identify a sweep by its first event, even if its folder is renamed."""
    return hashlib.sha256(f"{first.time_s!r} {first.payload}".encode()).hexdigest()[:12]


def record_look(paths: SweepPaths, events: list[Event], test: str) -> None:
    """Append the sweep's last look to the user's file; without a home, or where it cannot be written, the ledger's
    record is the only one."""
    if not events:
        return
    photos = _short(_test_hashes(paths) or ())[:MOST_PHOTOS]
    look = Look(test, sweep_id(events[0]), str(paths.root.resolve()), events[-1].time_s, photos)
    user_record.append(RECORD, asdict(look))


def looks_at(sweep: Sweep) -> Looks:
    """Count the looks at the test split of ``sweep``: its own, those of the sweeps next to it, those on record."""
    hashes = _test_hashes(sweep.paths)
    test = _test_of(sweep, hashes)
    if test is None:
        return Looks(len(reads_of_test(sweep.events)), 1)
    root, recorded = sweep.paths.root.resolve(), _recorded()
    if hashes is None:  # the manifest is gone
        asked = next((look.photos for look in recorded if look.test == test and look.photos), ())
    else:
        asked = _short(hashes)
    known = [look for look in recorded if _counts(look, test, asked)] + _own(sweep, test)
    folders = {look.folder for look in known} | {look.folder for look in recorded if look.photos}
    for folder in list_sweeps(root.parent):
        if str(folder.resolve()) not in folders and folder.resolve() != root:
            with contextlib.suppress(OrchError, OSError):
                known += [look for look in _of_other(folder) if _counts(look, test, asked)]
    found = {look.key for look in known}
    return Looks(len(found), len({name for name, _ in found}), any(look.test != test for look in known))


def _counts(look: Look, test: str, asked: Collection[str]) -> bool:
    return look.test == test or shared_photos(asked, look.photos) >= SHARED


def _own(sweep: Sweep, test: str, photos: tuple[str, ...] = ()) -> list[Look]:
    if not sweep.events:
        return []
    name, folder = sweep_id(sweep.events[0]), str(sweep.paths.root.resolve())
    return [Look(test, name, folder, event.time_s, photos) for event in reads_of_test(sweep.events)]


def _of_other(folder: Path) -> list[Look]:
    other = read_sweep(folder)
    if not reads_of_test(other.events):
        return []
    hashes = _test_hashes(other.paths)
    test = _test_of(other, hashes)
    return _own(other, test, _short(hashes or ())[:MOST_PHOTOS]) if test else []


def _test_of(sweep: Sweep, hashes: Sequence[str] | None) -> str | None:
    """Return the fingerprint of the sweep's test split; that of ``hashes`` if no event holds it, None without both."""
    if recorded := sweep.fact(TEST):
        return str(recorded)
    return None if hashes is None else fingerprint_of_test(hashes)


def _test_hashes(paths: SweepPaths) -> list[str] | None:
    """Return the sha256 of the photos of the sweep's test split by its manifest; None without one."""
    if not paths.manifest.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(paths.manifest, columns=["sha256", "split"])
    except (pa.ArrowException, OSError, ValueError):
        return None
    rows = zip(table["sha256"].to_pylist(), table["split"].to_pylist(), strict=True)
    return [sha for sha, split in rows if split == "test"]


def _short(hashes: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({sha[:_DIGITS] for sha in hashes}))


def _recorded() -> list[Look]:
    """Read the user's file; lines that are not whole are skipped."""
    found = []
    for line in user_record.lines(RECORD):
        with contextlib.suppress(ValueError, TypeError):
            look = Look(**json.loads(line))
            photos = tuple(look.photos)
            if all(isinstance(text, str) for text in (look.test, look.sweep, look.folder, *photos)):
                found.append(replace(look, time_s=float(look.time_s), photos=photos))
    return found
