"""Figures of a search: learning curves of its trials, and accuracy against each parameter.

Every function draws a new figure, creates missing folders, writes the file atomically and returns its path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from dashboards.fonts import Writing
from dashboards.style import BLUE, DPI, GREY, INK, STATE_COLOURS, headline, save, shorten, style
from orchestrator.evaluation.importance import SIGNIFICANCE, Finding, Parameter

PANELS = 12
"""Maximum panels of a figure of parameters."""
MOST_LEVELS = 12
"""Maximum positions on a parameter's axis."""


def curves_figure(frame: pd.DataFrame, path: Path) -> Path:
    """Draw validation accuracy per epoch, one line per trial, coloured by the trial's state.

    ``frame``: one row per epoch of a trial, columns id, epoch, val_accuracy, state and optionally name. Trials without
    a finite accuracy are counted but not drawn.
    """
    write = Writing(frame["name"].astype(str) if "name" in frame else ())
    with matplotlib.rc_context(style(write)):
        states = frame.groupby("id")["state"].first().value_counts()
        drawn = frame[np.isfinite(frame["val_accuracy"].astype(float))].sort_values(["id", "epoch"])
        figure = Figure(figsize=(8.4, 4.8), dpi=DPI)
        headline(figure, *_curves_title(states, drawn))
        axes = figure.add_subplot()
        best = drawn.loc[_best_row(drawn), "id"] if len(drawn) else None
        width = 1.3 if len(states) and states.sum() <= 40 else 0.8
        order = {"COMPLETED": 3, "STOPPED": 2, "FAILED": 2}
        for trial, lines in drawn.groupby("id"):
            state = lines["state"].iloc[0]
            colour, z = STATE_COLOURS.get(state, INK), order.get(state, 1)
            x, y = lines["epoch"], 100 * lines["val_accuracy"]
            thick = 2.4 if trial == best else width
            axes.plot(x, y, color=colour, lw=thick, alpha=1 if trial == best else 0.65, zorder=z + (trial == best))
            marker = "X" if state == "FAILED" else "o"
            axes.plot(x.iloc[-1], y.iloc[-1], marker, color=colour, ms=6 if state == "FAILED" else 3.5, mew=0, zorder=9)
        if best is not None:
            last = drawn[drawn["id"] == best].iloc[-1]
            name = shorten(write(str(last.get("name") or last["id"])), 28)
            axes.annotate(
                f"{name}\n{100 * last['val_accuracy']:.1f} %", (last["epoch"], 100 * last["val_accuracy"]),
                xytext=(8, 0), textcoords="offset points", va="center", weight="bold", annotation_clip=False,
                color=STATE_COLOURS.get(last["state"], INK),
            )  # fmt: skip
        _state_key(axes, states)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return save(figure, path)


def _best_row(drawn: pd.DataFrame) -> Any:
    """Return the index of the highest final accuracy, among COMPLETED trials if there are any."""
    last = drawn.groupby("id").tail(1)
    done = last[last["state"] == "COMPLETED"]
    return (done if len(done) else last)["val_accuracy"].idxmax()


def _curves_title(states: pd.Series, drawn: pd.DataFrame) -> tuple[str, str]:
    if not len(drawn):
        return "No trial has a validation accuracy", f"{int(states.sum())} trials."
    row = drawn.loc[_best_row(drawn)]
    title = f"{100 * row['val_accuracy']:.1f} % at epoch {int(row['epoch'])} is the best"
    title += f" of {int(states.sum())} trials" if states.sum() > 1 else ", of the only trial"
    pruned = int(states.get("PRUNED", 0))
    if pruned:
        title += f", {pruned} of them pruned"
    return title, "Each line is a trial and ends at its last epoch."


def _state_key(axes: Axes, states: pd.Series) -> None:
    """Draw the states and their counts, in the states' colours, in a row above the axes."""
    names = [s for s in STATE_COLOURS if s in states.index] + sorted(set(states.index) - set(STATE_COLOURS))
    previous: Any = None
    for name in names:
        mark = "✕" if name == "FAILED" else "●"
        text, colour = f"{mark} {name} {states[name]}", STATE_COLOURS.get(name, INK)
        if previous is None:
            previous = axes.text(0, 1.02, text, transform=axes.transAxes, color=colour, va="bottom")
        else:
            previous = axes.annotate(
                text, (1, 0), xycoords=previous, xytext=(12, 0), textcoords="offset points", color=colour,
                va="bottom", annotation_clip=False,
            )  # fmt: skip


