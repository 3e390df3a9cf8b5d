"""A sweep's folder: find it and read it. Nothing here changes it."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchError
from orchestrator.ledger.kept import FileState, KeptFiles
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.lock import running_process
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import SweepState, TrialRecord, TrialState, derive
from orchestrator.objectives import ACCURACY, OBJECTIVES, front_of
from orchestrator.paths import RUNS, SweepPaths, command_line
from trainers.files.lookup import obstacle
from trainers.wording import count

FINISHED = "FINISHED"
"""State of a sweep that completed every stage."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder, read once. ``runner``: PID of the process that ran it then, see ``running_process``."""

    paths: SweepPaths
    events: tuple[Event, ...]
    state: SweepState
    runner: str | None = None

    @functools.cached_property
    def kept(self) -> KeptFiles:
        """The folder's files with their checksums."""
        return KeptFiles.of(self.paths, self.events)

    @property
    def trials(self) -> list[TrialRecord]:
        """Trials of the search in order of creation."""
        return [record for record in self.state.trials.values() if record.stage in ("", Stage.SEARCH)]

    @property
    def finished(self) -> bool:
        """Whether the latest state of the sweep is FINISHED."""
        states = [event.state for event in self.state.sweep if event.state]
        return bool(states) and states[-1] == FINISHED

    @property
    def judged(self) -> bool:
        """Whether it has a leaderboard: it finished, perhaps before it was extended."""
        return bool(leaderboards(self.events))

    @property
    def stage(self) -> str:
        """The stage that runs or was interrupted; "finished" after the last, "" before the first."""
        if self.finished:
            return "finished"
        begun = [event.stage for event in self.events if event.kind == EventKind.STAGE and event.stage != Stage.PREFILL]
        return begun[-1] if begun else ""

    def states(self) -> dict[str, int]:
        """Count trials of the search by state, in the order of ``TrialState``."""
        found = [record.state for record in self.trials]
        return {str(state): found.count(state) for state in TrialState if state in found}

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the sweep's objectives."""
        names = self.fact("objectives") or [ACCURACY]
        return tuple(name for name in names if name in OBJECTIVES)

    def best(self) -> list[TrialRecord]:
        """Return trials with a value of the first objective, best first, COMPLETED ones before the others."""
        first = OBJECTIVES[self.objectives[0]]
        scored = [record for record in self.trials if math.isfinite(record.figure(first.name))]
        return sorted(scored, key=lambda r: (r.state != TrialState.COMPLETED, first.cost(r.figure(first.name))))

    def front(self) -> list[TrialRecord]:
        """Return COMPLETED trials on the Pareto front of the objectives; [] for one objective."""
        names = self.objectives
        done = [r for r in self.trials if r.state == TrialState.COMPLETED] if len(names) > 1 else []
        known = [r for r in done if all(math.isfinite(r.figure(name)) for name in names)]
        return [known[i] for i in front_of([[OBJECTIVES[n].cost(r.figure(n)) for n in names] for r in known])]

    def fact(self, name: str) -> Any:
        """Return the latest value of ``name`` in the payload of a SWEEP, STAGE or NOTE event; None if there is none."""
        for event in reversed(self.events):
            if event.kind in (EventKind.SWEEP, EventKind.STAGE, EventKind.NOTE):
                data = event.data
                if isinstance(data, Mapping) and data.get(name) is not None:
                    return data[name]
        return None


def leaderboards(events: Iterable[Event]) -> list[Event]:
    """Return the events with which a leaderboard ended."""
    return [e for e in events if (e.kind, e.stage, e.state) == (EventKind.STAGE, Stage.LEADERBOARD, "ENDED")]


def reads_of_test(events: Iterable[Event]) -> list[Event]:
    """Return the events of the leaderboards that read the test split.

    Exports read it too, to measure files of a model that is chosen already; they choose nothing and do not count, nor
    do leaderboards that computed damaged probabilities once more.
    """
    begun = [e for e in events if e.kind == EventKind.STAGE and e.state == "BEGUN" and e.stage == Stage.LEADERBOARD]
    return [event for event in begun if "reads_test" in event.data]


def read_sweep(folder: Path) -> Sweep:
    """Read a sweep's folder. Raises OrchError if it is not one, or its ledger is damaged."""
    paths = _sweep_paths(folder)
    runner = running_process(paths)  # before the events: a trial that ends in between must not look interrupted
    events = read_events(paths.ledger)
    return Sweep(paths, tuple(events), derive(events), runner)


@contextlib.contextmanager
def locked_sweep(folder: Path) -> Iterator[tuple[Sweep, Ledger]]:
    """Hold the lock of the sweep in ``folder``; yield the sweep as it is now, and its ledger to append to.

    Raises OrchError if the folder is no sweep, its ledger is damaged, or another process runs it.
    """
    paths = _sweep_paths(folder)
    with Ledger(paths.ledger) as ledger:
        events = ledger.events()
        yield Sweep(paths, tuple(events), derive(events)), ledger


def _sweep_paths(folder: Path) -> SweepPaths:
    """The paths in a sweep's folder. Raises OrchError if it is none."""
    paths = SweepPaths(Path(folder))
    if why := obstacle(paths.ledger):
        raise OrchError(f"{folder} cannot be opened: {why}.")
    if not paths.ledger.is_dir():
        raise OrchError(f"{folder} is not a sweep's folder: there is no {paths.ledger.name}/ in it.")
    return paths


