"""A comparison: the same task by every side in one run, the figures, and whether they may be compared at all."""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from benchmarks.measured import Side, cost_by_kind, implausible
from benchmarks.results import Result, record
from benchmarks.sides import OURS, hold_cores, run_ours, run_peer
from benchmarks.task import CORES, Task

RAY, KERAS_TUNER, BY_HAND = "Ray Tune + Keras", "KerasTuner", "features by hand"
COLD, WARM = f"{OURS}, empty store", f"{OURS}, filled store"
PROBE_TRIALS, PROBE_EPOCHS = 2, 2
SETTINGS = ((1, CORES), (CORES, 1))
"""(trials at once, threads of each) that a probe tries."""


@dataclass(frozen=True)
class Comparison:
    """What is compared and how far accuracies may lie apart.

    ``measured``: names of the trials that each peer really runs, the rest at their cost; () for all. ``probe``: the
    task on fewer photos, on which settings are tried; None to take one trial on all cores. ``choose_ours``: probe our
    setting too; else it is what a file says without ``resources``. ``warm``: run ours again with the filled store;
    with a ``warm_target`` that is a result of its own, NAME_warm.
    ``by_hand``: let the script with features made by hand run too. ``tolerance``, ``least``: see ``implausible``.
    """

    task: Task
    size: str = "full"
    target: float | None = None
    warm_target: float | None = None
    measured: tuple[str, ...] = ()
    probe: Task | None = None
    choose_ours: bool = False
    warm: bool = False
    by_hand: bool = False
    tolerance: float = 0.06
    least: float = 0.5


def parser(about: str) -> argparse.ArgumentParser:
    """One that reads ``--small`` and ``--keep``, which each program has."""
    reader = argparse.ArgumentParser(description=about)
    reader.add_argument("--small", action="store_true", help="fewer photos, trials and epochs; no target")
    reader.add_argument("--keep", type=Path, help="folder that keeps every side's files; must not exist")
    return reader


def parse(about: str, arguments: Sequence[str] | None) -> argparse.Namespace:
    """``arguments``, or the command line's, where there are no others than those two."""
    return parser(about).parse_args(arguments)


