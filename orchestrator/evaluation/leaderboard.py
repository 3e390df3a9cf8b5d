"""The leaderboard: probabilities and labels -> ranked rows with intervals. Pure except for ``write``.

Every accuracy has a 95 % interval, every crop policy a paired difference from the same model's ``whole`` row. The
winner is an input: it was chosen on validation, and nothing computed here changes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from orchestrator.evaluation.selection import WHOLE
from orchestrator.paths import SweepPaths
from trainers.files.atomic import atomic_write, atomic_write_text
from trainers.metrics import Z_95, log_loss, macro_f1

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "model",
    "policy",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "log_loss",
    "ece",
    "images_per_s",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "winner",
)
CONFIGURATION = "configuration"
"""Optional last column: the user's name of the model's configuration, present if at least one has a name."""
ECE_BINS = 15
"""Number of confidence bins of the expected calibration error."""
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


@dataclass(frozen=True)
class PairedDifference:
    """Accuracy of the second minus that of the first on the same images, its 95 % interval, and a p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def rank(predictions: Sequence[ModelPredictions], labels: np.ndarray, winner: tuple[str, str]) -> pd.DataFrame:
    """Return one row per prediction, best first, with the columns ``COLUMNS`` and, if named, ``CONFIGURATION``.

    ``labels``: int (images,), class indices. Sorted by accuracy, then log loss, then model and policy; the row of
    ``winner`` = (model, policy) is marked at any rank. ``images_per_s`` is NaN if no time was measured. ``whole`` rows
    have difference 0, interval 0 to 0, p 1.

    Raises ValueError if shapes do not match, a row is duplicated, a model has no ``whole``, or the winner has no row.
    """
    labels = np.asarray(labels)
    _check(predictions, labels, winner)
    correct = {(p.model, p.policy): p.probabilities.argmax(axis=1) == labels for p in predictions}
    rows = []
    for p in predictions:
        hits = correct[p.model, p.policy]
        low, high = accuracy_interval(int(hits.sum()), len(hits))
        if p.policy == WHOLE:
            paired = PairedDifference(0.0, 0.0, 0.0, 1.0)
        else:
            paired = paired_difference(correct[p.model, WHOLE], hits)
        rows.append(
            {
                "model": p.model,
                "policy": p.policy,
                "accuracy": hits.sum() / len(hits),
                "accuracy_low": low,
                "accuracy_high": high,
                "macro_f1": macro_f1(labels, p.probabilities.argmax(axis=1)),
                "log_loss": log_loss(np.asarray(p.probabilities, np.float64), labels),
                "ece": expected_calibration_error(p.probabilities, labels),
                "images_per_s": len(hits) / p.seconds if p.seconds > 0 else math.nan,
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


def accuracy_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4).

    Raises ValueError unless 0 <= correct <= total > 0.
    """
    from scipy.stats import binomtest  # SciPy: a second to import

    if total <= 0 or not 0 <= correct <= total:
        raise ValueError(f"{correct} correct of {total} images is no accuracy")
    interval = binomtest(correct, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference(correct_a: Any, correct_b: Any) -> PairedDifference:
    """Compare the accuracy of b with that of a on the same images; both bool (images,), whether correct.

    With b images correct under a only, c under b only, of n: the difference is (c - b) / n. The interval is the
    adjusted Wald interval of Agresti & Min 2005 (Statistics in Medicine 24, "Wald+2"): half an image is added to
    each of the four cells, d = (c - b) / (n + 2), d +- z sqrt(b + c + 1 - (c - b)^2 / (n + 2)) / (n + 2), clipped to
    [-1, 1]. The p-value is the exact two-sided test of McNemar 1947 (binomial, b of b + c at 1/2).

    Raises ValueError unless both have the same number of images, at least 1.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or len(a) == 0:
        raise ValueError(f"a paired difference needs the same images, at least 1; got shapes {a.shape} and {b.shape}")
    only_a, only_b, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    gain = only_b - only_a
    middle = gain / (n + 2)
    half = Z_95 * math.sqrt(only_a + only_b + 1 - gain**2 / (n + 2)) / (n + 2)
    return PairedDifference(gain / n, max(-1.0, middle - half), min(1.0, middle + half), exact_mcnemar(only_a, only_b))


def exact_mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: binomial, only_a + only_b draws at 1/2; 1 without any."""
    from scipy.stats import binomtest  # SciPy: a second to import

    n = only_a + only_b
    return float(binomtest(min(only_a, only_b), n).pvalue) if n else 1.0


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = ECE_BINS) -> float:
    """Return the sum over bins of |B_m|/n |accuracy(B_m) - confidence(B_m)| (Guo et al. 2017, eq. 3).

    The confidence is the highest probability; bin m holds ((m - 1)/bins, m/bins].
    """
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, hits = p.max(axis=1), p.argmax(axis=1) == labels
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=hits - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def to_markdown(frame: pd.DataFrame) -> str:
    """Return the leaderboard as a Markdown table with a line on how to read it; the winner's row is bold."""
    head = [
        "model", "policy", "accuracy, % (95 %)", "macro F1, %", "log loss", "ECE, %", "images/s",
        "against whole, points (95 %)", "p", "",
    ]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---|---|---|--:|--:|--:|--:|---|--:|---|"]
    for row in frame.to_dict("records"):
        accuracy, interval, f1, loss, ece, speed, difference, between, p = _cells(row)
        cells = [_model_name(row), row["policy"], f"{accuracy} ({interval})", f1, loss, ece, speed]
        cells += [f"{difference} ({between})" if between else difference, p, "winner" if row["winner"] else ""]
        cells = [str(cell).replace("|", "\\|") for cell in cells]
        if row["winner"]:
            cells = [f"**{cell}**" if cell else cell for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n{HOW_TO_READ}\n"


HOW_TO_READ = (
    "The winner was chosen on validation, not here. Differences are paired: the same images under the same model's "
    "whole row. Intervals: Wilson for accuracy, Agresti and Min for differences; p: exact McNemar."
)


def _model_name(row: dict[str, Any]) -> str:
    """Return the model, followed by the name of its configuration if it has one."""
    return f"{row['model']} {row[CONFIGURATION]}" if row.get(CONFIGURATION) else str(row["model"])


def _cells(row: dict[str, Any]) -> list[str]:
    """Format a row's figures: percent with one decimal, points with a sign."""
    whole = row["policy"] == WHOLE
    return [
        f"{100 * row['accuracy']:.1f}",
        f"{100 * row['accuracy_low']:.1f}\N{EN DASH}{100 * row['accuracy_high']:.1f}",
        f"{100 * row['macro_f1']:.1f}",
        f"{row['log_loss']:.3f}",
        f"{100 * row['ece']:.1f}",
        _speed(row["images_per_s"]),
        "" if whole else signed(row["difference"]),
        "" if whole else f"{signed(row['difference_low'])} to {signed(row['difference_high'])}",
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
    return "<.001" if p_value < 0.001 else f"{p_value:.3f}".lstrip("0") if p_value < 1 else "1"


def to_rich(frame: pd.DataFrame, title: str = "", most: int = TERMINAL_ROWS) -> Table:
    """Return the leaderboard as a ``rich`` table that fits 100 columns; the winner's row is bold and starred.

    Shows the first ``most`` rows and, at any rank, the winner's row and the ``whole`` row of the winner's model.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(title) if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("")
    table.add_column("model", overflow="fold", min_width=8)
    table.add_column("policy", overflow="fold", min_width=8)
    for name, justify in (
        ("acc %", "right"),
        ("(95 %)", "left"),
        ("F1 %", "right"),
        ("loss", "right"),
        ("ECE %", "right"),
        ("img/s", "right"),
        ("diff", "right"),
        ("(95 %)", "left"),
        ("p", "right"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    winners = frame["model"].isin(frame.loc[frame["winner"], "model"])
    shown = frame[(frame.index < most) | frame["winner"] | (winners & (frame["policy"] == WHOLE))]
    for row in shown.to_dict("records"):
        cells = ["★" if row["winner"] else "", _model_name(row), row["policy"], *_cells(row)]
        table.add_row(*(Text(str(cell)) for cell in cells), style="bold green" if row["winner"] else "")
    left_out = len(frame) - len(shown)
    table.caption = f"{left_out} more rows in leaderboard.csv\n" if left_out else ""
    table.caption += "★ chosen on validation, not here   diff: points against the same model's whole   p: exact McNemar"
    table.caption_justify = "left"
    return table


def write(frame: pd.DataFrame, paths: SweepPaths) -> None:
    """Write the leaderboard as CSV, Parquet and Markdown."""
    paths.root.mkdir(parents=True, exist_ok=True)
    with atomic_write(paths.leaderboard_csv) as path:
        frame.to_csv(path, index=False)
    with atomic_write(paths.leaderboard_parquet) as path:
        frame.to_parquet(path, index=False)
    atomic_write_text(paths.leaderboard_md, to_markdown(frame))
