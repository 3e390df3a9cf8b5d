"""Figures of a sweep's results on the test split; ``search_figures`` draws the search. No state, no pyplot.

Every function draws a new figure whose title states the finding, creates missing folders, writes the file atomically
and returns its path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from dashboards.fonts import Writing, width
from dashboards.style import BLUE, DPI, GREY, INK, PALE, VERMILION, headline, save, shorten, style
from trainers.files.plain import Unreadable
from trainers.images.decode import DecodedPhoto

MAX_ROWS = 40
"""Maximum rows in the leaderboard's figure; the file has all of them."""


def leaderboard_figure(frame: pd.DataFrame, path: Path) -> Path:
    """Draw test accuracies with intervals, rows in the order of ``frame``; the winner is blue, ``whole`` hollow.

    At most ``MAX_ROWS`` rows are drawn; a winner further down takes the last line.

    ``frame`` needs the columns model, policy, accuracy, accuracy_low, accuracy_high, winner (exactly one true).
    """
    given = frame["configuration"].astype(str) if "configuration" in frame else ()
    write = Writing([*frame["model"].astype(str), *given])
    with matplotlib.rc_context(style(write)):
        rows = frame.reset_index(drop=True)
        place = int(np.flatnonzero(rows["winner"].to_numpy(bool))[0])
        best, total = rows.loc[place], len(rows)
        if total > MAX_ROWS:
            kept = [*range(MAX_ROWS)] if place < MAX_ROWS else [*range(MAX_ROWS - 1), place]
            rows = rows.iloc[kept].reset_index(drop=True)
        figure = Figure(figsize=(8.4, 1.25 + 0.24 * len(rows)), dpi=DPI)
        title = (
            f"The winner is right on {100 * best.accuracy:.1f} % of the test images "
            f"({100 * best.accuracy_low:.1f} to {100 * best.accuracy_high:.1f})"
        )
        note = (
            f"{_row_name(best, write)}, chosen on validation, ranks {place + 1} of {total} on test. "
            "Lines are 95 % intervals; hollow circles: the whole image as one crop."
            f"{f' {total - len(rows)} more rows in leaderboard.csv.' if total > len(rows) else ''}{write.note}"
        )
        headline(figure, title, note)
        axes = figure.add_subplot()
        axes.axvline(100 * best.accuracy, color=PALE, lw=1, zorder=0)
        for y, row in rows.iterrows():
            colour, thick = (BLUE, 2.2) if row.winner else (GREY, 1.1)
            axes.plot([100 * row.accuracy_low, 100 * row.accuracy_high], [y, y], color=colour, lw=thick)
            face = "white" if row.policy == "whole" else colour
            axes.plot(100 * row.accuracy, y, "o", ms=6 if row.winner else 5, mfc=face, mec=colour, mew=1.3)
            axes.text(
                1.01, y, f"{100 * row.accuracy:.1f}", transform=axes.get_yaxis_transform(), va="center",
                color=BLUE if row.winner else INK, weight="bold" if row.winner else "normal",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_row_name(row, write) for _, row in rows.iterrows()])
        axes.tick_params(axis="y", length=0)
        label = axes.get_yticklabels()[min(place, len(rows) - 1)]
        label.set(color=BLUE, weight="bold")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("test accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        return save(figure, path)


def _row_name(row: pd.Series, write: Writing) -> str:
    given = str(row.get("configuration") or "")
    model = f"{row.model} {given}" if given and given != "nan" else str(row.model)
    return f"{shorten(write(model), 36)} · {shorten(str(row.policy), 24)}"


def confusion_figure(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Draw the confusion matrix; colour is the share of the row, blue if correct, vermilion if wrong.

    ``labels`` and ``predicted``: int (images,), indices into ``classes``. The last column is each class's recall.
    """
    labels, predicted, n = np.asarray(labels), np.asarray(predicted), len(classes)
    counts = np.zeros((n, n), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    write = Writing(classes=[str(c) for c in classes])
    names = [shorten(write(str(c)), 22) for c in classes]
    with matplotlib.rc_context(style(write)):
        cell = 0.62 if n <= 10 else 0.42 if n <= 20 else 0.29
        room = 0.6 + 0.075 * max(width(name) for name in names)
        figure = Figure(figsize=(max(5.6, n * cell + room + 0.8), n * cell + room + 0.9), dpi=DPI)
        title, note = _confusion_title(counts, names)
        headline(figure, title, note + write.note)
        axes = figure.add_subplot()
        right, wrong = np.eye(n, dtype=bool), ~np.eye(n, dtype=bool)
        for where, colour, strongest in ((right, BLUE, 1.0), (wrong & (counts > 0), VERMILION, 0.5)):
            colours = LinearSegmentedColormap.from_list("", ["white", colour])
            axes.imshow(np.where(where, shares, np.nan), cmap=colours, norm=PowerNorm(0.6, 0, strongest, clip=True))
        size = 8.5 if n <= 20 else 6
        for i, j in zip(*np.nonzero(counts), strict=True):
            dark = shares[i, j] > (0.35 if i == j else 0.2)
            text = axes.text(j, i, str(counts[i, j]), ha="center", va="center", size=size)
            text.set(color="white" if dark else INK, in_layout=False)
        for i, total in enumerate(totals):
            recall = f"{100 * shares[i, i]:.0f} %" if total else "no images"
            axes.text(n - 0.3, i, recall, va="center", size=size, color=INK if total else GREY)
        axes.text(n - 0.3, -0.62, "recall", va="bottom", size=size, color=GREY)
        axes.set_xticks(range(n), names, rotation=0 if n <= 7 and max(map(width, names)) <= 9 else 90)
        axes.set_yticks(range(n), names)
        axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", color=PALE, lw=0.5)
        axes.tick_params(which="both", length=0, labelsize=9 if n <= 20 else 7.5)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        return save(figure, path)


def _confusion_title(counts: np.ndarray, names: Sequence[str]) -> tuple[str, str]:
    total, right = int(counts.sum()), int(np.trace(counts))
    note = f"{right} of {total} images right ({100 * right / max(total, 1):.1f} %). Colour: share of the true class."
    mistakes = counts - np.diag(np.diag(counts))
    if not mistakes.any():
        return "No image is taken for another class", note
    i, j = np.unravel_index(mistakes.argmax(), mistakes.shape)
    of = counts[i].sum()
    return f"Most common mistake: {names[i]} taken for {names[j]}, {mistakes[i, j]} of {of} images", note


def mistakes_figure(
    paths: Sequence[Path],
    true: Sequence[str],
    predicted: Sequence[str],
    probability: Sequence[float],
    path: Path,
    most: int = 24,
    classes: Sequence[str] = (),
) -> Path:
    """Draw the most confident mistakes, at most ``most`` of the images where ``true`` != ``predicted``.

    The four sequences have one entry per image; ``probability`` is that of the predicted class. An unreadable image
    gets a placeholder tile. ``classes``: all class names, in order.
    """
    wrong = [i for i in range(len(paths)) if true[i] != predicted[i]]
    worst = sorted(wrong, key=lambda i: (-probability[i], str(paths[i])))[:most]
    columns = min(6, max(len(worst), 3))
    lines = math.ceil(len(worst) / columns)
    write = Writing([*true, *predicted, *(Path(each).name for each in paths)], classes)
    title, note = _mistakes_title(len(wrong), len(paths), [write(str(predicted[i])) for i in wrong], len(worst))
    tile, caption, top = 1.55, 0.58, 0.7
    with matplotlib.rc_context(style(write)):
        across, height = columns * (tile + 0.12) + 0.28, top + lines * (tile + caption) + 0.1
        figure = Figure(figsize=(across, height), dpi=DPI)
        headline(figure, title, note + write.note)
        figure.set_layout_engine("none")
        for place, i in enumerate(worst):
            left = 0.2 + (place % columns) * (tile + 0.12)
            bottom = height - top - (place // columns) * (tile + caption) - tile
            axes = figure.add_axes((left / across, bottom / height, tile / across, tile / height))
            axes.set_axis_off()
            _photo(axes, Path(paths[i]))
            below = (
                (f"{100 * probability[i]:.0f} % {shorten(write(str(predicted[i])), 15)}", VERMILION, 8.0, "bold"),
                (f"is {shorten(write(str(true[i])), 22)}", INK, 8.0, "normal"),
                (shorten(write(Path(paths[i]).name), 20), GREY, 6.0, "normal"),
            )
            for line, (text, colour, size, weight) in enumerate(below):
                y = bottom - 0.04 - line * 0.15
                figure.text(left / across, y / height, text, color=colour, size=size, weight=weight, va="top")
        return save(figure, path)


def _mistakes_title(wrong: int, total: int, into: Sequence[str], shown: int) -> tuple[str, str]:
    if not wrong:
        return f"No mistakes among {total} image{'' if total == 1 else 's'}", "There is nothing to show."
    names, counts = np.unique([str(name) for name in into], return_counts=True)
    verb, common = "is" if wrong == 1 else "are", names[counts.argmax()]
    title = f"{wrong} of {total} images {verb} wrong"
    title += f", taken for {common}" if counts.max() == wrong else f"; {counts.max()} of them taken for {common}"
    which = f"The {shown} most confident" if shown < wrong else "All of them"
    return title, f"{which}, worst first: the prediction, then the label."


def _photo(axes: Axes, path: Path) -> None:
    try:
        pixels = thumbnail(path, 300)
    except Unreadable:
        axes.add_patch(Rectangle((0, 0), 1, 1, color=PALE, transform=axes.transAxes))
        axes.text(0.5, 0.5, "cannot be read", transform=axes.transAxes, ha="center", va="center", color=GREY)
        return
    axes.imshow(pixels, interpolation="antialiased")
    axes.set_anchor("NW")


def thumbnail(path: Path, size: int) -> np.ndarray:
    """Read a photo as training does, at most ``size`` pixels a side, uint8 (height, width, 3). Raises Unreadable."""
    image = DecodedPhoto(path).decode(size).copy()
    image.thumbnail((size, size))
    return np.asarray(image)
