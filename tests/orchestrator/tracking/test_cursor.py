"""The sync cursor on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.tracking.cursor import Cursor, read_cursor, write_cursor


def test_a_cursor_comes_back_as_it_was(tmp_path: Path) -> None:
    cursor = Cursor("sqlite:///x", 7, 1.1, "p", {"a": "r"}, {"spec.yaml": "0"}, {"machine.cores": "2"})
    write_cursor(tmp_path / "c.json", cursor)
    assert read_cursor(tmp_path / "c.json") == cursor
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"other": 1}'])
def test_a_damaged_cursor_has_seen_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content)
    assert read_cursor(tmp_path / "c.json") == Cursor()
