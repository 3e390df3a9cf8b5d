"""What benchmarks keep of their runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.common.results import (
    FOLDER,
    PAGE,
    RECORD,
    Bound,
    Result,
    commit,
    is_reached,
    machine,
    page,
    read_record,
    record,
)


@pytest.mark.parametrize(
    ("result", "line", "reached"),
    [
        (Result("head_only", 63.14, target=60), "head_only: 63.1x (target 60x)", True),
        (Result("head_only", 59.99, target=60), "head_only: 59.99x (target 60x)", False),
        (Result("floor", 1.4537, target=1.5, at_least=False), "floor: 1.45x (target 1.5x)", True),
        (Result("floor", 1.4999, target=1.5, at_least=False), "floor: 1.50x (target 1.5x)", True),
        (Result("feed", 0.10613, target=0.8), "feed: 0.106x (target 0.8x)", False),
        (Result("inference", 3.76816, target=3), "inference: 3.77x (target 3x)", True),
        (Result("missed", 0.010000000000000009, "", 0.1, at_least=False), "missed: 0.0100 (target 0.1)", True),
        (Result("missed", 0.0, "", 0.0, at_least=False), "missed: 0 (target 0)", True),
        (Result("mixed_depth", 2.5, target=2.5), "mixed_depth: 2.50x (target 2.5x)", True),
        (Result("overhead", 0.09, "s", 0.15, at_least=False), "overhead: 0.0900 s (target 0.15 s)", True),
        (Result("overhead", 0.1501, "s", 0.15, at_least=False), "overhead: 0.1501 s (target 0.15 s)", False),
        (Result("memory", 1234.2, "KB", 2000, at_least=False), "memory: 1234 KB (target 2000 KB)", True),
        (Result("head_only", 4.0, size="small"), "head_only: 4.00x (small size, no target)", True),
        (Result("all_layers", 0.5, target=1, size="small"), "all_layers: 0.500x (small size, target 1x)", False),
    ],
)
def test_a_result_is_one_line_and_knows_whether_it_is_enough(result: Result, line: str, reached: bool) -> None:
    assert result.line == line
    assert result.reached is reached


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_a_rounded_figure_is_on_the_side_of_its_target_that_it_is_on(
    figure: float, target: float, at_least: bool
) -> None:
    result = Result("a", figure, "s", target, at_least)
    shown = float(result.shown.split()[0])
    assert shown == pytest.approx(figure, rel=0.005)
    assert is_reached(shown, target, at_least) == result.reached


def test_the_page_is_that_of_the_record() -> None:
    kept = read_record()
    assert len(kept) >= 13
    assert (FOLDER / PAGE).read_text(encoding="utf-8") == page(kept)


def test_a_second_figure_that_misses_its_target_is_a_miss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late, early = Bound("first epoch", 20.16, "s", 20.0), Bound("orch check", 0.351, "s", 0.6)
    assert record(Result("startup", 0.2, "s", 0.3, False, also=(early,)), tmp_path) is True
    assert record(Result("startup", 0.2, "s", 0.3, False, also=(early, late)), tmp_path) is False
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "startup, orch check: 0.351 s (target 0.6 s)",
        "startup, first epoch: 20.2 s (target 20 s)",
        "startup: 0.200 s (target 0.3 s)",
    ]
    lines = (tmp_path / PAGE).read_text().splitlines()
    assert any(line.startswith("| `startup` | 0.200 s | at most 0.3 s | reached |") for line in lines)
    assert "| `startup`, orch check | 0.351 s | at most 0.6 s | reached | | |" in lines
    assert "| `startup`, first epoch | 20.2 s | at most 20 s | **missed** | | |" in lines


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="full or small, not 'tiny'"):
        Result("head_only", 1.0, size="tiny")


def test_the_last_run_of_each_size_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_record(tmp_path) == {}
    assert (
        record(Result("head_only", 50.0, target=60, rows=(("plain | Ray", "50 s"),), notes="Why."), tmp_path) is False
    )
    assert record(Result("head_only", 61.5, target=60, rows=(("plain | Ray", "50 s"),), notes="Why."), tmp_path) is True
    assert record(Result("head_only", 4.0, size="small"), tmp_path) is True
    assert record(Result("another", 1.0, "s"), tmp_path) is True
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "head_only: 61.5x (target 60x)",
        "head_only: 4.00x (small size, no target)",
        "another: 1.00 s (no target)",
    ]
    kept = read_record(tmp_path)
    assert {name: sorted(sizes) for name, sizes in kept.items()} == {
        "another": ["full"],
        "head_only": ["full", "small"],
    }
    assert kept["head_only"]["full"]["figure"] == 61.5
    assert kept["head_only"]["full"]["machine"] == machine()
    text = (tmp_path / PAGE).read_text()
    assert text == page(kept)
    full, _, small = text.partition("## Small size")
    assert full.count("### ") == 2
    assert small.count("### ") == 1
    assert full.index("`head_only`") < full.index("`another`")
    assert "| `head_only` | 61.5x | at least 60x | reached |" in full
    assert "| plain \\| Ray | 50 s |" in full
    assert "Why." in full
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [PAGE, RECORD]


def test_an_empty_record_says_so() -> None:
    assert page({}).count("Not run yet.") == 2


def test_the_commit_says_whether_files_were_changed(tmp_path: Path) -> None:
    assert commit(tmp_path) == "none"

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init", "-q")
    for name in ("code.py", RECORD, PAGE):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    clean = commit(tmp_path)
    assert len(clean) >= 10
    (tmp_path / RECORD).write_text("2")
    (tmp_path / "new.py").write_text("2")
    assert commit(tmp_path) == clean
    (tmp_path / "code.py").write_text("2")
    assert commit(tmp_path) == f"{clean} and changes"
