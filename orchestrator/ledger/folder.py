"""A sweep's folder, read once and changed by nothing here; and how a person's word finds it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchError
from orchestrator.ledger.ledger import Ledger, SweepState, TrialRecord, TrialState, derive, running_process
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.stages import Stage
from orchestrator.objectives import ACCURACY, OBJECTIVES, front_of
from orchestrator.paths import RUNS, SweepPaths, command_line

FINISHED = "FINISHED"
"""State of a sweep that went through every stage; what ``describe`` calls the stage "finished"."""


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
        return [record for record in self.state.trials.values() if record.stage in ("", Stage.SEARCH)]

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
        begun = [event.stage for event in self.events if event.kind == EventKind.STAGE and event.stage != Stage.PREFILL]
        return begun[-1] if begun else ""

    def states(self) -> dict[str, int]:
        """State -> number of trials of the search, in the order of ``TrialState``."""
        found = [record.state for record in self.trials]
        return {str(state): found.count(state) for state in TrialState if state in found}

    @property
    def objectives(self) -> tuple[str, ...]:
        """What the search is after."""
        names = self.fact("objectives") or [ACCURACY]
        return tuple(name for name in names if name in OBJECTIVES)

    def best(self) -> list[TrialRecord]:
        """Trials with a value of the first objective, the best first; those trained in full before the others."""
        first = OBJECTIVES[self.objectives[0]]
        scored = [record for record in self.trials if math.isfinite(record.figure(first.name))]
        return sorted(scored, key=lambda r: (r.state != TrialState.COMPLETED, first.cost(r.figure(first.name))))

    def front(self) -> list[TrialRecord]:
        """COMPLETED trials that no other beats in all objectives; [] where there is one objective."""
        names = self.objectives
        done = [r for r in self.trials if r.state == TrialState.COMPLETED] if len(names) > 1 else []
        known = [r for r in done if all(math.isfinite(r.figure(name)) for name in names)]
        return [known[i] for i in front_of([[OBJECTIVES[n].cost(r.figure(n)) for n in names] for r in known])]

    def test_reads(self) -> int:
        """How many times the test split was read: by leaderboards and by exports."""
        return sum(
            event.kind == EventKind.STAGE and event.state == "BEGUN" and "reads_test" in event.data
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
    paths = _sweep_paths(folder)
    runner = running_process(paths)  # before the events, so that what it ends meanwhile does not look interrupted
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
    if not paths.ledger.is_dir():
        raise OrchError(f"{folder} is not a sweep's folder: there is no {paths.ledger.name}/ in it.")
    return paths


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
    extend = command_line("sweep", "--resume", "--out", runs / "NAME", "--trials", "+20")
    raise OrchError(f"there is no unfinished sweep. {_list(runs)} A finished one goes on with more to do: {extend}.")


def _list(runs: Path) -> str:
    names = ", ".join(folder.name for folder in sweeps(runs))
    return (
        f"Below {runs}/ there is {names}." if names else f"Below {runs}/ there is none yet; orch sweep FILE makes one."
    )


def leaderboard(paths: SweepPaths) -> list[dict[str, Any]]:
    """The leaderboard's rows, best first; [] before there is one."""
    if not paths.leaderboard_parquet.is_file():
        return []
    import pyarrow.parquet as pq

    return pq.read_table(paths.leaderboard_parquet).to_pylist()
