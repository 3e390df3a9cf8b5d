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


def parameters_figure(frame: pd.DataFrame, path: Path) -> Path:
    """Draw validation accuracy against every varied parameter, one panel each, widest spread first.

    ``frame``: one row per trial, with val_accuracy, columns that start with ``config_`` and optionally state. The
    spread of a parameter is the distance between the best and the worst median of its values (of its thirds if it is a
    range), over groups of at least two trials; COMPLETED trials only, if there are at least four.
    """
    trials = frame[np.isfinite(frame["val_accuracy"].astype(float))].reset_index(drop=True)
    done = trials["state"] == "COMPLETED" if "state" in trials else pd.Series(True, index=trials.index)
    if done.sum() < 4:
        done = pd.Series(True, index=trials.index)
    found = [_panel(trials, done, column) for column in trials if str(column).startswith("config_")]
    panels = sorted((panel for panel in found if panel), key=lambda panel: -panel["spread"])
    y = 100 * trials["val_accuracy"].astype(float)
    floor = max(y.min(), y[done].min() - (y[done].max() - y[done].min()))
    write = Writing([tick for panel in panels for tick in panel.get("ticks", ())])
    with matplotlib.rc_context(style(write)):
        columns = min(3, max(len(panels), 1))
        lines = max(math.ceil(len(panels) / columns), 1)
        figure = Figure(figsize=(max(2.9 * columns, 6.2), 0.9 + 2.25 * lines), dpi=DPI)
        title, note = _parameters_title(panels, len(trials), int(done.sum()), bool((y < floor).any()))
        headline(figure, write(title), note + write.note)
        shared = None
        for place, panel in enumerate(panels):
            axes = figure.add_subplot(lines, columns, place + 1, sharey=shared)
            shared = shared or axes
            _draw_panel(
                axes,
                {**panel, "ticks": [*map(write, panel["ticks"])]} if "ticks" in panel else panel,
                done,
                floor,
                int(10.5 * figure.get_figwidth() / columns),
            )
            if place % columns == 0:
                axes.set_ylabel("validation accuracy, %")
            else:
                axes.tick_params(labelleft=False)
        return save(figure, path)


def _panel(trials: pd.DataFrame, done: pd.Series, column: str) -> dict[str, Any] | None:
    """Return one parameter's positions, ticks and medians; None if it does not vary."""
    values = trials[column]
    if values.map(_level).nunique() < 2:
        return None
    y = 100 * trials["val_accuracy"].astype(float)
    number = pd.to_numeric(values, errors="coerce")
    is_range = number.notna().all() and not values.map(lambda v: isinstance(v, bool)).any() and number.nunique() > 7
    panel: dict[str, Any] = {"name": column.removeprefix("config_"), "y": y}
    if is_range:
        panel["x"], panel["log"] = number, _is_skewed(number)
        groups = pd.qcut(number[done], 3, duplicates="drop")
        centres = number[done].groupby(groups, observed=True).median().to_numpy()
    else:
        order = sorted(values.map(_level).unique(), key=_level_order)
        panel["ticks"] = order
        position = values.map(lambda v: order.index(_level(v)))
        panel["x"] = position + _jitter(len(position))
        groups = position[done]
        centres = np.sort(groups.unique())
    grouped = y[done].groupby(groups, observed=True)
    medians, sizes = grouped.median().to_numpy(), grouped.size().to_numpy()
    panel["medians"] = [(c, m) for c, m, size in zip(centres, medians, sizes, strict=True) if size >= 2]
    ranked = sorted((median, centre) for centre, median in panel["medians"])
    panel["spread"] = float(ranked[-1][0] - ranked[0][0]) if len(ranked) > 1 else 0.0
    if not is_range and panel["spread"]:
        panel["extremes"] = [(panel["ticks"][int(centre)], median) for median, centre in (ranked[-1], ranked[0])]
    return panel


def _is_skewed(number: pd.Series) -> bool:
    """Return whether positive values crowd at their low end, like samples of a logarithmic range."""
    low, high = number.min(), number.max()
    return bool(low > 0 and (number.median() - low) / (high - low) < 0.2)


def _level(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "default"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _level_order(level: str) -> tuple[int, float, str]:
    try:
        return (0, float(level), "")
    except ValueError:
        return (1, 0.0, level)


def _jitter(count: int) -> np.ndarray:
    """Return evenly spread, deterministic offsets in [-0.18, 0.18]."""
    return 0.36 * ((np.arange(count) * 0.6180339887) % 1) - 0.18


def _draw_panel(axes: Axes, panel: dict[str, Any], done: pd.Series, floor: float, room: int) -> None:
    """Draw one panel. ``room``: maximum characters of tick labels in a line below the axes."""
    x, y = panel["x"], panel["y"]
    for others, marker in ((~done & (y >= floor), "o"), (~done & (y < floor), "v")):
        axes.plot(x[others], y[others].clip(lower=floor), marker, ms=3.2, color=GREY, alpha=0.45, mew=0)
    axes.plot(x[done], y[done], "o", ms=4, color=BLUE, alpha=0.6, mew=0)
    if "ticks" in panel:
        for centre, median in panel["medians"]:
            axes.plot([centre - 0.3, centre + 0.3], [median, median], color=INK, lw=1.6, solid_capstyle="butt")
        names = [shorten(t, 18) for t in panel["ticks"]]
        if len(set(names)) < len(names):  # names that differ only in the middle
            names = [t if len(t) <= 18 else f"…{t[-17:]}" for t in panel["ticks"]]
        tilt = sum(map(len, names)) + 2 * len(names) > room
        axes.set_xticks(range(len(names)), names, rotation=35 if tilt else 0, ha="right" if tilt else "center")
        if tilt:
            for label in axes.get_xticklabels():
                label.set_rotation_mode("anchor")
        axes.set_xlim(-0.6, len(names) - 0.4)
    else:
        axes.plot([c for c, _ in panel["medians"]], [m for _, m in panel["medians"]], color=INK, lw=1.6)
        if panel["log"]:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=6))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_title(panel["name"], loc="left", size=9.5, weight="bold", color=INK)
    if panel["spread"]:
        axes.set_title(f"spread {panel['spread']:.1f}", loc="right", size=8, color=GREY)


def _parameters_title(panels: Sequence[dict[str, Any]], trials: int, done: int, cut: bool) -> tuple[str, str]:
    if not panels:
        return "No parameter varies", f"{trials} trials with a validation accuracy."
    first = panels[0]
    note = f"Blue: {done} trials"
    if done < trials:
        note = f"Blue: {done} COMPLETED trials; grey: {trials - done} others"
        note += ", triangles are below the axis" if cut else ""
    note += ". Black: medians of the blue. Spread: points between medians, while all other parameters vary too."
    if "extremes" in first:
        (high, high_median), (low, low_median) = first["extremes"]
        name = first["name"]
        return f"{name} sets the trials apart: {high} {high_median:.1f} %, {low} {low_median:.1f} % (medians)", note
    if first["spread"]:
        return f"{first['name']} sets the trials apart: {first['spread']:.1f} points between its thirds", note
    return f"{len(panels)} parameters vary over {trials} trials", note
