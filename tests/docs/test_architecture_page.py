"""The map of the code names files that exist."""

from __future__ import annotations

import re

from tests.support.places import ROOT

PAGES = (
    *("docs/architecture.md", "CONTRIBUTING.md", "docs/shared-work.md"),
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))),
)


def test_every_file_that_the_map_names_exists() -> None:
    seen = 0
    for page in PAGES:
        for name in re.findall(r"`([\w/]+/[\w/.]*)`", (ROOT / page).read_text(encoding="utf-8")):
            seen += 1
            assert any((ROOT / start / name).exists() for start in ("", "orchestrator", "trainers")), f"{page}: {name}"
    assert seen >= 50


def test_the_glossary_is_short() -> None:
    rows = re.findall(r"^\| \*\*", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), flags=re.M)
    assert 20 <= len(rows) <= 25
