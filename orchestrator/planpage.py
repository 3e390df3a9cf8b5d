"""A plan as a person reads it: on the terminal, as lines of a running sweep, and beside what really happened."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from orchestrator.plan import Build, Compared, Plan, Span
from orchestrator.plan import said as roughly
from orchestrator.wrapping import tell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

INDENT = 9
"""Width of the word that begins each line."""
MOST_BUILDS = 12
"""Shelves that are listed; of more the rest are summed up."""
NAMES = {
    "start": "start of the workers",
    "build": "filling the store",
    "search": "search",
    "select": "select, on validation",
    "refit": "refit",
    "leaderboard": "leaderboard, on test",
    "total": "total",
}
BEFORE = {"data": "reading the photos", "plan": "planning and measuring"}
GB = 10**9


def print_plan(plan: Plan, against: Sequence[str], console: Console) -> None:
    """All of it: trials by rung, what is built and reused, the stages, disk and memory, the floor, what is assumed.

    ``against``: sentences that speak against the sweep.
    """
    say = _Lines(console).say
    size = f"{_count(plan.trials, 'trial')} of at most {_count(plan.epochs, 'epoch')}"
    say("plan", f"{plan.name}: {size}, about {_span(plan.stages['total'])}")
    say("machine", _machine_words(plan))
    say("trials", _rung_words(plan))
    if plan.begun < plan.trials:
        say("hours", f"they end the search after {_number(plan.begun)} trials; all would take {said(plan.needed.mean)}")
    console.print()
    if plan.builds:
        console.print(_builds_table(plan.builds))
        console.print()
    console.print(_stages_table(plan))
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
    """Two lines for a sweep that begins. Pure."""
    stages = plan.stages if share else plan.unshared
    parts = ", ".join(f"{name} {said(stages[name].mean)}" for name in ("search", "refit", "leaderboard"))
    lines = [f"plan     about {_span(stages['total'])} in all: {parts}"]
    made = [build for build in plan.builds if build.rows >= 1]
    reused = [build for build in plan.builds if build.stored >= 1]
    if share:
        size = _gigabytes(sum(build.bytes for build in made))
        words = f"{size} to compute and keep" if made else "nothing to compute"
        words += f", {_count(len(reused), 'set')} of rows are there" if reused else ""
        words += f"; every trial for itself would take {said(plan.unshared['total'].mean)}"
    else:
        words = f"shared, it would take {said(plan.stages['total'].mean)}"
    return [*lines, f"         {words}; the least for the search is {said(plan.floor_s)}"]


def comparison_lines(
    rows: Sequence[Compared], processes: int = 1, unplanned: Mapping[str, float] = MappingProxyType({})
) -> list[str]:
    """A small table of plan against actual, a line a stage. ``processes``: that worked on the sweep. ``unplanned``:
    seconds of stages that no plan foretells. Pure."""
    lines = [f"plan     {'':22s} {'planned':>9s} {'between':>18s} {'actual':>9s}  actual/planned"]
    for row in rows:
        between = f"{said(row.low_s)} to {said(row.high_s)}"
        known = math.isfinite(row.actual_s)
        ratio = f"{row.ratio:.2f}" if known and math.isfinite(row.ratio) else "-"
        actual = said(row.actual_s) if known else "-"
        lines.append(
            f"{'':8s} {NAMES[row.stage]:22s} {said(row.planned_s):>9s} {between:>18s} {actual:>9s}  {ratio:>6s}"
        )
    lines.append("         the store is filled within search and refit, and counted in seconds of one worker")
    if unplanned:
        words = " and ".join(f"{BEFORE[name]} {said(seconds)}" for name, seconds in unplanned.items())
        lines.append(f"         {words} came before it")
    if processes > 1:
        lines.append(f"         {processes} processes worked on it; the pauses between them are left out")
    return lines


# --- the pieces ---------------------------------------------------------------------------------------------------


def said(seconds: float) -> str:
    """As ``plan.said``, with a digit more where minutes are few. Pure."""
    return f"{seconds / 60:.1f} min" if 90 <= seconds < 600 else roughly(seconds)


def _machine_words(plan: Plan) -> str:
    machine = plan.machine
    words = f"{_count(machine.workers, 'worker')} at once"
    words += f" on {machine.nodes} nodes" if machine.nodes > 1 else ""
    words += f", {machine.gpus:g} GPU{'s' * (machine.gpus != 1)}" if machine.gpus else ", no GPU"
    kinds = plan.measured_parts + plan.estimated_parts
    words += f"; {plan.measured_parts} of {_count(kinds, 'kind')} of network measured"
    return words if machine.measured else f"simulated: {words}"


def _rung_words(plan: Plan) -> str:
    (first, all_of_them), *later = [(epochs, _number(trials)) for epochs, trials in plan.rungs]
    if not later:
        return f"{all_of_them} to epoch {first}"
    return f"{all_of_them} to epoch {first}; on average " + ", ".join(f"{n} reach epoch {e}" for e, n in later)


def _builds_table(builds: Sequence[Build]) -> Table:
    from rich.table import Table

    table = Table(
        title="computed once and kept (an image or its features is a row)",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("what", overflow="fold")
    for name in ("to compute", "already there", "GB", "worker time"):
        table.add_column(name, justify="right", no_wrap=True)
    shown, rest = builds[:MOST_BUILDS], builds[MOST_BUILDS:]
    if rest:
        more = [sum(getattr(build, name) for build in rest) for name in ("rows", "stored", "bytes", "seconds")]
        shown = [*shown, Build(f"{len(rest)} more", *more)]
    for build in shown:
        cells = (_number(build.rows), _number(build.stored), f"{build.bytes / GB:.2f}", said(build.seconds))
        table.add_row(build.what, *cells)
    return table


def _stages_table(plan: Plan) -> Table:
    from rich.table import Table

    table = Table(
        title="time by the clock, once the photos are read and Ray is up",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    table.add_column("stage")
    for name in ("about", "from", "to", "without sharing"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, span in plan.stages.items():
        name = NAMES[stage] + (", worker time" if stage == "build" else "")
        cells = [said(value) for value in (span.mean, span.low, span.high, plan.unshared[stage].mean)]
        table.add_row(name, *cells, style="bold" if stage == "total" else "")
    return table


def _closing(plan: Plan) -> list[tuple[str, str]]:
    search = plan.stages["search"].mean
    over = f"; the plan takes {search / plan.floor_s:.2f} times the floor" if plan.floor_s > 0 else ""
    parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in plan.disk.items() if size)
    sharing = f"{plan.saving:.1f} times as fast as every trial for itself"
    if plan.unshared_begun < plan.trials:
        sharing = f"{_number(plan.begun)} trials within the hours, {_number(plan.unshared_begun)} with each for itself"
    return [
        ("sharing", sharing),
        ("floor", f"{said(plan.floor_s)} of search if nothing is done twice and nothing waits{over}"),
        ("disk", f"{_gigabytes(plan.disk_bytes)} at the most: {parts}"),
        ("memory", f"{_gigabytes(plan.memory_bytes)} at the most, of all workers"),
    ]


def _span(span: Span) -> str:
    return f"{said(span.mean)} ({said(span.low)} to {said(span.high)})"


def _gigabytes(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 1e6:.0f} MB"


def _number(value: float) -> str:
    """A mean over runs: whole where it is, else with one digit while it is small."""
    return f"{value:.1f}" if value < 10 and abs(value - round(value)) > 0.05 else f"{value:,.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
