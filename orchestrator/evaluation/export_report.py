"""Evaluate exported models: figures next to the original's, the decision to keep each, the report. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from orchestrator.evaluation.intervals import PairedDifference, grouped_interval, paired_difference, sign_flip
from orchestrator.evaluation.leaderboard import signed
from orchestrator.evaluation.variance import Groups, photos_in_words
from orchestrator.plain_json import json_ready
from orchestrator.terminal_table import Column, FittedTable
from trainers.wording import count


class ExportState(StrEnum):
    """Outcome of one format."""

    KEPT = "kept"
    OVERRIDDEN = "overridden"
    REFUSED = "refused"
    FAILED = "failed"

    @property
    def is_there(self) -> bool:
        """Whether the exported file was kept."""
        return self in (ExportState.KEPT, ExportState.OVERRIDDEN)


@dataclass(frozen=True)
class Figures:
    """Figures of one format on the test split.

    ``difference``: this accuracy minus the original's on the same photos, paired; photos of one object vary together.
    Its bounds are NaN for too few objects, and so is its p for fewer than ``FEWEST_OBJECTS``. ``largest_change``: the
    largest absolute difference of any probability. ``same_label``: fraction of photos with the original's prediction.
    ``latency_ms``: median time per photo from decoded crops to probabilities, NaN if not measured. ``size_mb``: 10^6
    bytes.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    difference: PairedDifference
    largest_change: float
    same_label: float
    latency_ms: float
    size_mb: float


@dataclass(frozen=True)
class Export:
    """One format: its file, outcome and reason. ``figures`` is None if it could not be written.

    ``note``: further information, a sentence or "".
    """

    name: str
    file: str
    state: ExportState
    reason: str
    figures: Figures | None
    note: str = ""


