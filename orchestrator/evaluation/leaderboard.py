"""The leaderboard: probabilities and labels -> ranked rows with intervals. Pure except for ``write``.

Every accuracy has a 95 % interval, every crop policy a paired difference from the same model's ``whole`` row. The
winner is an input: it was chosen on validation, and nothing computed here changes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from orchestrator.evaluation.calibration import calibration_error
from orchestrator.evaluation.intervals import (
    MIN_GROUPS,
    PairedDifference,
    grouped_interval,
    macro_f1_interval,
    paired_difference,
)
from orchestrator.evaluation.selection import WHOLE
from orchestrator.evaluation.variance import Groups, photos_in_words
from orchestrator.paths import SweepPaths
from orchestrator.terminal_table import Column, FittedTable
from trainers.files.atomic import atomic_write, atomic_write_text
from trainers.metrics import log_loss, macro_f1

COLUMNS = (
    "model",
    "policy",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "macro_f1_low",
    "macro_f1_high",
    "log_loss",
    "ece",
    "ece_floor",
    "ece_debiased",
    "images_per_s",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "images",
    "groups",
    "winner",
)
"""Columns of the file; boards written before 2026-12 lack the bounds of macro F1, ``ece_floor``, ``ece_debiased``,
``images`` and ``groups``."""
CONFIGURATION = "configuration"
"""Optional last column: the user's name of the model's configuration, present if at least one has a name."""
TERMINAL_ROWS = 16
"""Maximum rows in a terminal's table; the file has all of them."""


@dataclass(frozen=True)
class ModelPredictions:
    """One model's predictions for every test image under one crop policy.

    ``probabilities``: float (images, classes), rows sum to 1. ``seconds``: total time for all images.
    ``configuration``: the user's name of the model's configuration, "" for none.
    """

    model: str
    policy: str
    probabilities: np.ndarray
    seconds: float
    configuration: str = ""


