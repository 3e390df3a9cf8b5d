"""``orch cache``: what it says of a cache, and that it removes what it says."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.commands.cache import (
    Entry,
    ago,
    duration,
    entries,
    explanation,
    in_words,
    print_table,
    question,
    size,
)
from tests.support.cache_on_disk import FEATURES, use_cache
from tests.support.typed import said
from trainers.store.inventory import contents


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_cache(tmp_path, monkeypatch)


def test_the_table(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys, "cache", "list")
    rows = [line.split("  ") for line in out.splitlines() if line.startswith(("images", "features", "calibration"))]
    assert [row[0].strip() for row in rows] == ["images", "features", "images", "calibration"]  # the largest first
    assert "photos at 224 px, squash" in out
    assert "mobilenet_1.0 at 224 px to conv_pw_11_relu, squash" in out
    assert "5 days ago" in out
    assert "images written by an older version, which this one does not read" in out
    assert f"in {cache}, of 2.0 GB that it may take (ORCH_CACHE_GB says)." in out
    assert "damaged" not in out


def test_damage_is_found_when_every_row_is_read(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(cache.glob("features/*/*.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "damaged" not in said(capsys, "cache", "list")
    assert "1 damaged" in said(capsys, "cache", "list", "--check")
    assert "What is damaged is never used" in said(capsys, "cache", "list", "--check")
    file.with_suffix(".keys").write_bytes(b"broken")
    assert "1 damaged" in said(capsys, "cache", "list")
    assert "1 parts of it are damaged" in said(capsys, "cache", "explain")


def test_the_words(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = " ".join(said(capsys, "cache", "explain").split())
    assert "features: mobilenet_1.0 at 224 px to conv_pw_11_relu, squash; " in out
    assert re.search(r"40 rows of 1\.\d kB, last used 5 days ago\.", out)
    assert "head, dropout, learning rate and the like may differ" in out
    assert "It goes first when room is needed; `orch cache prune` removes it now." in out
    assert "calibration: how fast this machine is at each part of a sweep; 2 B. Read by orch plan" in out
    assert "the rows unused for longest make room" in out


def test_what_computing_took_is_said(tmp_path: Path) -> None:
    entry = Entry("features", "0-v2", "x to y", 4096, time.time(), 4, 200.0)
    (paragraph, *_) = explanation(contents(tmp_path), [entry])
    assert "Computing it took 3 min of a worker's time, which reading it saves." in paragraph


def test_what_is_not_there_is_a_sentence(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "cache", "clear", "photos", code=1) == (
        f"orch: the cache {cache} has no photos; it holds calibration, features, images.\n"
    )


@pytest.mark.parametrize("verb", ["list", "explain", "prune"])
def test_an_empty_cache_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("ORCH_CACHE", str(tmp_path / "none"))
    monkeypatch.setenv("ORCH_CACHE_GB", "7.5")
    monkeypatch.setenv("COLUMNS", "300")
    assert said(capsys, "cache", verb).splitlines()[0] == f"the cache {tmp_path / 'none'} is empty; it may take 7.5 GB."
    monkeypatch.setenv("ORCH_CACHE_GB", "much")
    assert "ORCH_CACHE_GB=much is not a positive number" in said(capsys, "cache", verb, code=3)


def test_archives_are_removed_with_a_warning() -> None:
    assert question({"archives": 10**6, "images": 5}) == (
        "Remove archives (1.0 MB), images (5 B)? A sweep that runs now would miss its photos."
    )
    assert question({"images": 5}) == "Remove images (5 B)?"


def test_the_table_on_a_narrow_terminal(cache: Path) -> None:
    console = Console(width=80, file=io.StringIO(), highlight=False)
    found = contents(cache)
    print_table(found, entries(found), console)
    assert "conv_pw_11_relu" in "".join(console.file.getvalue().split())  # type: ignore[attr-defined]


def test_descriptions_in_words() -> None:
    deep = {**FEATURES, "output_stride": 16, "stages": ["a", "b"], "dtype": "float16", "layer": ""}
    assert in_words("features", deep) == (
        "mobilenet_1.0 at 224 px to its end, squash, float16, stride 16, with 2 pooled stages"
    )
    assert in_words("crops", {"policy": "flip", "a": 1}) == "a 1, policy flip"
    assert in_words("images", {}) == "no description"


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (250_000, "250 kB"),
        (14_000_000_000, "14.0 GB"),
        (10**12, "1,000 GB"),
    ],
)
def test_sizes(amount: int, words: str) -> None:
    assert size(amount) == words


def test_times() -> None:
    now = 1e9
    assert [ago(now - s, now) for s in (0, 59, 60, 3600, 7200, 86_400, 9e5)] == [
        "just now",
        "just now",
        "1 minute ago",
        "1 hour ago",
        "2 hours ago",
        "1 day ago",
        "10 days ago",
    ]
    assert ago(None, now) == ""
    assert [duration(s) for s in (3.2, 600, 36_000)] == ["3 s", "10 min", "10.0 h"]
