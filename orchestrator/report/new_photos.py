"""`orch evaluate`: its figures in the terminal and as JSON, and its table of photos."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import DataError
from orchestrator.evaluation.costs import Figure
from orchestrator.evaluation.intervals import MIN_GROUPS
from orchestrator.evaluation.leaderboard import signed
from orchestrator.evaluation.new_photos import CERTAIN_SHARE, FAR_SHARE, Answers, Farness, Judged, UnpairedDifference
from orchestrator.evaluation.per_class import to_rich
from orchestrator.evaluation.variance import photos_in_words
from orchestrator.report.terminal import tell
from orchestrator.terminal_table import Column, FittedTable, printable
from trainers.data.listing import name_some
from trainers.files.atomic import atomic_write, make_folders
from trainers.wording import count

if TYPE_CHECKING:
    from rich.console import Console

ROWS = ("path", "label", "predicted", "probability", "probabilities", "distance")
"""Columns of ``--csv``, a row for each photo that was judged; ``distance`` is "" where it is not known."""
UNKNOWN_DISTANCE = (
    "how far these photos are from the training photos is not known: the model keeps no features of those. "
    "Leaderboards since 2026-12 write them"
)
NAMED = 5
"""Photos of a kind that are left out and named; --json has all."""
MOST_BEYOND = 2.0
"""Upper bound of the share of photos beyond a limit, over the share meant, above which the limit is called uncertain:
with fewer than about 150 test photos."""
INDENT = 12
"""Columns of the word that begins each line."""


def print_judged(judged: Judged, console: Console) -> None:
    """Print the figures of a model on new photos."""
    for line in lines(judged):
        tell(console, line, INDENT)
    console.print()
    found = judged.evaluation
    to_rich(found.classes, "each class (95 %)").print(console)
    if len(found.confused):
        _confused(found.confused.to_dict("records")).print(console)
        _print_photos(console, "the most certain mistakes", "probability", judged.mistakes)
    if found.farness is not None and judged.farthest:
        title = f"the farthest photos (95 % of the test photos are within {found.farness.limit:.3f})"
        _print_photos(console, title, "distance", judged.farthest)


def to_dict(judged: Judged) -> dict[str, Any]:
    """Return the figures as JSON values."""
    found = judged.evaluation
    compared = found.against_test
    return {
        "model": judged.model,
        "photos": found.photos,
        "groups": found.groups,
        "left_out": {"trained_on": len(judged.trained), "tested_on": len(judged.tested)},
        "seen": {"trained_on": list(judged.trained), "tested_on": list(judged.tested)},
        "unreadable": dict(judged.unreadable),
        "accuracy": asdict(found.accuracy),
        "macro_f1": asdict(found.macro_f1),
        "log_loss": found.log_loss,
        "calibration": asdict(found.calibration),
        "against_test": asdict(compared) | {"exceeds_chance": compared.exceeds_chance} if compared else None,
        "less_certain": found.less_certain,
        "test_less_certain": asdict(found.test_less_certain) if found.test_less_certain else None,
        "cost": asdict(found.cost) if found.cost else None,
        "farness": asdict(found.farness) | {"are_far": found.farness.are_far} if found.farness else None,
        "per_class": found.classes.to_dict("records"),
        "confused": found.confused.to_dict("records"),
        "worst": judged.mistakes,
        "farthest": judged.farthest,
    }


def write_rows(judged: Judged, file: Path) -> str:
    """Write the CSV of ``ROWS``; return a line about it. Raises DataError where ``file`` cannot be written."""
    answers = judged.answers
    distances = [""] * len(judged.paths) if answers.distances is None else map(repr, answers.distances.tolist())
    rows = zip(judged.paths, answers.labels, answers.predicted, answers.probabilities, distances, strict=True)
    try:
        make_folders(file.absolute().parent)
        with atomic_write(file) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(ROWS)
            for path, label, answer, row, distance in rows:
                given = dict(zip(answers.classes, row.tolist(), strict=True))
                names = answers.classes[label], answers.classes[answer]
                certainty, probabilities = repr(max(row.tolist())), json.dumps(given, ensure_ascii=False)
                table.writerow([path, *names, certainty, probabilities, distance])
    except OSError as error:
        raise DataError(f"--csv: {file} cannot be written ({error.strerror or error}); name another file.") from error
    return f"{count(len(judged.paths), 'row')} in {file}."


def _without_photos(answers: Answers) -> str:
    """Say which classes count in macro F1 though no photo is of them; "" if none does."""
    labels, wrong = set(answers.labels.tolist()), set(answers.predicted.tolist())
    if not wrong - labels:
        return ""
    absent = len(answers.classes) - len(labels)
    return (
        f"; {absent} of {len(answers.classes)} classes have no photo here, and the {len(wrong - labels)} of them that "
        "were answered all the same count as 0"
    )


def lines(judged: Judged) -> list[str]:
    """Return the lines on all photos. Pure."""
    found, ece = judged.evaluation, judged.evaluation.calibration
    left_out = [
        (judged.trained, "that it was trained or chosen on"),
        (judged.tested, "of its test split"),
        ([*judged.unreadable], "that cannot be read"),
    ]
    said = [f"{count(len(paths), 'photo')} {why} ({_some(paths, judged.paths)})" for paths, why in left_out if paths]
    out = [
        f"{'model':<{INDENT}}{judged.model}",
        f"{'photos':<{INDENT}}{photos_in_words(found.photos, found.groups)}"
        + (f"; left out: {', '.join(said)}" if said else ""),
        f"{'accuracy':<{INDENT}}{_percent(found.accuracy)}",
        f"{'macro F1':<{INDENT}}{_percent(found.macro_f1)}{_without_photos(judged.answers)}",
        f"{'log loss':<{INDENT}}{found.log_loss:.3f}",
        f"{'calibration':<{INDENT}}ECE {100 * ece.measured:.1f} % as measured, {100 * ece.debiased:.1f} % without its "
        f"bias; a perfect model would show about {100 * ece.floor:.1f} % here",
    ]
    if found.cost is not None:
        out.append(f"{'mean cost':<{INDENT}}{_cost(found.cost)} a photo")
    if found.against_test is not None:
        out.append(f"{'test split':<{INDENT}}{_against_test(found.against_test)}")
    if found.less_certain is not None:
        out.append(
            f"{'certainty':<{INDENT}}{100 * found.less_certain:.1f} % of the photos have a highest probability below "
            f"that of {100 * (1 - CERTAIN_SHARE):g} % of the test photos; {100 * CERTAIN_SHARE:g} % would be expected"
            f"{_doubt(found.test_less_certain, found.against_test, CERTAIN_SHARE)}"
        )
    out.append(f"{'distance':<{INDENT}}{UNKNOWN_DISTANCE if found.farness is None else _farness(found.farness)}")
    if not math.isfinite(found.macro_f1.low):
        out.append(
            f"{'':<{INDENT}}With fewer than {MIN_GROUPS} objects each counts as one photo, and other intervals are "
            "left out."
        )
    return out


def _some(paths: Sequence[str], judged: Sequence[str]) -> str:
    """Name some of ``paths``, relative to the folder of all photos, and count the others."""
    folder = _common_folder([*paths, *judged])
    return name_some([printable(path.removeprefix(f"{folder}/" if folder else "")) for path in paths], NAMED)


def _doubt(beyond: Figure | None, test: UnpairedDifference | None, wanted: float) -> str:
    """Say that a limit is uncertain which ``wanted`` of the test photos exceed, and ``beyond`` of photos like them;
    "" where there are enough."""
    if beyond is None or test is None or beyond.high <= MOST_BEYOND * wanted:
        return ""
    said = f", but the limit comes from {photos_in_words(test.test_photos, test.test_groups)} of the test split alone"
    if not math.isfinite(beyond.low):
        return said
    return f"{said}: {100 * beyond.low:.1f} to {100 * beyond.high:.1f} % of photos like those may be beyond it (95 %)"


def _percent(figure: Figure) -> str:
    shown = f"{100 * figure.value:.1f} %"
    return f"{shown} (95 % {100 * figure.low:.1f} to {100 * figure.high:.1f})" if math.isfinite(figure.low) else shown


def _cost(figure: Figure) -> str:
    shown = f"{figure.value:.4g}"
    return f"{shown} (95 % {figure.low:.4g} to {figure.high:.4g})" if math.isfinite(figure.low) else shown


def _against_test(found: UnpairedDifference) -> str:
    """Say whether the accuracy differs from that on the test split by more than chance."""
    there = f"{_percent(found.test)} on {photos_in_words(found.test_photos, found.test_groups)}"
    gap = f"{signed(found.difference)} points here"
    if not found.is_known:
        return f"{there}; {gap}. Too few objects to say whether that is more than chance"
    between = f"95 % {signed(found.low)} to {signed(found.high)}"
    p = _p(found)
    verdict = "more than chance" if found.exceeds_chance else "not more than chance explains"
    return f"{there}; {gap} ({between}), {p}: {verdict}"


def _farness(found: Farness) -> str:
    """Say whether the photos are farther from the training photos than those of the test split."""
    compared = found.against_test
    said = (
        f"{_percent(found.share)} of these photos are farther from the training photos than "
        f"{100 * (1 - FAR_SHARE):g} % of the test photos are; {100 * FAR_SHARE:g} % would be expected"
        f"{_doubt(compared.test, compared, FAR_SHARE)}"
    )
    if not compared.is_known:
        return f"{said}. Too few objects to say whether that is more than chance"
    p = _p(compared)
    if found.are_far:
        return f"{said}, {p}: more than chance. Another camera, background, class or mix of classes?"
    return f"{said}, {p}: {'fewer than by chance' if compared.exceeds_chance else 'not more than chance explains'}"


def _p(found: UnpairedDifference) -> str:
    return "p < 0.001" if found.p_value < 0.001 else f"p = {found.p_value:.3f}"


def _confused(rows: Sequence[Mapping[str, Any]]) -> FittedTable:
    columns = (Column("label", "left"), Column("answer", "left"), Column("photos"), Column("% of the label", leaves=1))
    table = FittedTable("the most confused", columns)
    for row in rows:
        table.add_row(row["label"], row["predicted"], f"{row['photos']:,}", f"{100 * row['share']:.1f}")
    return table


def _print_photos(console: Console, title: str, figure: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of photos. Paths are relative to the folder that all have in common, which the title names."""
    folder = _common_folder([row["path"] for row in rows])
    columns = (Column("path", "left"), Column(figure), Column("label", "left"), Column("answer", "left"))
    tell(console, f"{title}, in {printable(folder)}" if folder else title, 1)
    table = FittedTable("", columns)
    for row in rows:
        path = row["path"].removeprefix(f"{folder}/" if folder else "")
        table.add_row(path, f"{row[figure]:.3f}", row["label"], row["predicted"])
    table.print(console)


def _common_folder(paths: Sequence[str]) -> str:
    """Return the folder below which all ``paths`` lie; "" if there is none but the root."""
    if not all(path.startswith("/") for path in paths):
        return ""
    return os.path.commonpath([os.path.dirname(path) for path in paths]).rstrip("/")
