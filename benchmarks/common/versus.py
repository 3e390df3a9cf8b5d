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
from typing import Any

from benchmarks.common.measured import Side, cost_by_kind, implausible
from benchmarks.common.results import Result, figure_text, record
from benchmarks.common.sides import OURS, hold_cores, run_ours, run_peer
from benchmarks.common.task import CORES, Task

RAY, KERAS_TUNER, BY_HAND = "Ray Tune + Keras", "KerasTuner", "features by hand"
COLD, WARM = f"{OURS}, empty store", f"{OURS}, filled store"
PROBE_TRIALS, PROBE_EPOCHS = 2, 3
SETTINGS = ((1, CORES), (CORES, 1))
"""(trials at once, threads of each) that a probe tries."""
COMPILED: tuple[dict[str, Any], ...] = ({}, {"steps_per_execution": 1}, {"jit_compile": True})
"""What a probe of the peers tries: the task's own arguments of ``Model.compile``, and others."""
CLOSE = 1.15
"""Settings of which one is slower than the other by less are both run in full where ``Comparison.closely``."""


@dataclass(frozen=True)
class Comparison:
    """What is compared and how far accuracies may lie apart.

    ``measured``: names of the trials that each peer really runs, the rest at their cost; () for all. ``probe``: the
    task on fewer photos, on which settings are tried; None to take one trial on all cores. ``choose_ours``: probe our
    setting too; else it is what a file says without ``resources``. ``closely``: where a probe leaves open which of a
    peer's settings is the better one, run the peer with both, and take the quicker. ``warm``: run ours again with the
    filled store; with a ``warm_target`` that is a result of its own, NAME_warm.
    ``by_hand``: let the script with features made by hand run too. ``tolerance``, ``least``: see ``implausible``.
    """

    task: Task
    size: str = "full"
    target: float | None = None
    warm_target: float | None = None
    measured: tuple[str, ...] = ()
    probe: Task | None = None
    choose_ours: bool = False
    closely: bool = False
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
    ray, tuner, ours_at = [SETTINGS[0]], [SETTINGS[0]], SETTINGS[1]
    if what.probe is not None:
        ray = _better(RAY, what, what.probe, folder, rows)
        tuner = _better(KERAS_TUNER, what, what.probe, folder, rows)
        task = _compiled(task, what.probe, ray[0], folder, rows)
        if what.choose_ours:
            ours_at = _better(OURS, what, what.probe, folder, rows)[0]

    # Ours
    ours = [_said(run_ours(COLD, task, folder / "ours-cold", folder / "store", ours_at[1]))]
    if what.warm:
        ours.append(_said(run_ours(WARM, task, folder / "ours-warm", folder / "store", ours_at[1])))

    # The peers
    peers = [
        _quickest(RAY, what.measured, task, ray, folder / "ray", rows),
        _quickest(KERAS_TUNER, what.measured, task, tuner, folder / "keras-tuner", rows),
    ]
    sides = [*ours, *peers]
    if what.by_hand:
        sides.append(_said(run_peer(BY_HAND, task, folder / "by-hand")))
    wrong = implausible(sides, what.tolerance, what.least)
    if wrong:
        raise SystemExit(f"{task.name}: the sides cannot be compared: {wrong}")
    return _results(what, sides, ours, peers, rows, notes)


def _better(
    name: str, what: Comparison, probe: Task, folder: Path, rows: list[tuple[str, str]]
) -> list[tuple[int, int]]:
    """(trials at once, threads) with which a trial of ``probe`` costs less, and those that are as good as that; all go
    to ``rows``.

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
        found[concurrent, threads] = mean(costs[trial.kind].epoch_s for trial in short.trials) / concurrent
        _told(rows, f"probe: {name}, {side.how}", f"{found[concurrent, threads]:.2f} s an epoch of {_photos(short)}")
    order = sorted(found, key=lambda setting: found[setting])
    most = CLOSE if what.closely else 1.0
    return [setting for setting in order if found[setting] <= most * found[order[0]]]


def _compiled(task: Task, probe: Task, setting: tuple[int, int], folder: Path, rows: list[tuple[str, str]]) -> Task:
    """``task`` with the peers' arguments of ``Model.compile`` that are best for a trial of its usual length: what it
    costs once, XLA's compilation above all, and its epochs on all photos."""
    short = probe.first(PROBE_TRIALS, PROBE_EPOCHS)
    epochs = mean(trial.epochs for trial in task.trials)
    larger = _splits(task).count("train") / _splits(short).count("train")
    found: list[tuple[float, dict[str, Any]]] = []
    for number, given in enumerate(COMPILED):
        tried = replace(short, **given)
        side = run_peer(RAY, tried, folder / f"probe-compiled-{number}", setting[1], setting[0])
        costs = [cost_by_kind(side.trials)[trial.kind] for trial in short.trials]
        seconds = mean(cost.overhead_s + epochs * larger * cost.epoch_s for cost in costs) / setting[0]
        found.append((seconds, given))
        how = f"steps_per_execution {tried.steps_per_execution}, jit_compile {tried.jit_compile}"
        _told(rows, f"probe: {RAY}, {how}", f"{seconds:.1f} s for a trial of {epochs:.0f} epochs on all photos")
    return replace(task, **min(found, key=lambda each: each[0])[1])


def _quickest(
    name: str, measured: Sequence[str], task: Task, settings: Sequence[tuple[int, int]], folder: Path, rows: list[Any]
) -> Side:
    """The side called ``name`` with the setting of ``settings`` that takes least for the whole list."""
    sides = []
    for concurrent, threads in settings:
        run = run_peer(name, task.only(measured, concurrent), folder / f"{concurrent}", threads, concurrent)
        sides.append(_said(run))
    sides.sort(key=lambda side: side.whole_s(task.trials))
    for side in sides[1:]:
        _told(rows, f"{name}, {side.how}", f"{side.whole_s(task.trials):.1f} s, the slower setting")
    return sides[0]


def _told(rows: list[tuple[str, str]], label: str, text: str) -> None:
    rows.append((label, text))
    print(f"{label}: {text}", flush=True)


def _said(side: Side) -> Side:
    print(f"{side.name}: {side.seconds:.1f} s for {len(side.trials)} trials ({side.how})", flush=True)
    return side


def _splits(task: Task) -> list[str]:
    """Of each line of the task's table, the heading's among them."""
    return [line.rsplit(",", 1)[-1].strip() for line in task.table.read_text(encoding="utf-8").splitlines()]


def _photos(task: Task) -> str:
    splits = _splits(task)
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
                ratio = whole[side.name] / whole[our.name]
                rows.append((f"{our.name} against {side.name}", figure_text(ratio, "x")))
    for side in (ours[0], *peers):
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
