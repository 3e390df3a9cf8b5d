"""What a person reads of an audit."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from orchestrator.audit.audit import Audit
from orchestrator.audit.checks import DIFFERENT, EQUAL, NOT_CHECKABLE, Check
from orchestrator.commands.audit import failure, to_rich
from tests.support.since_42b062d import orch, unpack


def shown(found: Audit) -> str:
    text = io.StringIO()
    Console(file=text, width=80).print(to_rich(found))
    return text.getvalue()


def test_the_table_counts_each_part_and_names_the_gaps() -> None:
    checks = (
        Check("files", "a", EQUAL),
        Check("files", "b", NOT_CHECKABLE, reason="no checksum was recorded"),
        Check("leaderboard", "c", EQUAL),
    )
    text = shown(Audit("s", "runs/s", checks))
    (row,) = (line.split() for line in text.splitlines() if line.split()[:1] == ["files"])
    assert row == ["files", "2", "1", "0", "1"]
    assert "not checkable: files: no checksum was recorded" in text
    assert "all 2 comparisons are equal" in text
    assert failure(Audit("s", "runs/s", checks)) is None


def test_differences_are_listed_with_the_way_out() -> None:
    checks = tuple(Check("leaderboard", f"f{i}", DIFFERENT, "0.1", "0.2") for i in range(12))
    found = Audit("s", "runs/s", checks)
    error = failure(found)
    assert error is not None
    assert error.exit_code == 9
    lines = str(error).splitlines()
    assert lines[0] == "12 comparisons of 12 found a difference in runs/s:"
    assert lines[1] == "- leaderboard: f0: recorded 0.1, computed 0.2"
    assert lines[-2] == "- and 2 more"
    assert lines[-1] == "What can be made again is made again by `orch sweep --resume --out runs/s`."
    assert "comparisons are equal" not in shown(found)


def test_the_exit_code_of_the_command_line(tmp_path: Path) -> None:
    folder = unpack(tmp_path, "finished")
    done = orch(folder, tmp_path / "cache", "audit", "finished", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert '"different": 0' in done.stdout
    path = folder / "finished" / "leaderboard.csv"
    path.write_text(path.read_text().replace("0.9", "0.8", 1))
    done = orch(folder, tmp_path / "cache", "audit", "finished")
    assert done.returncode == 9
    assert "leaderboard.csv: winner/ensemble, whole: accuracy: recorded 0.8" in done.stderr
