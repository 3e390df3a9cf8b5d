"""`orch cache`, as typed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tests.support.cache_on_disk import use_cache
from tests.support.typed import said


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_cache(tmp_path, monkeypatch)


def test_the_table_for_programs(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "cache", "list", "--json"))
    assert (found["cache"], found["limit_bytes"], found["limit_is_set"]) == (str(cache), 2 * 10**9, True)
    assert [(entry["kind"], entry["rows"]) for entry in found["entries"]] == [
        ("images", 100),
        ("features", 40),
        ("images", None),
        ("calibration", None),
    ]
    assert sum(entry["bytes"] for entry in found["entries"]) == found["bytes"]


def test_pruning(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "cache", "prune").startswith("20.0 kB removed, ")  # the older version's
    assert said(capsys, "cache", "prune", "--older-than", "6").startswith("0 B removed, ")
    assert "kB removed, " in said(capsys, "cache", "prune", "--older-than", "5")
    assert not list(cache.glob("features/*"))
    out = said(capsys, "cache", "prune", "--to", "0")
    assert out.endswith("2 B left. 2 B of it are no rows; `orch cache clear` removes them.\n")


def test_clearing_asks_first(cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    out = said(capsys, "cache", "clear", "features", code=1)
    assert "Remove features (" in out
    assert out.endswith("nothing was removed.\n")
    assert list(cache.glob("features/*/*.npy"))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert "kB removed, " in said(capsys, "cache", "clear", "features")
    assert not list(cache.glob("features/*"))
    assert list(cache.glob("images/*/*.npy"))
    assert said(capsys, "cache", "clear", "--yes").endswith(" 0 B left.\n")
    assert said(capsys, "cache", "clear") == f"the cache {cache} is empty.\n"
