"""Format docs/statistics.md from the simulated cells. ``page`` is pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainers.files.atomic import atomic_write_text

Row = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"
TEXT = Path(__file__).with_name("statistics.md")
"""The page's text: formulas and papers; the table of cells replaces its last line."""
TABLE_HERE = "<!-- cells: written by benchmarks/coverage.py -->"
FEW_ERRORS = 10
MIN_COVERAGE, MAX_COVERAGE, MAX_FALSE, MAX_WIDTH = 0.93, 0.97, 0.07, 1.3
INTERVALS = {
    "mean_accuracy": "accuracy (mean over networks)",
    "difference": "difference of configurations, one better",
    "equal": "difference of equal configurations",
    "policy": "difference of equal crop policies",
    "macro_f1": "macro F1 (one network)",
}


def write_page(rows: Sequence[Row]) -> None:
    """Write docs/statistics.md."""
    atomic_write_text(PAGE, page(TEXT.read_text(encoding="utf-8"), rows))


def page(text: str, rows: Sequence[Row]) -> str:
    """Return the text with the tables at its mark."""
    lines = [*summary(rows), "", *_misses(rows), "", *_cells(rows)]
    return text.replace(TABLE_HERE, "\n".join([TABLE_HERE, *lines]))


def errors(row: Row) -> float:
    """Expected errors of one network."""
    return float(row["photos"] * (1 - row["accuracy"]))


def summary(rows: Sequence[Row]) -> list[str]:
    """Return the table of how many cells miss each mark, as lines of Markdown."""
    lines = [
        f"| interval | cells | withheld | coverage below {100 * MIN_COVERAGE:.0f} % | lowest | false positives above "
        f"{100 * MAX_FALSE:.0f} % | highest | coverage above {100 * MAX_COVERAGE:.0f} % with {FEW_ERRORS} or more "
        f"errors | of these, in {FEW_ERRORS} or more groups | wider than {MAX_WIDTH} times the best | of these, below "
        f"the floor | of the rest, in {FEW_ERRORS} or more groups |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, words in INTERVALS.items():
        shown = [row for row in rows if row[name]]
        coverage = [row[name]["coverage"] for row in shown]
        tested = [row[name]["false_positives"] for row in shown if "false_positives" in row[name]]
        over = [row[name] for row in shown if row[name]["coverage"] > MAX_COVERAGE and errors(row) >= FEW_ERRORS]
        wide = [row[name] for row in shown if row[name]["width"] > MAX_WIDTH]
        reachable = [figures for figures in wide if figures.get("floor", 0.0) <= MAX_WIDTH]
        cells = (
            len(shown),
            len(rows) - len(shown),
            sum(c < MIN_COVERAGE for c in coverage),
            f"{100 * min(coverage):.1f} %",
            sum(p > MAX_FALSE for p in tested) if tested else "",
            f"{100 * max(tested):.1f} %" if tested else "",
            len(over),
            sum(figures["groups"] >= FEW_ERRORS for figures in over),
            len(wide),
            len(wide) - len(reachable),
            sum(figures["groups"] >= FEW_ERRORS for figures in reachable),
        )
        lines.append(f"| {words} | {' | '.join(map(str, cells))} |")
    return lines


def _misses(rows: Sequence[Row]) -> list[str]:
    """List each cell and interval whose coverage is too low or whose test errs too often."""
    checks: list[tuple[str, Callable[[Row], bool]]] = [
        ("coverage", lambda figures: figures["coverage"] < MIN_COVERAGE),
        ("false_positives", lambda figures: figures.get("false_positives", 0.0) > MAX_FALSE),
    ]
    lines = ["Cells that miss a mark of coverage or of false positives:", ""]
    for name, words in INTERVALS.items():
        missed = [
            f"{_setting(row)} ({key.replace('_', ' ')} {100 * row[name][key]:.1f} %)"
            for row in rows
            for key, misses in checks
            if row[name] and misses(row[name])
        ]
        lines.append(f"- {words}: {'; '.join(missed) if missed else 'none'}.")
    return lines


def _setting(row: Row) -> str:
    size = row["group"] or "1 to 20"
    grouped = "" if size == 1 else f", groups of {size} at {row['correlation']:g}"
    seeds = f", {row['networks']} networks at {100 * row['deviation']:g} points" if row["networks"] > 1 else ""
    return f"{row['photos']} photos of accuracy {row['accuracy']:g}{grouped}{seeds}"


def _cells(rows: Sequence[Row]) -> list[str]:
    lines = [
        "All cells: coverage in percent / median width over that of the best interval; for the two tests also false "
        "positives in percent. Empty: withheld. A width of 0.00: no simulated data set had an error.",
        "",
        "| photos | networks | accuracy | group | correlation | deviation, points | accuracy | difference | equal "
        "| policy | macro F1 |",
        "|--:|--:|--:|--:|--:|--:|---|---|---|---|---|",
    ]
    for row in rows:
        setting = (row["photos"], row["networks"], row["accuracy"], row["group"] or "1-20", row["correlation"])
        figures = (_figures(row[name]) for name in INTERVALS)
        cells = (*setting, f"{100 * row['deviation']:g}", *figures)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def _figures(found: Row) -> str:
    if not found:
        return ""
    shown = f"{100 * found['coverage']:.1f} / {found['width']:.2f}"
    return f"{shown} / {100 * found['false_positives']:.1f}" if "false_positives" in found else shown