def list_sweeps(runs: Path) -> list[Path]:
    """Return the sweeps' folders in ``runs``, the most recently written first."""
    found = [path.parent for path in runs.glob("*/" + SweepPaths(runs).ledger.name) if os.path.isdir(path)]
    return sorted(found, key=lambda folder: SweepPaths(folder).ledger.stat().st_mtime_ns, reverse=True)


class Wanted(StrEnum):
    """Which sweeps are good enough where none is named: all; those with trials, finished or running, or all if there is
    none; those alone with a leaderboard, even if they were extended since."""

    ANY = ""
    STARTED = "started"
    FINISHED = "finished"

    def takes(self, sweep: Sweep) -> bool:
        """Whether ``sweep`` is one of them."""
        if self is Wanted.STARTED:
            return bool(sweep.trials) or sweep.runner is not None or sweep.finished
        return self is Wanted.ANY or sweep.finished or sweep.judged


def find_sweep(
    given: str | None,
    wanted: Wanted = Wanted.ANY,
    runs: Path = Path(RUNS),
    tell: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Find a sweep's folder by path or by name in ``runs``; None is the newest one that is ``wanted``.

    ``tell`` gets a sentence on newer ones that are passed over. Raises OrchError that lists the sweeps in ``runs``.
    """
    if given is not None:
        for folder in (Path(given), runs / given):
            if os.path.isdir(SweepPaths(folder).ledger):
                return folder
        if why := obstacle(SweepPaths(Path(given)).ledger):
            raise OrchError(f"{given} cannot be opened: {why}.")
        raise OrchError(f"there is no sweep {given!r}. {_list(runs)}")
    newer: list[Sweep] = []
    for folder in list_sweeps(runs):
        if wanted is Wanted.ANY:
            return folder
        sweep = read_sweep(folder)
        if wanted.takes(sweep):
            if newer:
                tell(_passed_over(newer, wanted))
            if wanted is Wanted.FINISHED and not sweep.finished:
                tell(f"{folder} {_how_far(sweep)}; its last leaderboard is used.")
            return folder
        newer.append(sweep)
    if newer and wanted is Wanted.STARTED:
        return newer[0].paths.root
    why = f" The newest, {newer[0].paths.root}, {_how_far(newer[0])}." if newer else ""
    raise OrchError(f"there is no {'finished ' if wanted is Wanted.FINISHED else ''}sweep. {_list(runs)}{why}")


def _passed_over(newer: list[Sweep], wanted: Wanted) -> str:
    """Say which newer sweeps, the newest first, are not shown, and why the newest is not."""
    newest = newer[0].paths.root
    others = f", as {'is' if len(newer) == 2 else 'are'} {count(len(newer) - 1, 'other')}," if len(newer) > 1 else ""
    what = "has no trials to show" if wanted is Wanted.STARTED else "is not finished"
    return f"{newest} is newer{others} but {what}: it {_how_far(newer[0])}."


def _how_far(sweep: Sweep) -> str:
    """Say how far an unfinished sweep came, without a full stop: "failed in the stage data: REASON"."""
    where = f"in the stage {sweep.stage}" if sweep.stage else "before the first stage"
    if sweep.runner:
        return f"is running, {where}"
    states = [event for event in sweep.state.sweep if event.state]
    end = states[-1] if states else None
    if end is None or end.state in ("RUNNING", "PENDING"):
        return f"was interrupted {where}"
    how = {"FAILED": "failed", "STOPPED": "stopped"}.get(end.state, "was interrupted")
    reason = " ".join(end.reason.split()).rstrip(".")
    return f"{how} {where}{f': {reason}' if reason else ''}"


def newest_unfinished(runs: Path = Path(RUNS)) -> Path:
    """Return the newest unfinished sweep. Raises OrchError that says how to extend a finished one."""
    for folder in list_sweeps(runs):
        if not read_sweep(folder).finished:
            return folder
    extend = command_line("sweep", "--resume", "--out", runs / "NAME", "--trials", "+20")
    raise OrchError(f"there is no unfinished sweep. {_list(runs)} To extend a finished one: `{extend}`.")


def _list(runs: Path) -> str:
    names = ", ".join(folder.name for folder in list_sweeps(runs))
    return f"The sweeps in {runs}/: {names}." if names else f"There is none in {runs}/ yet; type `orch sweep FILE`."


def read_leaderboard(kept: KeptFiles) -> list[dict[str, Any]]:
    """Read the leaderboard's rows, best first; [] before there is one. Raises DamagedFile."""
    path = kept.paths.leaderboard_parquet
    if not path.is_file() and kept.recorded(path) is None:
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = kept.read(path)
    try:
        return pq.read_table(io.BytesIO(content), use_threads=False, pre_buffer=False).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:  # of a sweep without checksums
        reason = "is damaged: it is not a Parquet file that can be read"
        raise kept.damaged(path, FileState.DIFFERENT, reason) from error


def read_per_class(kept: KeptFiles) -> list[dict[str, Any]]:
    """Read the winner's figures of each class; [] for a sweep without them. Raises DamagedFile."""
    path = kept.paths.per_class
    if not path.is_file() and kept.recorded(path) is None:
        return []
    content = kept.read(path)
    try:
        return [
            {
                name: cell
                if name == "class"
                else int(cell)
                if name in ("support", "predicted")
                else float(cell or "nan")
                for name, cell in row.items()
            }
            for row in csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True)
        ]
    except (ValueError, TypeError, csv.Error) as error:  # of a sweep without checksums
        raise kept.damaged(path, FileState.DIFFERENT, "is damaged: it is not a table that can be read") from error