def parameters_figure(findings: Sequence[Finding], accuracy: np.ndarray, completed: np.ndarray, path: Path) -> Path:
    """Draw validation accuracy against the varied parameters, a panel each, the most significant first.

    ``findings``: of ``orchestrator.evaluation.importance.find_effects``, which decides what the title states.
    ``accuracy``: float (trials,), fractions, NaN for none. ``completed``: bool (trials,). Other trials have figures of
    fewer epochs and are drawn apart: hollow, and to the right of a value's completed ones. At most ``PANELS`` panels.
    """
    known = np.isfinite(accuracy)
    done, others = completed & known, ~completed & known
    ranked = sorted(findings, key=lambda f: (not f.significant, f.p_value, -np.nan_to_num(f.share)))
    y = 100 * np.where(known, accuracy, np.nan)
    write = Writing([_level(level) for finding in ranked[:PANELS] for level in finding.parameter.levels])
    with matplotlib.rc_context(style(write)):
        columns = min(3, max(len(ranked), 1))
        lines = max(math.ceil(min(len(ranked), PANELS) / columns), 1)
        figure = Figure(figsize=(max(2.9 * columns, 6.2), 0.9 + 2.4 * lines), dpi=DPI)
        title, note = _parameters_title(ranked, int(done.sum()), int(others.sum()))
        headline(figure, write(title), note + write.note)
        shared = None
        for place, finding in enumerate(ranked[:PANELS]):
            axes = figure.add_subplot(lines, columns, place + 1, sharey=shared)
            shared = shared or axes
            _draw_panel(axes, finding, y, (done, others), write, int(10.5 * figure.get_figwidth() / columns))
            if place % columns == 0:
                axes.set_ylabel("validation accuracy, %")
            else:
                axes.tick_params(labelleft=False)
        return save(figure, path)


def _level(value: Any) -> str:
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _jitter(count: int) -> np.ndarray:
    """Return evenly spread, deterministic offsets in [-0.5, 0.5]."""
    return (np.arange(count) * 0.6180339887) % 1 - 0.5


def _draw_panel(
    axes: Axes, finding: Finding, y: np.ndarray, kinds: tuple[np.ndarray, np.ndarray], write: Writing, room: int
) -> None:
    """Draw one panel. ``kinds``: masks of completed and other trials. ``room``: characters of tick labels in a line."""
    parameter = finding.parameter
    done, others = (kind & parameter.applies for kind in kinds)
    colour = INK if finding.significant else GREY
    if parameter.levels:
        shown = _shown_levels(parameter, y, done)
        _draw_levels(axes, parameter, shown, y, (done, others), colour)
        _label_levels(axes, [write(name) for name, _ in shown], room)
    else:
        _draw_range(axes, parameter, y, (done, others), colour)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_title(shorten(write(parameter.name), 24), loc="left", size=9.5, weight="bold", color=INK, pad=15)
    below = _panel_note(finding)
    axes.annotate(
        write(below), (0, 1), xycoords="axes fraction", xytext=(0, 3), textcoords="offset points",
        size=7.5, color=INK if finding.significant else GREY, va="bottom", annotation_clip=False,
    )  # fmt: skip


def _panel_note(finding: Finding) -> str:
    """Return the line under a panel's name: its condition, and how much of the variance it explains."""
    condition = f"{shorten(finding.parameter.condition, 20)}: " if finding.parameter.condition else ""
    if math.isnan(finding.share):
        return f"{condition}too few trials"
    if not finding.significant:
        return f"{condition}no effect shown"
    low, high = 100 * finding.share_low, 100 * finding.share_high
    return f"{condition}explains {100 * finding.share:.0f} % ({low:.0f} to {high:.0f})"


def _shown_levels(parameter: Parameter, y: np.ndarray, done: np.ndarray) -> list[tuple[str, tuple[Any, ...]]]:
    """Return (label, levels) of each position on the axis: of many levels the best and the worst have their own."""
    levels = parameter.levels
    if len(levels) <= MOST_LEVELS:
        return [(_level(level), (level,)) for level in levels]
    own = {level: done & np.array([value == level for value in parameter.values], bool) for level in levels}
    ranked = sorted((level for level in levels if own[level].any()), key=lambda level: -np.median(y[own[level]]))
    best, middle, worst = ranked[: MOST_LEVELS - 4], ranked[MOST_LEVELS - 4 : -3], ranked[MOST_LEVELS - 4 :][-3:]
    others = [(f"{len(middle)} others", tuple(middle))] if middle else []
    return [*((_level(v), (v,)) for v in best), *others, *((_level(v), (v,)) for v in worst)]


