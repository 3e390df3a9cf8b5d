"""Report a sweep's state from its folder, as JSON values and as text: progress, winner, leaderboard.

Reads the ledger and the leaderboard file; needs neither MLflow nor Ray and writes nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.ledger.folder import Sweep, read_leaderboard, read_per_class, read_sweep, reads_of_test
from orchestrator.ledger.kept import DamagedFile, KeptFiles
from orchestrator.ledger.looks import looks_at
from orchestrator.ledger.naming import label, legend
from orchestrator.ledger.segments import REPLACED_WORKER
from orchestrator.ledger.stages import CALIBRATED, Stage
from orchestrator.ledger.state import TrialRecord, TrialState
from orchestrator.objectives import ACCURACY, OBJECTIVES
from orchestrator.paths import command_line
from orchestrator.plain_json import json_ready
from orchestrator.report.terminal import tell
from orchestrator.terminal_table import Column, FittedTable
from orchestrator.tracking.cursor import parent_run
from trainers.wording import count

if TYPE_CHECKING:
    from rich.console import Console


STATUS_INDENT = 9
"""Columns of the word that begins each line of the status."""
SHOW_INDENT = 4
"""Columns of the hanging indent of wrapped lines in ``orch show``."""
BEST_ROWS = 10
"""Maximum number of trials in the table; --json has all."""


# --- for a program ------------------------------------------------------------------------------------------------


def describe(folder: Path) -> dict[str, Any]:
    """Return all as JSON values: ``name``, ``stage``, ``states`` (state -> count), ``trials`` (``id``, ``state``,
    ``reason``, ``epochs``, ``val_accuracy``, ``config``), ``winner`` (None if there is none yet), ``leaderboard``
    (rows), ``per_class`` (rows of the winner on the test split, [] in older sweeps), ``calibration`` (as the
    leaderboard recorded it, None in older sweeps), ``mlflow`` (the parent run's id,
    None if MLflow does not have the sweep), ``looks`` (at the test split: ``reads`` by ``sweeps``, None before the
    first), ``replaced_workers`` (``jobs`` and ``rss_bytes`` of each). A table whose file is damaged is [] with a
    sentence in ``damaged``. Non-finite numbers are None.

    With several objectives a trial also has ``objectives`` (name -> value) and the winner ``front``, the Pareto
    front; with folds a trial has ``folds``, its validation accuracy in each.
    """
    sweep = read_sweep(folder)
    rows, damaged = _rows(read_leaderboard, sweep)
    classes, also_damaged = _rows(read_per_class, sweep)
    damaged = " ".join(filter(None, (damaged, also_damaged)))
    looks = looks_at(sweep) if reads_of_test(sweep.events) else None
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
                    **_further_figures(sweep, record),
                }
                for record in sweep.trials
            ],
            "winner": sweep.fact("winner"),
            "leaderboard": rows,
            "per_class": classes,
            "calibration": sweep.fact(CALIBRATED) if rows else None,
            "mlflow": parent_run(sweep),
            "looks": asdict(looks) if looks else None,
            "replaced_workers": [{name: row[name] for name in ("jobs", "rss_bytes")} for row in _replaced(sweep)],
            **({"damaged": damaged} if damaged else {}),
        }
    )


def _rows(read: Callable[[KeptFiles], list[dict[str, Any]]], sweep: Sweep) -> tuple[list[dict[str, Any]], str]:
    """Return the rows that ``read`` finds in the sweep's files, and a sentence if the file is damaged."""
    try:
        return read(sweep.kept), ""
    except DamagedFile as error:
        return [], str(error)


def _further_figures(sweep: Sweep, record: TrialRecord) -> dict[str, Any]:
    names, found = sweep.objectives, dict[str, Any]()
    if names != (ACCURACY,):
        found["objectives"] = {name: record.figure(name) for name in names}
    if record.folds:
        found["folds"] = record.fold_val_accuracy
    return found


# --- for a person -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """Progress of a search. ``total`` is None if the budget names none; ``left_s`` is NaN without a rate."""

    ended: int
    total: int | None
    running: int
    elapsed_s: float
    per_hour: float
    left_s: float


