"""What a sweep's folder says, for a program and for a person: how is it going, what won, and why.

Reads the ledger and the leaderboard file; needs neither MLflow nor Ray, and changes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchError
from orchestrator.ledger import (
    Event,
    EventKind,
    SweepState,
    TrialRecord,
    TrialState,
    derive,
    read_events,
    running_process,
)
from orchestrator.paths import RUNS, SweepPaths
from orchestrator.run_updates import run_name
from orchestrator.tracking_cursor import read_cursor
from orchestrator.wrapping import tell

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

FINISHED = "FINISHED"
"""State of a sweep that went through every stage; what ``describe`` calls the stage "finished"."""
SEARCH = "search"
"""Stage of the trials that count; retrained models are trials of other stages."""
STATUS_INDENT = 9
"""Width of the word that begins each line of the status."""
SHOW_INDENT = 4
"""Indent of what follows in a wrapped line of ``orch show``."""
BEST_ROWS = 10
"""How many trials a person is shown; --json has all."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder, read once. ``runner`` is what ``running_process`` said."""

    paths: SweepPaths
    events: tuple[Event, ...]
    state: SweepState
    runner: str | None = None

    @property
    def trials(self) -> list[TrialRecord]:
        """Those of the search, in the order of their creation."""
        return [record for record in self.state.trials.values() if record.stage in ("", SEARCH)]

    @property
    def finished(self) -> bool:
        """Whether the last that was heard of the sweep is that it finished."""
        states = [event.state for event in self.state.sweep if event.state]
        return bool(states) and states[-1] == FINISHED

    @property
    def stage(self) -> str:
        """The stage it is in, or stopped in; "finished" after the last, "" before the first."""
        if self.finished:
            return "finished"
        begun = [event.stage for event in self.events if event.kind == EventKind.STAGE]
        return begun[-1] if begun else ""

    def states(self) -> dict[str, int]:
        """State -> number of trials of the search, in the order of ``TrialState``."""
        found = [record.state for record in self.trials]
        return {str(state): found.count(state) for state in TrialState if state in found}

    def best(self) -> list[TrialRecord]:
        """Trials with a validation accuracy, the highest first; those trained in full before the others."""
        scored = [record for record in self.trials if math.isfinite(record.val_accuracy)]
        return sorted(scored, key=lambda record: (record.state != TrialState.COMPLETED, -record.val_accuracy))

    def test_reads(self) -> int:
        """How many times the networks were run on the test split."""
        return sum(
            event.kind == EventKind.STAGE
            and event.stage == "leaderboard"
            and event.state == "BEGUN"
            and "reads_test" in event.data
            for event in self.events
        )

    def fact(self, name: str) -> Any:
        """The latest value of ``name`` in the payload of a SWEEP, STAGE or NOTE event; None where there is none."""
        for event in reversed(self.events):
            if event.kind in (EventKind.SWEEP, EventKind.STAGE, EventKind.NOTE):
                data = event.data
                if isinstance(data, Mapping) and data.get(name) is not None:
                    return data[name]
        return None


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep's folder. Raises OrchError where it is none or its ledger is damaged."""
    paths = SweepPaths(Path(folder))
    if not paths.ledger.is_dir():
        raise OrchError(f"{folder} is not a sweep's folder: there is no {paths.ledger.name}/ in it.")
    runner = running_process(paths)  # before the events, so that what it ends meanwhile does not look interrupted
    events = read_events(paths.ledger)
    return Sweep(paths, tuple(events), derive(events), runner)


# --- finding ------------------------------------------------------------------------------------------------------


def sweeps(runs: Path) -> list[Path]:
    """The sweeps' folders in ``runs``, the one written to last first."""
    found = [path.parent for path in runs.glob("*/" + SweepPaths(runs).ledger.name) if path.is_dir()]
    return sorted(found, key=lambda folder: SweepPaths(folder).ledger.stat().st_mtime_ns, reverse=True)


def find_sweep(given: str | None, finished: bool = False, runs: Path = Path(RUNS)) -> Path:
    """The folder that a person means: a path, a name below ``runs``, or, with None, the newest (finished) one.

    Raises OrchError that lists what there is.
    """
    if given is not None:
        for folder in (Path(given), runs / given):
            if SweepPaths(folder).ledger.is_dir():
                return folder
        raise OrchError(f"there is no sweep {given!r}. {_list(runs)}")
    for folder in sweeps(runs):
        if not finished or read_sweep(folder).finished:
            return folder
    raise OrchError(f"there is no {'finished ' if finished else ''}sweep. {_list(runs)}")


def newest_unfinished(runs: Path = Path(RUNS)) -> Path:
    """The newest sweep that has stages to go. Raises OrchError that says how a finished one is extended."""
    for folder in sweeps(runs):
        if not read_sweep(folder).finished:
            return folder
    raise OrchError(
        f"there is no unfinished sweep. {_list(runs)} "
        f"A finished one goes on with more to do: orch sweep --resume --out {runs}/NAME --trials +20."
    )