def compare(build: Callable[[Path], Comparison], keep: Path | None, notes: str) -> bool:
    """Run the comparison that ``build`` makes for a folder; record and print it; whether the target is reached.

    Exits with a sentence, and records nothing, where a side fails or the sides' accuracies are not alike.
    """
    if importlib.util.find_spec("keras_tuner") is None:
        raise SystemExit("KerasTuner is not installed; `make bench` installs it, or pip install -e '.[bench]'.")
    if keep is not None and keep.exists():
        raise SystemExit(f"{keep} exists already; name a new folder with --keep.")
    hold_cores()
    folder = Path(keep or tempfile.mkdtemp(prefix="orch-bench-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return all([record(result) for result in _run(build(folder), folder, notes)])
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def _run(what: Comparison, folder: Path, notes: str) -> list[Result]:
    """The results, the one that the benchmark is named after at the end."""
    task = what.task
    rows: list[tuple[str, str]] = [(f"{task.name}: photos of", _photos(task))]

    # Which setting is the better one
    concurrent, threads = _better(RAY, what.probe, folder, rows) if what.probe else (1, CORES)
    at_once, tuner_threads = _better(KERAS_TUNER, what.probe, folder, rows) if what.probe else (1, CORES)
    our_cpus = _better(OURS, what.probe, folder, rows)[1] if what.probe and what.choose_ours else 1

    # Ours
    ours = [_said(run_ours(COLD, task, folder / "ours-cold", folder / "store", our_cpus))]
    if what.warm:
        ours.append(_said(run_ours(WARM, task, folder / "ours-warm", folder / "store", our_cpus)))

    # The peers
    peers = [
        _said(run_peer(RAY, task.only(what.measured, concurrent), folder / "ray", threads, concurrent)),
        _said(run_peer(KERAS_TUNER, task.only(what.measured, at_once), folder / "keras-tuner", tuner_threads, at_once)),
    ]
    sides = [*ours, *peers]
    if what.by_hand:
        sides.append(_said(run_peer(BY_HAND, task, folder / "by-hand")))
    wrong = implausible(sides, what.tolerance, what.least)
    if wrong:
        raise SystemExit(f"{task.name}: the sides cannot be compared: {wrong}")
    return _results(what, sides, ours, peers, rows, notes)


def _better(name: str, probe: Task, folder: Path, rows: list[tuple[str, str]]) -> tuple[int, int]:
    """(trials at once, threads) of the setting with which a trial of ``probe`` costs less; both go to ``rows``.

    What is compared is a trial's time, over the trials at once; the start of the process is left out.
    """
    short = probe.first(PROBE_TRIALS, PROBE_EPOCHS)
    found: dict[tuple[int, int], float] = {}
    for concurrent, threads in SETTINGS:
        place = folder / f"probe-{name.split()[0]}-{concurrent}"
        if name == OURS:
            side = run_ours(name, short, place, place / "store", threads)
        else:
            side = run_peer(name, short, place, threads, concurrent)
        costs = cost_by_kind(side.trials)
        seconds = mean(costs[trial.kind].epoch_s for trial in short.trials) / concurrent
        found[concurrent, threads] = seconds
        rows.append((f"probe: {name}, {side.how}", f"{seconds:.2f} s an epoch of {_photos(short)}"))
        print(f"{rows[-1][0]}: {rows[-1][1]}", flush=True)
    return min(found, key=lambda setting: found[setting])


def _said(side: Side) -> Side:
    print(f"{side.name}: {side.seconds:.1f} s for {len(side.trials)} trials ({side.how})", flush=True)
    return side


def _photos(task: Task) -> str:
    splits = [line.rsplit(",", 1)[-1].strip() for line in task.table.read_text(encoding="utf-8").splitlines()]
    return f"{splits.count('train')} to train on, {splits.count('validation')} to validate on"


def _results(
    what: Comparison,
    sides: Sequence[Side],
    ours: Sequence[Side],
    peers: Sequence[Side],
    rows: list[tuple[str, str]],
    notes: str,
) -> list[Result]:
    """The figures are against the faster of the peers."""
    trials = what.task.trials
    whole = {side.name: side.whole_s(trials) for side in sides}
    epochs = sum(trial.epochs for trial in trials)
    rows.append(("trials", f"{len(trials)} of {epochs} epochs in all"))
    for side in sides:
        ran = len(side.trials)
        how = "measured" if ran == len(trials) else f"of {ran} trials in {side.seconds:.1f} s, start counted once"
        accuracy = mean(side.accuracy.values())
        text = f"{whole[side.name]:.1f} s ({how}; {side.how}; mean validation accuracy {accuracy:.3f})"
        rows.append((side.name, text))
    for our in ours:
        for side in sides:
            if side not in ours:
                rows.append((f"{our.name} against {side.name}", f"{whole[side.name] / whole[our.name]:.2f}x"))
    for side in peers:
        for (backbone, depth), cost in sorted(cost_by_kind(side.trials).items(), key=str):
            text = f"{cost.epoch_s:.2f} s an epoch and {cost.overhead_s:.2f} s a trial"
            rows.append((f"{side.name}: {backbone}, {depth} layers unfrozen", text))
    for our in ours:
        rows += [(f"{our.name}, {label}", f"{seconds:.1f} s") for label, seconds in our.breakdown]
    best = min(whole[side.name] for side in peers)
    cold = Result(what.task.name, best / whole[COLD], "x", what.target, True, what.size, tuple(rows), notes)
    if what.warm_target is None:
        return [cold]
    about = (("all rows", f"under {cold.name}"),)
    warm = replace(cold, name=f"{cold.name}_warm", figure=best / whole[WARM], target=what.warm_target, rows=about)
    return [replace(warm, notes="The same with the store that the first run filled."), cold]
