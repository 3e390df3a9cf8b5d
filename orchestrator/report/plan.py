"""A plan as a person reads it: on the terminal, as lines of a running sweep, and next to what really happened."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestrator.ledger.stages import Stage
from orchestrator.plan.plan import Estimate, Plan, PlannedPrefill, format_duration
from orchestrator.plan.playthrough import START, TOTAL
from orchestrator.plan.stage_times import StageComparison
from orchestrator.report.terminal import tell
from orchestrator.terminal_table import Column, FittedTable
from trainers.wording import GB, count

if TYPE_CHECKING:
    from rich.console import Console

INDENT = 9
"""Columns of the word that begins each line."""
MOST_BUILDS = 12
"""Maximum number of shelves that are listed; the others are added up."""
NAMES = {
    START: "start of the workers",
    Stage.PREFILL: "filling the store",
    Stage.SEARCH: "search",
    Stage.SELECT: "select, on validation",
    Stage.REFIT: "refit",
    Stage.LEADERBOARD: "leaderboard, on test",
    TOTAL: "total",
}
BEFORE: dict[str, str] = {Stage.DATA: "reading the photos", Stage.PLAN: "planning and measuring"}


def print_plan(plan: Plan, against: Sequence[str], console: Console) -> None:
    """Print time, disk and bottleneck; then trials by rung, prefills, stages, a lower bound and the assumptions.

    ``against``: refusals and warnings, as sentences.
    """
    say = _Lines(console).say
    size = f"{count(plan.trials, 'trial')} of at most {count(plan.epochs, 'epoch')}"
    say("plan", f"{plan.name}: {size}")
    say("time", f"about {_span(plan.stages[TOTAL])}")
    say("disk", _disk_words(plan))
    say("limit", limit_words(plan))
    say("machine", _machine_words(plan))
    say("trials", _rung_words(plan))
    console.print()
    if plan.builds:
        _builds_table(plan.builds).print(console)
        console.print()
    _stages_table(plan).print(console)
    console.print()
    for word, text in _closing(plan):
        say(word, text)
    for sentence in against:
        say("warning", sentence)
    console.print()
    for number, sentence in enumerate(plan.assumptions):
        say("assumed" if number == 0 else "", sentence)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, word: str, text: str) -> None:
        tell(self._console, f"{word:8s} {text}", INDENT)


def summary(plan: Plan, share: bool = True) -> list[str]:
    """Return two lines for a sweep that starts. Pure."""
    stages = plan.stages if share else plan.unshared
    parts = ", ".join(
        f"{name} {format_estimate(stages[name].mean)}" for name in (Stage.SEARCH, Stage.REFIT, Stage.LEADERBOARD)
    )
    lines = [f"plan     about {_span(stages[TOTAL])} in all: {parts}"]
    made = [build for build in plan.builds if build.rows >= 1]
    reused = [build for build in plan.builds if build.stored >= 1]
    if share:
        size = _gigabytes(sum(build.bytes for build in made))
        words = f"{size} to compute and store" if made else "nothing to compute"
        words += f", {count(len(reused), 'set')} of rows already stored" if reused else ""
        words += f"; without sharing it would take {format_estimate(plan.unshared['total'].mean)}"
    else:
        words = f"with sharing it would take {format_estimate(plan.stages[TOTAL].mean)}"
    return [*lines, f"         {words}; lower bound of the search: {format_estimate(plan.floor_s)}"]


def comparison_lines(
    rows: Sequence[StageComparison], processes: int = 1, unplanned: Mapping[str, float] = MappingProxyType({})
) -> list[str]:
    """Return a table of planned and actual times, one line per stage. Pure.

    ``processes``: number of processes that worked on the sweep. ``unplanned``: seconds of stages that are not planned.
    """
    lines = [f"plan     {'':22s} {'planned':>9s} {'between':>18s} {'actual':>9s}  actual/planned"]
    for row in rows:
        between = f"{format_estimate(row.low_s)} to {format_estimate(row.high_s)}"
        known = math.isfinite(row.actual_s)
        ratio = f"{row.ratio:.2f}" if known and math.isfinite(row.ratio) else "-"
        actual = format_estimate(row.actual_s) if known else "-"
        lines.append(
            f"{'':8s} {NAMES[row.stage]:22s} {format_estimate(row.planned_s):>9s} "
            f"{between:>18s} {actual:>9s}  {ratio:>6s}"
        )
    lines.append("         the store is filled within search and refit, and counted in seconds of one worker")
    if unplanned:
        words = " and ".join(f"{BEFORE[Stage(name)]} {format_estimate(seconds)}" for name, seconds in unplanned.items())
        lines.append(f"         {words} came before it")
    if processes > 1:
        lines.append(f"         {processes} processes worked on it; the pauses between them are left out")
    return lines


def format_estimate(seconds: float) -> str:
    """Format like ``format_duration``, with one more digit below ten minutes. Pure."""
    return f"{seconds / 60:.1f} min" if 90 <= seconds < 600 else format_duration(seconds)


def _machine_words(plan: Plan) -> str:
    machine = plan.machine
    words = f"{count(machine.workers, 'worker')} at once"
    words += f" on {machine.nodes} nodes" if machine.nodes > 1 else ""
    words += f", {machine.gpus:g} GPU{'s' * (machine.gpus != 1)}" if machine.gpus else ", no GPU"
    kinds = plan.measured_parts + plan.estimated_parts
    words += f"; {plan.measured_parts} of {count(kinds, 'kind')} of network measured"
    return words if machine.measured else f"simulated: {words}"


def _rung_words(plan: Plan) -> str:
    (first, all_of_them), *later = [(epochs, _number(trials)) for epochs, trials in plan.rungs]
    if not later:
        return f"{all_of_them} to epoch {first}"
    return f"{all_of_them} to epoch {first}; on average " + ", ".join(f"{n} reach epoch {e}" for e, n in later)


def _builds_table(builds: Sequence[PlannedPrefill]) -> FittedTable:
    names = ("to compute", "already there", "GB", "worker time")
    title = "computed once and stored (a row is an image or its features)"
    table = FittedTable(title, [Column("what", "left"), *map(Column, names)])
    shown, rest = builds[:MOST_BUILDS], builds[MOST_BUILDS:]
    if rest:
        more = [sum(getattr(build, name) for build in rest) for name in ("rows", "stored", "bytes", "seconds")]
        shown = [*shown, PlannedPrefill(f"{len(rest)} more", *more)]
    for build in shown:
        cells = (_number(build.rows), _number(build.stored), f"{build.bytes / GB:.2f}", format_estimate(build.seconds))
        table.add_row(build.what, *cells)
    return table


def _stages_table(plan: Plan) -> FittedTable:
    names = ("about", "from", "to", "without sharing")
    title = "time by the clock, once the photos are read and Ray is up"
    table = FittedTable(title, [Column("stage", "left"), *map(Column, names)])
    for stage, span in plan.stages.items():
        name = NAMES[stage] + (", worker time" if stage == Stage.PREFILL else "")
        cells = [format_estimate(value) for value in (span.mean, span.low, span.high, plan.unshared[stage].mean)]
        table.add_row(name, *cells, style="bold" if stage == TOTAL else "")
    return table


LONG_TRIAL_SHARE = 0.7
"""Minimum share of the search that its longest trial takes to be its bottleneck."""

START_SHARE = 0.5
"""Minimum share of the time that starting workers, once per stage, takes to be the bottleneck."""


def limit_words(plan: Plan) -> str:
    """Return what takes most of the time, and what could reduce it. Pure."""
    if plan.begun < plan.trials:
        reached = f"they end the search after {_number(plan.begun)} of {plan.trials} trials"
        return f"budget.hours: {reached}; all would take {format_estimate(plan.needed.mean)}"
    means = {stage: span.mean for stage, span in plan.stages.items() if stage not in (Stage.PREFILL, TOTAL)}
    longest = max(means, key=lambda stage: means[stage])
    share = means[longest] / max(plan.stages[TOTAL].mean, 1e-9)
    start_s = means[START]
    starts = 1 + sum(means[stage] > 0 for stage in (Stage.SELECT, Stage.REFIT, Stage.LEADERBOARD))
    if start_s * starts > START_SHARE * plan.stages[TOTAL].mean:
        return (
            f"starting the workers, {format_estimate(start_s)} in each of {count(starts, 'stage')}; the rest is short"
        )
    words = f"{NAMES[longest]}, {100 * share:.0f} % of the time"
    if longest != Stage.SEARCH:
        return words
    if plan.stages[Stage.PREFILL].mean > plan.machine.workers * means[Stage.SEARCH] / 2:
        return f"{words}, most of it to decode photos and run frozen layers once"
    if plan.machine.workers > 1 and plan.longest_trial_s > LONG_TRIAL_SHARE * means[Stage.SEARCH]:
        longest = format_estimate(plan.longest_trial_s)
        return f"{words}: its longest trial alone takes {longest}, so more workers help little"
    return f"{words}, most of it training on {count(plan.machine.workers, 'worker')}"


def _disk_words(plan: Plan) -> str:
    parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in plan.disk.items() if size)
    return f"{_gigabytes(plan.disk_bytes)} at the most: {parts}"


def _closing(plan: Plan) -> list[tuple[str, str]]:
    search = plan.stages[Stage.SEARCH].mean
    over = f"; the plan takes {search / plan.floor_s:.2f} times that" if plan.floor_s > 0 else ""
    sharing = f"{plan.saving:.1f} times as fast as without sharing"
    if plan.unshared_begun < plan.trials:
        sharing = f"{_number(plan.begun)} trials within the hours, {_number(plan.unshared_begun)} without sharing"
    bound = f"{format_estimate(plan.floor_s)} of search is a lower bound: everything computed once, no worker waiting"
    return [
        ("sharing", sharing),
        ("bound", f"{bound}{over}"),
        ("memory", f"{_gigabytes(plan.memory_bytes)} at the most, of all workers"),
    ]


def _span(span: Estimate) -> str:
    return f"{format_estimate(span.mean)} ({format_estimate(span.low)} to {format_estimate(span.high)})"


def _gigabytes(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.0f} MB"


def _number(value: float) -> str:
    """Format a mean: with one decimal if it is below ten and not whole."""
    return f"{value:.1f}" if value < 10 and abs(value - round(value)) > 0.05 else f"{value:,.0f}"