def newest_store(runs: Path = Path(RUNS)) -> str | None:
    """The address of the MLflow store that the newest sweep wrote to; None where there is no sweep that did."""
    for folder in sweeps(runs):
        uri = read_cursor(SweepPaths(folder).tracking_cursor).uri
        if uri:
            return uri
    return None


def _list(runs: Path) -> str:
    names = ", ".join(folder.name for folder in sweeps(runs))
    return (
        f"Below {runs}/ there is {names}." if names else f"Below {runs}/ there is none yet; orch sweep FILE makes one."
    )


# --- for a program ------------------------------------------------------------------------------------------------


def describe(folder: Path) -> dict[str, Any]:
    """Everything, for a program: ``name``, ``stage``, ``states`` (state -> count), ``trials`` (``id``, ``state``,
    ``reason``, ``epochs``, ``val_accuracy``, ``config``), ``winner`` (None before there is one), ``leaderboard``
    (rows), ``mlflow`` (the parent run's id, None where MLflow has not seen the sweep). What is not a number is None.
    """
    sweep = read_sweep(folder)
    return json_ready(
        {
            "name": sweep.paths.name,
            "stage": sweep.stage,
            "states": sweep.states(),
            "trials": [
                {
                    "id": record.id,
                    "state": record.state,
                    "reason": record.reason,
                    "epochs": len(record.epochs),
                    "val_accuracy": record.val_accuracy,
                    "config": record.config,
                }
                for record in sweep.trials
            ],
            "winner": sweep.fact("winner"),
            "leaderboard": leaderboard(sweep.paths),
            "mlflow": parent_run(sweep),
        }
    )


def leaderboard(paths: SweepPaths) -> list[dict[str, Any]]:
    """The leaderboard's rows, best first; [] before there is one."""
    if not paths.leaderboard_parquet.is_file():
        return []
    import pyarrow.parquet as pq

    return pq.read_table(paths.leaderboard_parquet).to_pylist()


def parent_run(sweep: Sweep) -> str | None:
    """The id of the sweep's run in MLflow; None where MLflow has not seen it."""
    return read_cursor(sweep.paths.tracking_cursor).parent or None


def json_ready(value: Any) -> Any:
    """``value`` as plain JSON can hold it: NaN and infinities are None, enums their text, paths strings."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, Enum):
        return json_ready(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return json_ready(value.item())
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    return str(value)


# --- for a person -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far a search is. ``total`` is None where the budget names no number; ``left_s`` is NaN before a rate."""

    ended: int
    total: int | None
    running: int
    elapsed_s: float
    per_hour: float
    left_s: float


def progress(sweep: Sweep, now_s: float) -> Progress:
    """The search's rate over the time in which trials ran, and the time left at that rate. Pure."""
    trials = sweep.trials
    ended = [record for record in trials if record.state.is_final]
    started = [record.started_s for record in trials if math.isfinite(record.started_s)]
    running = sum(record.state == TrialState.RUNNING for record in trials) if sweep.runner else 0
    last = now_s if running else max((record.ended_s for record in ended if math.isfinite(record.ended_s)), default=0.0)
    elapsed_s = max(last - min(started), 0.0) if started else 0.0
    per_hour = 3600 * len(ended) / elapsed_s if elapsed_s > 0 else math.nan
    total = _budget(sweep)
    known = total is not None and per_hour > 0
    left_s = 3600 * max(total - len(ended), 0) / per_hour if total is not None and known else math.nan
    return Progress(len(ended), total, running, elapsed_s, per_hour, left_s)


def _budget(sweep: Sweep) -> int | None:
    budget = sweep.fact("budget")
    trials = budget.get("trials") if isinstance(budget, Mapping) else sweep.fact("trials")
    return trials if isinstance(trials, int) else None


def print_status(folder: Path, console: Console) -> None:
    """How is it going."""
    sweep = read_sweep(folder)
    *lines, following = status_lines(sweep, time.time())
    for line in lines:
        tell(console, line, STATUS_INDENT)
    _print_whole(console, following)


def status_lines(sweep: Sweep, now_s: float) -> list[str]:
    """The stage and whether it runs, the trials by state, the best so far, the rate, the time left, and last of all
    what to type next. Pure."""
    done = progress(sweep, now_s)
    lines = [f"{sweep.paths.name}: {_stage_words(sweep)}"]
    if sweep.trials:
        of = f" of {done.total}" if done.total is not None else ""
        lines.append(f"trials   {done.ended}{of} ended; {_states_words(sweep)}")
    best = sweep.best()
    if best:
        first, state = best[0], _state_word(sweep, best[0].state)
        lines.append(f"best     {first.val_accuracy:.3f} on validation: {_trial_words(first)}, {state}")
    if done.elapsed_s > 0 and done.ended:
        lines.append(f"rate     {_count(round(done.per_hour), 'trial')} an hour over {_duration(done.elapsed_s)}")
    if sweep.runner and sweep.stage == SEARCH and math.isfinite(done.left_s) and done.left_s > 0:
        lines.append(f"left     about {_duration(done.left_s)} of search at that rate")
    failed = [record for record in sweep.trials if record.state == TrialState.FAILED]
    if failed:
        lines.append(f"failed   {failed[-1].id}: {failed[-1].reason}")
    lines.append(f"next     {_next_words(sweep)}")
    return lines


