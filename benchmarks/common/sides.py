"""Run one side as a process of its own, from its start to its end, and read what it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.measured import Side, TrialTime, trial_times
from benchmarks.common.task import CORES, Task, Trial
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState
from orchestrator.paths import SweepPaths

ROOT = Path(__file__).resolve().parents[2]
PEERS = {
    "Ray Tune + Keras": "ray_tune",
    "KerasTuner": "keras_tuner_list",
    "features by hand": "features_by_hand",
}
OURS = "orch"
LOG_TAIL = 15


def hold_cores() -> None:
    """Hold this process, and those it starts, to the first ``CORES`` cores it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def run_peer(name: str, task: Task, folder: Path, threads: int = CORES, concurrent: int = 1) -> Side:
    """Run the script of ``name`` with nothing decoded yet; ``folder`` must not exist."""
    file, report = folder / "task.json", folder / "report.json"
    task.write(file, threads, concurrent)
    began, ended = run_module([f"benchmarks.peers.{PEERS[name]}", str(file), str(report)], folder)
    times = trial_times(json.loads(report.read_text(encoding="utf-8")), task.trials)
    return Side(name, began, ended, times, threads, concurrent)


def run_ours(name: str, task: Task, folder: Path, cache: Path, cpus: int = 1) -> Side:
    """``orch sweep --until search`` on the task's list, into ``folder``, which must not exist, with the store in
    ``cache``. Tracking is on, into a database in ``folder``."""
    began, ended = run_sweep(task, folder, cache, cpus)
    events = read_events(SweepPaths(folder / "sweep").ledger)
    times = sweep_times(events, task.trials)
    return Side(name, began, ended, times, cpus, CORES // cpus, breakdown(events, times, began, ended))


def run_sweep(
    task: Task, folder: Path, cache: Path, cpus: int = 1, scheduler: str | Mapping[str, Any] = "none"
) -> tuple[float, float]:
    """The sweep of ``run_ours``, its own folder being ``folder / "sweep"``; when its process began and ended."""
    folder.mkdir(parents=True)
    file, out = folder / "sweep.yaml", folder / "sweep"
    task.sweep_file(file, cpus, scheduler)
    if len({trial.epochs for trial in task.trials}) == 1:
        command = ["orchestrator", "sweep", str(file), "--until", "search", "--out", str(out)]
    else:
        epochs = folder / "epochs.json"
        epochs.write_text(json.dumps({trial.name: trial.epochs for trial in task.trials}), encoding="utf-8")
        command = ["benchmarks.common.recorded_sweep", str(file), str(out), str(epochs)]
    places = {"ORCH_CACHE": str(cache), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    return run_module(command, folder, places)


def run_module(module: Sequence[str], folder: Path, places: Mapping[str, str] | None = None) -> tuple[float, float]:
    """Run ``python -m MODULE ...`` in ``folder``; when it began and ended. Exits with the end of its output if it
    failed."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, **(places or {})}
    log = folder / "output.txt"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        began = time.time()
        command = [sys.executable, "-m", *module]
        done = subprocess.run(command, cwd=folder, env=environment, stdout=output, stderr=output, check=False)
        ended = time.time()
    if done.returncode:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL:]
        raise SystemExit("\n".join([f"python -m {module[0]} failed with exit code {done.returncode}:", *tail]))
    return began, ended


# What our own ledger says


def sweep_times(events: Iterable[Event], trials: Sequence[Trial]) -> tuple[TrialTime, ...]:
    """When each of ``trials`` ran. Raises SystemExit where one did not complete."""
    names: dict[str, str] = {}
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    epochs: dict[str, list[Event]] = {}
    states: dict[str, str] = {}
    for event in events:
        if event.kind == EventKind.TRIAL and event.trial:
            names.setdefault(event.trial, event.data.get("name", ""))
            states[event.trial] = event.state
            ended[event.trial] = event.time_s
            if event.state == TrialState.RUNNING:
                began.setdefault(event.trial, event.time_s)
        elif event.kind == EventKind.EPOCH and not event.fold:
            epochs.setdefault(event.trial, []).append(event)
    ids = {name: trial for trial, name in names.items()}
    times = []
    for trial in trials:
        key = ids.get(trial.name, "")
        if states.get(key) != TrialState.COMPLETED or len(epochs[key]) != trial.epochs:
            raise SystemExit(f"trial {trial.name} of orch ended as {states.get(key, 'not run')}, not COMPLETED.")
        seconds = tuple(float(event.seconds or 0.0) for event in epochs[key])
        accuracy = epochs[key][-1].val_accuracy
        assert accuracy is not None
        times.append(TrialTime(trial, began[key], ended[key], seconds, accuracy))
    return tuple(times)


def ready_s(events: Iterable[Event]) -> float:
    """When the first worker was ready to work: its first job that fills the store began, or its first trial. Pure."""
    begun = []
    for event in events:
        if event.kind == EventKind.STAGE and event.stage == Stage.PREFILL:
            begun.append(event.time_s - float(event.data.get("seconds") or 0.0))
        elif event.kind == EventKind.TRIAL and event.state == TrialState.RUNNING:
            begun.append(event.time_s)
    return min(begun)


def breakdown(
    events: Sequence[Event], times: Sequence[TrialTime], began: float, ended: float
) -> tuple[tuple[str, float], ...]:
    """Where our time goes, in seconds.

    "of the clock" parts follow each other and add up to the whole; "of workers" parts run in parallel within the
    search. Jobs that fill the store are known where the ledger names them; before that they are a trial's own.
    """
    first = events[0].time_s
    data = next(event.time_s for event in events if event.kind == EventKind.STAGE and event.stage == Stage.DATA)
    builds = [event for event in events if event.kind == EventKind.STAGE and event.stage == Stage.PREFILL]
    running, ready = min(time.began for time in times), ready_s(events)
    last = max(time.ended for time in times)
    parts = [
        ("of the clock: imports and opening", first - began),
        ("of the clock: reading and checking the photos", data - first),
        ("of the clock: Ray and the first worker", ready - data),
        ("of the clock: filling the store before the first trial", running - ready),
        ("of the clock: the trials and the store", last - running),
        ("of the clock: closing", ended - last),
    ]
    if builds:
        for label, field in (("decoding", "decode_s"), ("frozen parts", "prefix_s"), ("waiting for both", "waited_s")):
            parts.append((f"of workers: {label}", sum(float(build.data.get(field) or 0.0) for build in builds)))
    by_depth: dict[str, float] = {}
    for time_ in times:
        depth = time_.trial.config["unfrozen_layers"]
        by_depth[f"{depth}"] = by_depth.get(f"{depth}", 0.0) + sum(time_.epochs)
    parts += [(f"of workers: epochs with {depth} layers unfrozen", seconds) for depth, seconds in by_depth.items()]
    rest = sum(time_.ended - time_.began - sum(time_.epochs) for time_ in times)
    return (*parts, ("of workers: opening, tracing and closing trials", rest))