def progress(sweep: Sweep, now_s: float) -> Progress:
    """Return the search's rate over the time in which trials ran, and the remaining time at that rate. Pure."""
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
    """Print the progress of the sweep in ``folder``."""
    sweep = read_sweep(folder)
    *lines, following = status_lines(sweep, time.time())
    for line in lines:
        tell(console, line, STATUS_INDENT)
    _print_whole(console, following)


def status_lines(sweep: Sweep, now_s: float) -> list[str]:
    """Return lines on stage, trials by state, best trial, rate, remaining time and, last, what to type next. Pure."""
    done = progress(sweep, now_s)
    lines = [f"{sweep.paths.name}: {_stage_words(sweep)}"]
    if sweep.trials:
        of = f" of {done.total}" if done.total is not None else ""
        lines.append(f"trials   {done.ended}{of} ended; {_states_words(sweep)}")
    best = sweep.best()
    if best:
        first, state = best[0], _state_word(sweep, best[0].state)
        figures = ", ".join([f"{first.val_accuracy:.3f} on validation", *_other_figures(sweep, first)])
        lines.append(f"best     {figures}: {_trial_words(first)}, {state}")
        lines += _legend_lines("names    ", [label(first)])
    front = sweep.front()
    if front:
        lines.append(f"front    {count(len(front), 'trial')} that none beats in all of {', '.join(sweep.objectives)}")
    if done.elapsed_s > 0 and done.ended:
        lines.append(f"rate     {count(round(done.per_hour), 'trial')} an hour over {_duration(done.elapsed_s)}")
    if sweep.runner and sweep.stage == Stage.SEARCH and math.isfinite(done.left_s) and done.left_s > 0:
        lines.append(f"left     about {_duration(done.left_s)} of search at that rate")
    if replaced := _replaced(sweep):
        largest = max(row["rss_bytes"] for row in replaced) / 1e9
        lines.append(
            f"workers  {count(len(replaced), 'worker')} replaced for memory; the largest held {largest:.1f} GB"
        )
    failed = [record for record in sweep.trials if record.state == TrialState.FAILED]
    if failed:
        lines.append(f"failed   {failed[-1].id}: {failed[-1].reason}")
    lines.append(f"next     {_next_words(sweep)}")
    return lines


def _replaced(sweep: Sweep) -> list[Mapping[str, Any]]:
    """Return the payload of each worker that was replaced because it had outgrown its memory."""
    return [event.data[REPLACED_WORKER] for event in sweep.state.notes if REPLACED_WORKER in event.data]


def print_sweep(folder: Path, console: Console) -> None:
    """Print the winner and the reason for it, the leaderboard, the best trials and what to type next."""
    sweep = read_sweep(folder)
    tell(console, f"{sweep.paths.name}: {_stage_words(sweep)}; {_states_words(sweep)}", SHOW_INDENT)
    for line in winner_lines(sweep.fact("winner")):
        tell(console, line, SHOW_INDENT)
    if looks := looks_at(sweep).sentence():
        tell(console, looks, SHOW_INDENT)
    _print_leaderboard(sweep, console)
    _print_per_class(sweep, console)
    if sweep.trials:
        _trials_table(sweep).print(console)
        for line in _legend_lines("in their names: ", map(label, sweep.trials)):
            tell(console, line, SHOW_INDENT)
    for record in sweep.trials:
        if record.state == TrialState.FAILED:
            tell(console, f"failed: {_trial_words(record)}: {record.reason} ({record.log})", SHOW_INDENT)
    _print_whole(console, f"next: {_next_words(sweep)}")


def _print_leaderboard(sweep: Sweep, console: Console) -> None:
    """Print the leaderboard, or a sentence if its file is damaged."""
    import pandas as pd

    from orchestrator.evaluation.calibration import calibration_lines
    from orchestrator.evaluation.leaderboard import to_rich

    rows, damaged = _rows(read_leaderboard, sweep)
    if damaged:
        tell(console, f"the leaderboard is not shown: {damaged}", SHOW_INDENT)
    if rows:
        to_rich(pd.DataFrame(rows), "leaderboard, on the test split").print(console)
        for line in calibration_lines(sweep.fact(CALIBRATED)):
            tell(console, line, SHOW_INDENT)