@dataclass(frozen=True)
class ExportReport:
    """All formats and the original. ``model``: the leaderboard's row. ``photos``: of ``objects``. ``bound``: the
    accuracy that may be lost.

    ``from_photos``: result of the SavedModel's signature for encoded photos, None without one. ``facts``: machine and
    versions behind the latency.
    """

    sweep: str
    trial: str
    model: str
    policy: str
    crops: int
    photos: int
    objects: int
    bound: float
    threads: int
    original: Figures
    exports: tuple[Export, ...]
    from_photos: str | None
    facts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON; figures that were not measured are None."""
        return json_ready(asdict(self))

    @property
    def refusals(self) -> list[str]:
        """One sentence per format that was not kept."""
        return [f"{e.name}: {e.reason}" for e in self.exports if not e.state.is_there]


ALPHA = 0.05
"""Maximum probability of refusing a format that is in truth as accurate as the original."""
FEWEST_OBJECTS = 5
"""Minimum objects on which a loss can be significant: 2^-5 < ``ALPHA`` < 2^-4."""


def figures(
    probabilities: np.ndarray, original: np.ndarray, labels: np.ndarray, groups: Groups, speed: tuple[float, float]
) -> Figures:
    """Compute figures; ``probabilities``, ``original``: (photos, classes), ``labels``: (photos,) class indices.

    ``groups``: which photos show one object. ``speed``: latency in ms and size in MB.
    """
    if probabilities.shape != original.shape or len(labels) != len(original):
        raise ValueError(
            f"shapes {probabilities.shape}, {original.shape} and {labels.shape} are not of the same photos"
        )
    hits, before = probabilities.argmax(1) == labels, original.argmax(1) == labels
    low, high = grouped_interval(hits, groups)
    difference = paired_difference(before, hits, groups)
    if math.isnan(difference.p_value) and groups.count >= FEWEST_OBJECTS:  # the exact test estimates no variance
        difference = replace(difference, p_value=sign_flip(groups.sums(hits.astype(np.int64) - before)))
    return Figures(
        accuracy=float(hits.mean()),
        accuracy_low=low,
        accuracy_high=high,
        difference=difference,
        largest_change=float(np.abs(probabilities - original).max()),
        same_label=float((probabilities.argmax(1) == original.argmax(1)).mean()),
        latency_ms=speed[0],
        size_mb=speed[1],
    )


def decide(found: Figures, bound: float, force: bool) -> tuple[ExportState, str]:
    """Decide whether an export is kept, and why.

    It is refused if it is worse than the original by more than ``bound`` and the loss is significant: the exact
    one-sided test of flipped signs (``intervals.sign_flip``; McNemar's if each photo shows another object) rejects "not
    worse" at ``ALPHA``, or there are too few objects for any test. One photo of 64 is 1.6 points but not significant
    (p = 0.5); a net loss of 15 photos of 380 is. A format kept because its loss is not significant has a reason too,
    for the report. NaN is never accepted.
    """
    if not math.isfinite(found.largest_change):
        return ExportState.REFUSED, "its probabilities are not finite numbers."
    change = found.difference
    lost = -change.difference
    if lost <= bound + 1e-12:
        return ExportState.KEPT, ""
    p_worse = change.p_value / 2  # the lower tail alone
    known = [f"95 % interval {signed(change.low)} to {signed(change.high)} points"] if math.isfinite(change.low) else []
    known += [f"one-sided p {p_worse:.2g}" if math.isfinite(p_worse) else "on too few objects to test it"]
    sentence = (
        f"its accuracy on test is {found.accuracy:.3f}, {100 * lost:.1f} points below the original's "
        f"({', '.join(known)}); {100 * bound:g} may be lost"
    )
    if p_worse >= ALPHA:
        return ExportState.KEPT, f"{sentence}, but with this number of photos chance alone can explain it."
    if force:
        return ExportState.OVERRIDDEN, f"{sentence}; kept because of `--force`."
    return ExportState.REFUSED, f"{sentence}. Allow more with `--bound`, or keep it anyway with `--force`."


# --- the report ---------------------------------------------------------------------------------------------------

HEADER = (
    *("format", "accuracy, % (95 %)", "against the original, points (95 %)", "p", "largest change", "same label, %"),
    *("latency, ms", "size, MB", ""),
)
DASH = "\N{EN DASH}"


def to_markdown(report: ExportReport) -> str:
    """Return the report as a Markdown page."""
    lines = [
        f"# Exports of {report.sweep}",
        "",
        f"The winner, trial `{report.trial}` ({report.model}), crop policy `{report.policy}` "
        f"({report.crops} crop{'s' if report.crops > 1 else ''} per photo), on {_tested(report)}.",
        "",
        f"| {' | '.join(HEADER)} |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
        *(f"| {' | '.join(_cells(row))} |" for row in _rows(report)),
        "",
    ]
    notes = [f"- {line}" for line in remarks(report)]
    lines += [*notes, ""] if notes else []
    lines += [f"{report.from_photos}\n"] if report.from_photos else []
    lines += [how_to_read(report), ""]
    return "\n".join(lines)


def remarks(report: ExportReport) -> list[str]:
    """Return one line per format that has a reason or a note."""
    lines = []
    for export in report.exports:
        lines += [f"{export.name} was {export.state}: {export.reason}"] if export.reason else []
        lines += [f"{export.name}: {export.note}"] if export.note and export.state.is_there else []
    return lines


def how_to_read(report: ExportReport, columns: bool = True) -> str:
    """Return the paragraph under the table. ``columns``: with what the columns p and largest change are."""
    machine = ", ".join(f"{name} {value}" for name, value in report.facts.items())
    how = "Agresti and Coull for accuracy, Agresti and Min for paired differences"
    if report.objects < report.photos:
        how = "photos of one object vary together (docs/statistics.md)"
    explained = f" {P.format(_test(report))} {CHANGE}" if columns else ""
    return (
        f"All formats predict the same crops of the same photos. Intervals: {how}.{explained} Latency: the median "
        f"photo, from decoded crops to probabilities, on {report.threads} thread{'s' if report.threads > 1 else ''}; "
        f"{machine}. Refused: an accuracy more than {100 * report.bound:g} points below the original's, unless chance "
        f"alone can explain it (one-sided, {_test(report)}, p >= {ALPHA:g})."
    )


P = "p: {}."
CHANGE = "Largest change: the largest difference of any probability."


def _test(report: ExportReport) -> str:
    return "exact McNemar" if report.objects == report.photos else "exact, signs of objects flipped"


def _tested(report: ExportReport) -> str:
    """Return the number of test photos in words."""
    return photos_in_words(report.photos, report.objects).replace("photo", "test photo", 1)


def to_rich(report: ExportReport) -> FittedTable:
    """Return the table for a terminal."""
    columns = (
        Column("format", "left"),
        Column("acc % (95 %)"),
        Column("diff (95 %)", note="diff: points against the original, paired"),
        Column("p", leaves=3, note=P.format(_test(report)).rstrip(".")),
        Column("change", leaves=1, note=CHANGE.rstrip(".").replace("Largest change", "change")),
        Column("same %", leaves=2),
        Column("ms", note=f"ms: median photo, {count(report.threads, 'thread')}"),
        Column("MB"),
        Column("", "left"),
    )
    table = FittedTable(f"exports of {report.sweep}, on {_tested(report)}", columns, elsewhere="report.md has them")
    for row in _rows(report):
        refused = row[0] is not None and not row[0].state.is_there
        table.add_row(*_cells(row), style="red" if refused else "")
    return table


def _rows(report: ExportReport) -> Sequence[tuple[Export | None, Figures | None]]:
    return [(None, report.original), *((export, export.figures) for export in report.exports)]


def _cells(row: tuple[Export | None, Figures | None]) -> list[str]:
    export, found = row
    name, state = ("original", "") if export is None else (export.name, str(export.state))
    if found is None:
        return [name, *[""] * 7, state]
    change = found.difference
    bounds = f" ({signed(change.low)} to {signed(change.high)})" if math.isfinite(change.low) else ""
    against = f"{signed(change.difference)}{bounds}" if export else ""
    return [
        name,
        f"{100 * found.accuracy:.1f} ({100 * found.accuracy_low:.1f}{DASH}{100 * found.accuracy_high:.1f})",
        against,
        f"{change.p_value:.2g}" if export and math.isfinite(change.p_value) else "",
        f"{found.largest_change:.1g}" if export else "",
        f"{100 * found.same_label:.1f}" if export else "",
        "" if math.isnan(found.latency_ms) else f"{found.latency_ms:.2f}",
        f"{found.size_mb:.2f}",
        state,
    ]


def as_json(values: Mapping[str, Any]) -> str:
    return json.dumps(json_ready(values), indent=1, ensure_ascii=False) + "\n"
