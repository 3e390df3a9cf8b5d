"""The audit of a sweep that is as it was written, and of one in which a byte was changed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from orchestrator.audit.audit import audit_sweep
from orchestrator.audit.checks import DIFFERENT, EQUAL, NOT_CHECKABLE
from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger
from orchestrator.paths import SweepPaths

KINDS = (
    "spec.yaml",
    "manifest.parquet",
    "data-report.txt",
    "leaderboard.parquet",
    "leaderboard.csv",
    "leaderboard.md",
    "per_class.csv",
    "probabilities/*/test-*.npz",
    "probabilities/*/validation-*.npz",
    "models/*/weights.npz",
    "models/*/job.json",
    "winner/model.json",
    "winner/backbone.npz",
    "winner/member-0.npz",
    "winner/evidence.parquet",
)
"""One pattern for each kind of file that a sweep keeps, but the ledger."""


def differing(sweep: SweepPaths) -> list[str]:
    return [check.what for check in audit_sweep(sweep.root).having(DIFFERENT)]


def test_a_sweep_as_it_was_written_is_equal(sweep: SweepPaths) -> None:
    found = audit_sweep(sweep.root)
    assert not found.having(DIFFERENT)
    assert len(found.having(EQUAL)) > 120
    parts = {check.part for check in found.checks}
    assert {"ledger", "files", "data", "choice of the winner", "choice of the crop policy", "leaderboard"} < parts
    assert {"leaderboard.csv", "leaderboard.md", "winner's folder", "evidence"} < parts


def test_a_sweep_from_before_the_checksums_says_so(old: SweepPaths) -> None:
    found = audit_sweep(old.root)
    assert not found.having(DIFFERENT)
    reasons = [check.reason for check in found.having(NOT_CHECKABLE)]
    assert "the sweep is from before checksums were recorded" in reasons


def flip(path: Path, part: float) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(part * len(content)), len(content) - 1)] ^= 0x10
    path.write_bytes(bytes(content))


def test_a_flipped_byte_in_each_kind_of_file_is_found(sweep: SweepPaths) -> None:
    seen = 0
    for pattern in KINDS:
        path = sorted(sweep.root.glob(pattern))[0]
        content = path.read_bytes()
        for part in (0.0, 0.5, 1.0):
            flip(path, part)
            assert sweep.name_of(path) in differing(sweep), (pattern, part)
            path.write_bytes(content)
            seen += 1
        path.unlink()
        assert sweep.name_of(path) in differing(sweep), f"{pattern} is missing"
        path.write_bytes(content)
    assert seen == 3 * len(KINDS)
    assert differing(sweep) == []


def test_a_flipped_byte_in_the_ledger_is_found(sweep: SweepPaths) -> None:
    segment = sorted(sweep.ledger.glob("*.parquet"))[0]
    flip(segment, 0.5)
    (check,) = audit_sweep(sweep.root).checks
    assert (check.part, check.state) == ("ledger", DIFFERENT)
    assert f"{segment} is damaged" in check.reason


def test_without_a_leaderboard_there_is_nothing_to_audit(tmp_path: Path) -> None:
    Ledger(SweepPaths(tmp_path / "new").ledger).close()
    with pytest.raises(OrchError, match=r"no finished leaderboard, so nothing to audit; resume it: `orch sweep --resu"):
        audit_sweep(tmp_path / "new")
    with pytest.raises(OrchError, match="not a sweep"):
        audit_sweep(tmp_path / "none")


def test_a_file_of_another_make_is_found_without_checksums(old: SweepPaths) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(old.evidence)
    pd.DataFrame({"a": [1]}).to_parquet(old.leaderboard_parquet)
    found = audit_sweep(old.root).having(DIFFERENT)
    assert {(check.part, check.what) for check in found} == {
        ("leaderboard", "what its files hold"),
        ("winner's folder", "what its files hold"),
    }