def print_sweep(folder: Path, console: Console) -> None:
    """What won, and why; the leaderboard; the best trials; what to type next."""
    sweep = read_sweep(folder)
    tell(console, f"{sweep.paths.name}: {_stage_words(sweep)}; {_states_words(sweep)}", SHOW_INDENT)
    for line in winner_lines(sweep.fact("winner")):
        tell(console, line, SHOW_INDENT)
    reads = sweep.test_reads()
    if reads > 1:
        line = f"test was read {reads} times for this sweep; each further look makes its figures less trustworthy"
        tell(console, line, SHOW_INDENT)
    if sweep.paths.leaderboard_parquet.is_file():
        import pandas as pd

        from orchestrator.leaderboard import to_rich

        frame = pd.read_parquet(sweep.paths.leaderboard_parquet)
        console.print(to_rich(frame, "leaderboard, on the test split"))
    if sweep.trials:
        console.print(_trials_table(sweep))
    for record in sweep.trials:
        if record.state == TrialState.FAILED:
            tell(console, f"failed: {_trial_words(record)}: {record.reason} ({record.log})", SHOW_INDENT)
    _print_whole(console, f"next: {_next_words(sweep)}")


def _print_whole(console: Console, line: str) -> None:
    """A line with a command stays in one piece on a terminal too, so that it can be copied."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def winner_lines(winner: Any) -> list[str]:
    """The winner's form and policy, and the reason it was chosen for. Pure."""
    if not isinstance(winner, Mapping):
        return ["no winner yet."]
    named = ", ".join(
        f"{name} {winner[name]}" for name in ("trial", "model", "policy") if winner.get(name) not in (None, "")
    )
    lines = [f"winner: {named or 'chosen'}"]
    config = winner.get("config")
    if isinstance(config, Mapping):
        lines.append("  " + " ".join(f"{name}={_value_words(value)}" for name, value in config.items()))
    if winner.get("reason"):
        lines.append(f"  because {winner['reason']}")
    return lines


def _trials_table(sweep: Sweep) -> RenderableType:
    from rich.table import Table

    shown = sweep.best()[:BEST_ROWS]
    title = f"the best {len(shown)} of {_count(len(sweep.trials), 'trial')}, on validation"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("accuracy", justify="right")
    table.add_column("epochs", justify="right")
    table.add_column("state", no_wrap=True)
    table.add_column("trial")
    for record in shown:
        table.add_row(
            f"{record.val_accuracy:.4f}",
            str(len(record.epochs)),
            _state_word(sweep, record.state),
            _trial_words(record),
        )
    return table


def _stage_words(sweep: Sweep) -> str:
    if sweep.finished:
        return "finished"
    where = f"in the stage {sweep.stage}" if sweep.stage else "before the first stage"
    if sweep.runner:
        return f"{where}; running, PID {sweep.runner}"
    states = [event for event in sweep.state.sweep if event.state]
    stopped = states and states[-1].state not in ("RUNNING", "PENDING")
    how = f" ({_end_words(states[-1].state, states[-1].reason)})" if stopped else ""
    return f"{where}{how}; not running"


def _end_words(state: str, reason: str) -> str:
    """How a sweep ended, with nothing said twice: a reason may begin with the state, or name the stage it is in."""
    word, why = state.lower(), reason.rstrip(".")
    if why.endswith(", as asked"):
        return f"{word} as asked"
    if not why or why.startswith(word):
        return why or word
    return f"{word}: {why}"


def _state_word(sweep: Sweep, state: str) -> str:
    """A trial's state for a person: what the ledger last heard to be running does not run in a sweep that does not."""
    return "interrupted" if state == TrialState.RUNNING and not sweep.runner else str(state)


def _states_words(sweep: Sweep) -> str:
    counts = [f"{count} {_state_word(sweep, state)}" for state, count in sweep.states().items()]
    return ", ".join(counts) or "no trials yet"


def _value_words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _trial_words(record: TrialRecord) -> str:
    given = record.name if record.name != record.id else ""
    return f"{record.id} {run_name(record.number, record.config, given=given)}"


def _next_words(sweep: Sweep) -> str:
    root = sweep.paths.root
    if not sweep.finished and sweep.runner:
        return "let it run; Ctrl-C where it runs stops it and keeps what is done"
    if not sweep.finished:
        return f"orch sweep --resume --out {root}"
    if sweep.fact("winner"):
        return f"orch promote best {root}"
    return f"orch sweep --resume --out {root} --trials +20"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