def _print_per_class(sweep: Sweep, console: Console) -> None:
    """Print the winner's figures of each class, or a sentence if their file is damaged; nothing for older sweeps."""
    import pandas as pd

    from orchestrator.evaluation.per_class import to_rich

    rows, damaged = _rows(read_per_class, sweep)
    if damaged:
        tell(console, f"the table of classes is not shown: {damaged}", SHOW_INDENT)
    if rows:
        to_rich(pd.DataFrame(rows), "the winner on each class, on the test split (95 %)").print(console)


def _print_whole(console: Console, line: str) -> None:
    """Print a line with a command in one piece, so that it can be copied."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def winner_lines(winner: Any) -> list[str]:
    """Return lines on the winner, its policy and the reason for it. Pure."""
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
    return lines + [f"  {line}" for line in front_lines(winner)]


def front_lines(winner: Mapping[str, Any]) -> list[str]:
    """Return the Pareto front of several objectives, one trial per line, the winner marked. Pure."""
    front = winner.get("front")
    if not front:
        return []
    names = [name for name in OBJECTIVES if name in front[0]["values"]]
    lines = [f"{count(len(front), 'trial')} that none beats in all of {', '.join(names)}:"]
    for row in front:
        figures = ", ".join(OBJECTIVES[name].show(row["values"][name]) for name in names)
        lines.append(f"{'*' if row['chosen'] else ' '} {figures}: {row.get('name') or row['trial']}")
    if not any(row["chosen"] for row in front):
        lines.append("The winner is none of them: a trial as good in every one of these and better in one beats it.")
    return lines


def _trials_table(sweep: Sweep) -> FittedTable:
    shown = sweep.best()[:BEST_ROWS]
    others = [name for name in sweep.objectives if name != ACCURACY]
    folds = [Column("folds", leaves=2)] if any(record.folds for record in shown) else []
    columns = (
        Column("trial", "left"),
        Column("accuracy"),
        *map(Column, others),
        *folds,
        Column("epochs", leaves=1),
        Column("state", "left"),
    )
    table = FittedTable(f"the best {len(shown)} of {count(len(sweep.trials), 'trial')}, on validation", columns)
    for record in shown:
        table.add_row(
            _trial_words(record),
            f"{record.val_accuracy:.4f}",
            *(_figure_words(record, name) for name in others),
            *([_fold_words(record)] if folds else []),
            str(len(record.epochs)),
            _state_word(sweep, record.state),
        )
    return table


def _other_figures(sweep: Sweep, record: TrialRecord) -> list[str]:
    """Return the objectives other than the accuracy, formatted."""
    return [_figure_words(record, name) for name in sweep.objectives if name != ACCURACY]


def _figure_words(record: TrialRecord, name: str) -> str:
    value = record.figure(name)
    return OBJECTIVES[name].show(value) if math.isfinite(value) else "-"


def _fold_words(record: TrialRecord) -> str:
    """Format the lowest and the highest validation accuracy of the folds."""
    values = record.fold_val_accuracy
    return f"{min(values):.3f} to {max(values):.3f}" if values else "-"


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
    """Return how a sweep ended, without repeating a state that the reason begins with."""
    word, why = state.lower(), reason.rstrip(".")
    if why.endswith(", as asked"):
        return f"{word} as asked"
    if not why or why.startswith(word):
        return why or word
    return f"{word}: {why}"


def _state_word(sweep: Sweep, state: str) -> str:
    """Return a trial's state for display: a RUNNING trial of a stopped sweep is interrupted."""
    return "interrupted" if state == TrialState.RUNNING and not sweep.runner else str(state)


def _states_words(sweep: Sweep) -> str:
    counts = [f"{number} {_state_word(sweep, state)}" for state, number in sweep.states().items()]
    return ", ".join(counts) or "no trials yet"


def _value_words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _trial_words(record: TrialRecord) -> str:
    return f"{record.id} {label(record)}"


def _legend_lines(before: str, names: Iterable[str]) -> list[str]:
    """Return the legend of abbreviations in trials' names; [] if there are none."""
    words = legend(names)
    return [f"{before}{words}"] if words else []


def _next_words(sweep: Sweep) -> str:
    root = sweep.paths.root
    if not sweep.finished and sweep.runner:
        return "let it run; Ctrl-C where it runs stops it and keeps what is done"
    if not sweep.finished:
        return command_line("sweep", "--resume", "--out", root)
    if sweep.fact("winner"):
        return command_line("promote", "best", root)
    return command_line("sweep", "--resume", "--out", root, "--trials", "+20")


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
