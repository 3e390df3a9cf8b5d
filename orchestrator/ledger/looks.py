"""Looks at a test split, counted across sweeps by the photos in it.

A sweep's ledger records each of its looks. A file of the user's (``RECORD``) repeats them, so that looks of sweeps that
are elsewhere or were deleted count too; see docs/decisions/0014-looks-at-a-test-split.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.ledger.folder import Sweep, list_sweeps, read_sweep, reads_of_test
from orchestrator.ledger.segments import Event
from orchestrator.paths import SweepPaths, data_folder
from trainers.files.atomic import make_folders
from trainers.wording import count

RECORD = "test-looks.jsonl"
"""Name of the user's file: one JSON object a line, appended to and never changed."""
TEST = "test_fingerprint"
"""Key of the payload of a look: the test split's fingerprint."""


@dataclass(frozen=True)
class Look:
    """One reading of a test split for a leaderboard. ``sweep``: 12 hex digits, the same wherever its folder lies."""

    test: str
    sweep: str
    folder: str
    time_s: float

    @property
    def key(self) -> tuple[str, float]:
        return self.sweep, self.time_s


@dataclass(frozen=True)
class Looks:
    """``reads``: how often leaderboards read a test split. ``sweeps``: how many sweeps did."""

    reads: int
    sweeps: int

    def sentence(self) -> str:
        """Say how often the split was read; "" for a first look."""
        if self.reads < 2:
            return ""
        by = "by this sweep" if self.sweeps == 1 else f"by {count(self.sweeps, 'sweep')}"
        return (
            f"this test split was read {self.reads} times {by}; each further look makes the best figure on it a little "
            "too good"
        )


def fingerprint_of_test(hashes: Iterable[str]) -> str:
    """Return 16 hex digits over the sha256 of a test split's photos, in any order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()[:16]


def sweep_id(first: Event) -> str:
    """Return 12 hex digits that identify a sweep by its first event, even if its folder is renamed."""
    return hashlib.sha256(f"{first.time_s!r} {first.payload}".encode()).hexdigest()[:12]


def record_look(paths: SweepPaths, events: list[Event], test: str) -> None:
    """Append the sweep's last look to the user's file; without a home, or where it cannot be written, the ledger's
    record is the only one."""
    file = _record()
    if file is None or not events:
        return
    look = Look(test, sweep_id(events[0]), str(paths.root.resolve()), events[-1].time_s)
    with contextlib.suppress(OSError):
        make_folders(file.parent)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(asdict(look)) + "\n").encode())  # one write: lines do not mix
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def looks_at(sweep: Sweep) -> Looks:
    """Count the looks at the test split of ``sweep``: its own, those of the sweeps next to it, those on record."""
    test = _test_of(sweep)
    if test is None:
        return Looks(len(reads_of_test(sweep.events)), 1)
    known = [look for look in _recorded() if look.test == test]
    folders = {look.folder for look in known}
    found = {look.key for look in known} | {look.key for look in _own(sweep, test)}
    for folder in list_sweeps(sweep.paths.root.resolve().parent):
        if str(folder.resolve()) not in folders and folder.resolve() != sweep.paths.root.resolve():
            with contextlib.suppress(OrchError, OSError):
                found |= {look.key for look in _of_other(folder, test)}
    return Looks(len(found), len({name for name, _ in found}))


def _own(sweep: Sweep, test: str) -> list[Look]:
    if not sweep.events:
        return []
    name, folder = sweep_id(sweep.events[0]), str(sweep.paths.root.resolve())
    return [Look(test, name, folder, event.time_s) for event in reads_of_test(sweep.events)]


def _of_other(folder: Path, test: str) -> list[Look]:
    other = read_sweep(folder)
    return _own(other, test) if reads_of_test(other.events) and _test_of(other) == test else []


def _test_of(sweep: Sweep) -> str | None:
    """Return the fingerprint of the sweep's test split; that of its manifest if no event holds it, None without one."""
    if recorded := sweep.fact(TEST):
        return str(recorded)
    if not sweep.paths.manifest.is_file():
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(sweep.paths.manifest, columns=["sha256", "split"])
    except (pa.ArrowException, OSError, ValueError):
        return None
    rows = zip(table["sha256"].to_pylist(), table["split"].to_pylist(), strict=True)
    return fingerprint_of_test(sha for sha, split in rows if split == "test")


def _recorded() -> list[Look]:
    """Read the user's file; lines that are not whole are skipped."""
    file, found = _record(), []
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file else ():
            with contextlib.suppress(ValueError, TypeError):
                look = Look(**json.loads(line))
                if all(isinstance(text, str) for text in (look.test, look.sweep, look.folder)):
                    found.append(replace(look, time_s=float(look.time_s)))
    return found


def _record() -> Path | None:
    folder = data_folder()
    return folder / RECORD if folder else None
