"""The decisions in docs/decisions: each that is named is there, and each has a number of its own."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from tests.support.places import ROOT

DECISIONS = ROOT / "docs" / "decisions"
FOLDERS = ("orchestrator", "trainers", "docs", "benchmarks", "tests")


def pages() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md")]
    return sorted([*found, *ROOT.glob("*.md")])


def test_each_decision_that_is_named_is_there() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in pages()
        for name in re.findall(r"\b\d{4}-[a-z][\w-]*\.md\b", path.read_text(encoding="utf-8"))
    }
    assert len(named) >= 8
    assert sorted(one for one in named if not (DECISIONS / one[1]).is_file()) == []


def test_no_two_decisions_share_a_number() -> None:
    numbers = Counter(path.name[:4] for path in DECISIONS.glob("*.md"))
    assert numbers.total() >= 15
    assert [number for number, times in numbers.items() if times > 1] == []
