"""A table on terminals of several widths."""

from __future__ import annotations

import io

from rich.console import Console

from orchestrator.terminal_table import Column, FittedTable, wrapped

COLUMNS = (
    Column("model", "left"),
    Column("accuracy"),
    Column("speed", leaves=1, note="speed: images a second"),
    Column("p", leaves=2, note="p: exact"),
    Column("empty", note="never said"),
)
NAMES = ("winner/ensemble of networks", "runner-up-1/seed-0")


def printed(width: int, names: tuple[str, ...] = NAMES) -> list[str]:
    table = FittedTable("a title of words that is longer than forty columns", COLUMNS, elsewhere="board.md has them")
    for name in names:
        table.add_row(name, "93.0", "1,024", ".031", "", style="bold")
    file = io.StringIO()
    table.print(Console(file=file, width=width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_all_that_fits_is_shown_with_its_notes() -> None:
    lines = printed(80)
    assert lines[1].split() == ["model", "accuracy", "speed", "p"]
    assert lines[3].split("  ")[0] == NAMES[0]
    assert lines[-2:] == ["speed: images a second", "p: exact"]


def test_columns_leave_in_order_and_their_notes_with_them() -> None:
    text = "\n".join(printed(42))
    assert ("1,024" in text, ".031" in text) == (False, True)
    assert "p: exact" in text
    assert "images a second" not in text
    assert "no room for speed in 42 columns;" in text
    text = "\n".join(printed(36))
    assert ".031" not in text
    assert "p: exact" not in text
    assert "no room for speed, p in 36 columns;\nboard.md has them" in text


def test_rows_become_paragraphs_where_nothing_more_can_leave() -> None:
    lines = printed(30)
    start = lines.index(NAMES[0])
    assert lines[start + 1 : start + 3] == ["    accuracy 93.0;", "    speed 1,024; p .031"]
    assert "p: exact" in lines
    assert not any("no room" in line for line in lines)


def test_no_word_is_ever_cut() -> None:
    long = "ein-langer-Name/der-nicht-gefaltet-wird.jpg"
    for width in range(8, 100):
        lines = printed(width, (*NAMES, long))
        assert any(line.startswith(long) for line in lines)
        words = " ".join(lines).replace(";", " ").split()
        assert {"winner/ensemble", "networks", "runner-up-1/seed-0", "93.0", "longer"} <= {*words}, width


def test_a_cell_cannot_steer_the_terminal() -> None:
    table = FittedTable("", [Column("name", "left")])
    table.add_row("a\x1b[2J\n[bold]")
    file = io.StringIO()
    table.print(Console(file=file, width=80))
    assert "a\\x1b[2J\\n[bold]" in file.getvalue()


def test_wrapping_breaks_no_word_and_leaves_what_fits() -> None:
    assert wrapped("ab  cd", 6, 2) == "ab  cd"
    assert wrapped("one two three", 9, 2) == "one two\n  three"
    assert wrapped("see --no-such-option", 8, 2) == "see\n  --no-such-option"
