"""Audit a sweep: each part in turn, and every comparison in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.audit.board import compare_leaderboard
from orchestrator.audit.calibration import compare_calibration
from orchestrator.audit.checks import (
    DIFFERENT,
    EQUAL,
    NOT_CHECKABLE,
    UNREADABLE,
    Check,
    JudgedSweep,
    Unreadable,
    compare,
    in_words,
)
from orchestrator.audit.choice import choose_again, compare_data
from orchestrator.audit.per_class import compare_per_class
from orchestrator.audit.winner import compare_champion, compare_winner
from orchestrator.errors import OrchError
from orchestrator.ledger.folder import Sweep, read_sweep
from orchestrator.ledger.kept import FileState, sha256_of
from orchestrator.paths import command_line
from orchestrator.plain_json import json_ready

PARTS: Mapping[str, Callable[[JudgedSweep], Iterator[Check]]] = {
    "data": compare_data,
    "choice of the winner": choose_again,
    "leaderboard": compare_leaderboard,
    "calibration": compare_calibration,
    "each class": compare_per_class,
    "winner's folder": compare_winner,
    "registered version": compare_champion,
}
"""Part of a sweep -> its comparisons."""


@dataclass(frozen=True)
class Audit:
    """All comparisons of one sweep."""

    sweep: str
    folder: str
    checks: tuple[Check, ...]

    def having(self, state: str) -> list[Check]:
        return [check for check in self.checks if check.state == state]

    def to_dict(self) -> dict[str, Any]:
        counts = {state.replace(" ", "_"): len(self.having(state)) for state in (EQUAL, DIFFERENT, NOT_CHECKABLE)}
        return dict(json_ready({"sweep": self.sweep, **counts, "checks": [asdict(check) for check in self.checks]}))


def audit_sweep(folder: Path) -> Audit:
    """Compare all that can be compared of the sweep in ``folder``.

    Raises OrchError if it has no finished leaderboard.
    """
    try:
        sweep = read_sweep(folder)
    except OrchError as error:
        if not folder.is_dir():
            raise
        return Audit(folder.resolve().name, str(folder), (Check("ledger", "events", DIFFERENT, reason=str(error)),))
    record, until = leaderboard_record(sweep)
    checks = [Check("ledger", f"{len(sweep.events)} events in order, checksums of their segments", EQUAL)]
    checks += compare_files(sweep)
    for name, part in PARTS.items():
        try:
            checks += part(JudgedSweep(sweep, record, until))
        except Unreadable as error:
            checks.append(Check(error.part, error.what, DIFFERENT, reason=error.reason))
        except UNREADABLE as error:  # a file of another make, such as a table that lacks a column
            checks.append(Check(name, "what its files hold", DIFFERENT, reason=in_words(error)))
    return Audit(sweep.paths.name, str(folder), tuple(checks))


def leaderboard_record(sweep: Sweep) -> tuple[Mapping[str, Any], int]:
    ended = [e for e in sweep.events if (e.kind, e.stage, e.state) == ("STAGE", "leaderboard", "ENDED")]
    ended = [event for event in ended if {"models", "judged", "winner_row", "fits"} <= event.data.keys()]
    if not ended:
        resume = command_line("sweep", "--resume", "--out", sweep.paths.root)
        raise OrchError(f"{sweep.paths.root} has no finished leaderboard, so nothing to audit; resume it: `{resume}`")
    return ended[-1].data, ended[-1].seq


def compare_files(sweep: Sweep) -> Iterator[Check]:
    """Compare each file with its latest checksum in the ledger."""
    hashes = sweep.kept.hashes
    if not hashes:
        yield Check("files", "checksums", NOT_CHECKABLE, reason="the sweep is from before checksums were recorded")
    for name, recorded in sorted(hashes.items()):
        path = sweep.paths.named(name)
        try:
            yield compare("files", name, recorded, sha256_of(path), "its bytes are not those that were written")
        except OSError as error:
            state = FileState.MISSING if isinstance(error, FileNotFoundError) else FileState.UNREADABLE
            yield Check("files", name, DIFFERENT, recorded, "", str(state))
    probabilities = sweep.paths.probabilities("x", "y", "z").parents[1]
    for path in sorted([*probabilities.rglob("*.npz"), *sweep.paths.winner.glob("*")]) if hashes else ():
        if sweep.paths.name_of(path) not in hashes and path.is_file():
            yield Check("files", sweep.paths.name_of(path), NOT_CHECKABLE, reason="no checksum was recorded")
