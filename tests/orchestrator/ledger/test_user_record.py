"""Lines that outlive a sweep: appended by several processes, read whatever they hold, and never a reason to fail."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.ledger import user_record


def test_lines_of_several_writers_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    assert user_record.lines("x.jsonl") == []
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: user_record.append("x.jsonl", {"n": n, "text": "\u00e4" * 500}), range(64)))
    assert sorted(json.loads(line)["n"] for line in user_record.lines("x.jsonl")) == list(range(64))
    assert user_record.lines("y.jsonl") == []
    assert (tmp_path / "home" / "orch" / "x.jsonl").stat().st_mode & 0o777 == 0o600


def test_bytes_that_are_no_text_cost_no_other_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    user_record.append("x.jsonl", {"n": 1})
    with (tmp_path / "orch" / "x.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n")
    user_record.append("x.jsonl", {"n": 2})
    first, _, last = user_record.lines("x.jsonl")
    assert (json.loads(first), json.loads(last)) == ({"n": 1}, {"n": 2})


def test_without_a_folder_nothing_is_kept_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/dev/null/none")
    user_record.append("x.jsonl", {"n": 1})
    assert user_record.lines("x.jsonl") == []