def rank(
    predictions: Sequence[ModelPredictions],
    labels: np.ndarray,
    winner: tuple[str, str],
    groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return one row per prediction, best first, with the columns ``COLUMNS`` and, if named, ``CONFIGURATION``.

    ``labels``: int (images,), class indices. ``groups``: each image's group, None if all are independent; intervals
    and p respect it, and are NaN if there are too few. Sorted by accuracy, then log loss, then model and policy; the
    row of ``winner`` = (model, policy) is marked at any rank. ``images_per_s`` is NaN if no time was measured.
    ``whole`` rows have difference 0, interval 0 to 0, p 1.

    Raises ValueError if shapes do not match, a row is duplicated, a model has no ``whole``, or the winner has no row.
    """
    labels = np.asarray(labels)
    _check(predictions, labels, winner)
    grouped = Groups.of(groups, len(labels))
    correct = {(p.model, p.policy): p.probabilities.argmax(axis=1) == labels for p in predictions}
    rows = []
    for p in predictions:
        hits = correct[p.model, p.policy]
        if p.policy == WHOLE:
            paired = PairedDifference(0.0, 0.0, 0.0, 1.0)
        else:
            paired = paired_difference(correct[p.model, WHOLE], hits, grouped)
        rows.append(
            _figures(p, labels, grouped)
            | {
                "difference": paired.difference,
                "difference_low": paired.low,
                "difference_high": paired.high,
                "p_value": paired.p_value,
                "winner": (p.model, p.policy) == tuple(winner),
                CONFIGURATION: p.configuration,
            }
        )
    named = any(p.configuration for p in predictions)
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *([CONFIGURATION] if named else [])])
    by = ["accuracy", "log_loss", "model", "policy"]
    return frame.sort_values(by, ascending=[False, True, True, True], kind="stable", ignore_index=True)


def _figures(p: ModelPredictions, labels: np.ndarray, groups: Groups) -> dict[str, Any]:
    """Return the figures of one row that depend on no other row."""
    answers = p.probabilities.argmax(axis=1)
    hits = answers == labels
    low, high = grouped_interval(hits, groups)
    f1_low, f1_high = macro_f1_interval(labels, answers, groups)
    calibration = calibration_error(p.probabilities, labels)
    return {
        "model": p.model,
        "policy": p.policy,
        "accuracy": hits.sum() / len(hits),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": macro_f1(labels, answers),
        "macro_f1_low": f1_low,
        "macro_f1_high": f1_high,
        "log_loss": log_loss(np.asarray(p.probabilities, np.float64), labels),
        "ece": calibration.measured,
        "ece_floor": calibration.floor,
        "ece_debiased": calibration.debiased,
        "images_per_s": len(hits) / p.seconds if p.seconds > 0 else math.nan,
        "images": groups.images,
        "groups": groups.count,
    }


def _check(predictions: Sequence[ModelPredictions], labels: np.ndarray, winner: tuple[str, str]) -> None:
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(f"labels must hold one index per image, at least 1; got shape {labels.shape}")
    names = [(p.model, p.policy) for p in predictions]
    twice = sorted({f"{m}/{p}" for m, p in names if names.count((m, p)) > 1})
    if twice:
        raise ValueError(f"each model and policy must be unique; duplicates: {', '.join(twice)}")
    plain = sorted({m for m, _ in names} - {m for m, p in names if p == WHOLE})
    if plain:
        raise ValueError(f"every model needs its `{WHOLE}` row; missing for {', '.join(plain)}")
    if tuple(winner) not in names:
        raise ValueError(f"the winner {'/'.join(winner)} is not among the {len(names)} rows")
    for p in predictions:
        shape = p.probabilities.shape
        if len(shape) != 2 or shape[0] != len(labels) or shape[1] <= labels.max() or labels.min() < 0:
            raise ValueError(
                f"{p.model}/{p.policy}: probabilities of shape {shape} do not fit {len(labels)} labels "
                f"from {labels.min()} to {labels.max()}"
            )
        if not np.isfinite(p.probabilities).all():
            raise ValueError(f"{p.model}/{p.policy}: a probability is not a finite number")


def ensemble(probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """Average several models' probabilities, each (images, classes); float64. Raises ValueError for none."""
    if not probabilities:
        raise ValueError("an ensemble needs at least one model's probabilities")
    if len({p.shape for p in probabilities}) > 1:
        raise ValueError(f"an ensemble needs arrays of one shape; got {[p.shape for p in probabilities]}")
    return np.mean([np.asarray(p, dtype=np.float64) for p in probabilities], axis=0)


def to_markdown(frame: pd.DataFrame, remarks: Sequence[str] = ()) -> str:
    """Return the leaderboard as a Markdown table with a line on how to read it and ``remarks``; the winner's row is
    bold."""
    head = [
        "model", "policy", "accuracy, % (95 %)", "macro F1, % (95 %)", "log loss", "ECE, %", "images/s",
        "against whole, points (95 %)", "p", "",
    ]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|--:|--:|--:|---|--:|---|"]
    for row in frame.to_dict("records"):
        accuracy, interval, f1, loss, ece, speed, difference, between, p = _cells(row)
        cells = [_model_name(row), row["policy"], _with_interval(accuracy, interval)]
        cells += [_with_interval(f1, _interval(row, "macro_f1")), loss, ece, speed]
        cells += [_with_interval(difference, between), p, "winner" if row["winner"] else ""]
        cells = [str(cell).replace("|", "\\|") for cell in cells]
        if row["winner"]:
            cells = [f"**{cell}**" if cell else cell for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    size = f"{_size(frame)}. " if "images" in frame else ""
    listed = "".join(f"- {remark}\n" for remark in remarks)
    return "\n".join(filter(None, [*lines, f"\n{size}{HOW_TO_READ}\n", listed]))


HOW_TO_READ = (
    "The winner was chosen on validation, not here. Differences are paired: the same images under the same model's "
    "whole row. Intervals: Agresti and Coull for accuracy, the delta method for macro F1, Agresti and Min for "
    "differences; p: exact McNemar; all over objects where several photos show the same one. With fewer than "
    f"{MIN_GROUPS} objects each counts as one photo, and other intervals are left out. ECE: without its bias on few "
    "images. Formulas and coverage: docs/statistics.md."
)


def _size(frame: pd.DataFrame) -> str:
    """Return "380 photos of 95 objects"; "" for a board that does not hold the numbers."""
    if not len(frame) or "images" not in frame:
        return ""
    return photos_in_words(int(frame["images"].iloc[0]), int(frame["groups"].iloc[0]))


def _with_interval(figure: str, interval: str) -> str:
    return f"{figure} ({interval})" if interval else figure


def _interval(row: dict[str, Any], figure: str) -> str:
    """Format the bounds of a share; "" if they are unknown."""
    low, high = row.get(f"{figure}_low", math.nan), row.get(f"{figure}_high", math.nan)
    return f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}" if math.isfinite(low) else ""


def _model_name(row: dict[str, Any]) -> str:
    """Return the model, followed by the name of its configuration if it has one."""
    return f"{row['model']} {row[CONFIGURATION]}" if row.get(CONFIGURATION) else str(row["model"])


def _cells(row: dict[str, Any]) -> list[str]:
    """Format a row's figures: percent with one decimal, points with a sign."""
    whole = row["policy"] == WHOLE
    bounds = (row["difference_low"], row["difference_high"])
    return [
        f"{100 * row['accuracy']:.1f}",
        _interval(row, "accuracy"),
        f"{100 * row['macro_f1']:.1f}",
        f"{row['log_loss']:.3f}",
        f"{100 * row.get('ece_debiased', row['ece']):.1f}",
        _speed(row["images_per_s"]),
        "" if whole else signed(row["difference"]),
        "" if whole or not math.isfinite(bounds[0]) else f"{signed(bounds[0])} to {signed(bounds[1])}",
        "" if whole else _p(row["p_value"]),
    ]


def signed(share: float) -> str:
    """Format a difference of fractions in percentage points, one decimal, with its sign; "0.0" has none."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def _speed(images_per_s: float) -> str:
    if not math.isfinite(images_per_s):
        return ""
    return f"{images_per_s:,.0f}" if images_per_s >= 10 else f"{images_per_s:.1f}"


def _p(p_value: float) -> str:
    if math.isnan(p_value):
        return ""
    return "<.001" if p_value < 0.001 else f"{p_value:.3f}".lstrip("0") if p_value < 1 else "1"


def to_rich(frame: pd.DataFrame, title: str = "", most: int = TERMINAL_ROWS) -> FittedTable:
    """Return the leaderboard as a table for a terminal; the winner's row is bold and starred.

    Shows the first ``most`` rows and, at any rank, the winner's row and the ``whole`` row of the winner's model.
    """
    floor = ""
    if "ece_floor" in frame and len(frame):
        share = 100 * frame["ece_floor"].median()
        floor = f"ECE without its bias; measured plainly, a perfect model would show about {share:.1f} % here"
    columns = (
        Column("", "left"),
        Column("model", "left"),
        Column("policy", "left"),
        Column("acc %"),
        Column("(95 %)", "left"),
        Column("F1 %", leaves=4),
        Column("loss", leaves=2),
        Column("ECE %", leaves=3, note=floor),
        Column("img/s", leaves=1),
        Column("diff", note="diff: points against the same model's whole"),
        Column("(95 %)", "left"),
        Column("p", leaves=5, note="p: exact"),
    )
    winners = frame["model"].isin(frame.loc[frame["winner"], "model"])
    shown = frame[(frame.index < most) | frame["winner"] | (winners & (frame["policy"] == WHOLE))]
    left_out = len(frame) - len(shown)
    notes = [f"{left_out} more rows in leaderboard.csv"] if left_out else []
    notes.append("★ chosen on validation, not here")
    heading = ", ".join(filter(None, (title, _size(frame)))) if title else ""
    table = FittedTable(heading, columns, names=3, notes=notes, elsewhere="leaderboard.md has them")
    for row in shown.to_dict("records"):
        star, style = ("★", "bold green") if row["winner"] else ("", "")
        table.add_row(star, _model_name(row), row["policy"], *_cells(row), style=style)
    return table


def write(frame: pd.DataFrame, paths: SweepPaths, remarks: Sequence[str] = ()) -> None:
    """Write the leaderboard as CSV, Parquet and Markdown, the last with ``remarks``."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with atomic_write(paths.leaderboard_csv) as path:
        frame.to_csv(path, index=False)
    with atomic_write(paths.leaderboard_parquet) as path:
        frame.to_parquet(path, index=False)
    atomic_write_text(paths.leaderboard_md, to_markdown(frame, remarks))