def _draw_levels(
    axes: Axes,
    parameter: Parameter,
    shown: Sequence[tuple[str, tuple[Any, ...]]],
    y: np.ndarray,
    kinds: tuple[np.ndarray, np.ndarray],
    colour: str,
) -> None:
    place = {level: i for i, (_, levels) in enumerate(shown) for level in levels}
    x = np.array([place.get(value, np.nan) for value in parameter.values], float)
    done, others = (kind & np.isfinite(x) for kind in kinds)
    axes.plot(x[done] - 0.1 + 0.3 * _jitter(int(done.sum())), y[done], "o", ms=4, color=BLUE, alpha=0.6, mew=0)
    hollow = x[others] + 0.3 + 0.1 * _jitter(int(others.sum()))
    axes.plot(hollow, y[others], "o", ms=3, mfc="none", mec=GREY, mew=0.6, alpha=0.7)
    for i in range(len(shown)):
        own = y[done & (x == i)]
        if len(own) >= 2:
            axes.plot([i - 0.3, i + 0.1], [np.median(own)] * 2, color=colour, lw=1.6, solid_capstyle="butt")
    axes.set_xlim(-0.6, len(shown) - 0.4)


def _label_levels(axes: Axes, levels: Sequence[str], room: int) -> None:
    names = [shorten(level, 18) for level in levels]
    if len(set(names)) < len(names):  # names that differ only in the middle
        names = [level if len(level) <= 18 else f"…{level[-17:]}" for level in levels]
    tilt = sum(map(len, names)) + 2 * len(names) > room
    axes.set_xticks(range(len(names)), names, rotation=35 if tilt else 0, ha="right" if tilt else "center")
    if tilt:
        for label in axes.get_xticklabels():
            label.set_rotation_mode("anchor")


def _draw_range(
    axes: Axes, parameter: Parameter, y: np.ndarray, kinds: tuple[np.ndarray, np.ndarray], colour: str
) -> None:
    done, others = kinds
    x = np.array([v if a else np.nan for v, a in zip(parameter.values, parameter.applies, strict=True)], float)
    axes.plot(x[others], y[others], "o", ms=3, mfc="none", mec=GREY, mew=0.6, alpha=0.7)
    axes.plot(x[done], y[done], "o", ms=4, color=BLUE, alpha=0.6, mew=0)
    if len(np.unique(x[done])) >= 6:
        thirds = np.array_split(np.flatnonzero(done)[np.argsort(x[done], kind="stable")], 3)
        axes.plot([np.median(x[t]) for t in thirds], [np.median(y[t]) for t in thirds], color=colour, lw=1.6)
    if parameter.log:
        axes.set_xscale("log")
        axes.set_xlim(parameter.low / 1.15, parameter.high * 1.15)
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.04 * (parameter.high - parameter.low)
        axes.set_xlim(parameter.low - margin, parameter.high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))


def _parameters_title(ranked: Sequence[Finding], done: int, others: int) -> tuple[str, str]:
    note = f"Blue: {done} completed trials, with their medians"
    note += f"; hollow: {others} stopped before the last epoch. " if others else ". "
    if not ranked:
        return "No parameter varies", note
    tested = [finding for finding in ranked if not math.isnan(finding.share)]
    found = [finding.sentence for finding in ranked if finding.significant]
    if tested:
        note += (
            f"Permutation tests of the completed trials, {len(tested)} parameters together (Holm, "
            f"{100 * SIGNIFICANCE:.0f} %); explained: share of the variance of their accuracies, 95 % interval."
        )
    if len(ranked) > PANELS:
        note += f" {len(ranked) - PANELS} more parameters are not drawn."
    if found:
        return ". ".join(found), note
    if not tested:
        return f"{len(ranked)} parameters vary; too few completed trials to tell their effects apart", note
    return f"None of {len(ranked)} parameters sets the trials apart beyond chance", note
