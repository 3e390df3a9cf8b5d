"""Long lines on a terminal and in a pipe."""

from __future__ import annotations

import io

from rich.console import Console

from orchestrator.report.terminal import tell, wrapped


def test_wrapping_breaks_no_word_and_leaves_what_fits() -> None:
    assert wrapped("ab  cd", 6, 2) == "ab  cd"
    assert wrapped("one two three", 9, 2) == "one two\n  three"
    assert wrapped("see --no-such-option", 8, 2) == "see\n  --no-such-option"


def test_a_line_is_wrapped_on_a_terminal_alone_and_has_no_markup() -> None:
    for terminal, expected in ((True, "see [b] and\n    more\n"), (False, "see [b] and more\n")):
        out = io.StringIO()
        tell(Console(file=out, width=12, force_terminal=terminal, no_color=True), "see [b] and more", 4)
        assert out.getvalue() == expected
