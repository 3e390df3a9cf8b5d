"""What a trial costs besides its training: 1,000 trials of no work, against plain Ray Tune without tracking.

    python -m benchmarks.overhead            # about five minutes on two cores
    python -m benchmarks.overhead --small

Our side is what ``orch sweep`` runs in its search: the sampler, the ledger on the disk, the lines for a person and
MLflow's default store, a new SQLite file; the time ends when MLflow has seen everything. Ray's side is what its users
write: a class ``Trainable`` with ``reuse_actors``, no tracker, and Tune's documented switches that make it cheaper
(no logger files a trial, no snapshots of the experiment while it runs, no output). Both have two slots of one CPU,
one epoch a trial, and a process of their own. Neither side's time counts Ray's start or its workers': it begins when
the first trial ends.

"dearer": the larger of two ratios, that of the time a trial in a sweep of 1,000 over that in a sweep of 100, each
with MLflow's remainder at the end; and, within the sweep of 1,000, that of its last hundred trials over the hundred
around its hundredth. "memory": resident memory of the driver at the last trial less that at the hundredth, a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common.results import Bound, Result, figure_text, record
from benchmarks.common.sides import hold_cores

TARGET_S = 0.15
DEARER = 1.2
MEMORY_KB = 100.0
SLOTS = 2
SIDES = ("random", "tpe", "ray")
"""orch with either sampler, and plain Ray Tune."""


@dataclass(frozen=True)
class Cost:
    """One run. ``ended_s``: when each trial ended, in seconds since the first one did; ``total_s``: when everything was
    done, what the tracker still had to send included. ``cpu_s``: the driver's own CPU time over ``total_s``.
    ``memory_kb``: the driver's resident memory as each trial ended."""

    ended_s: tuple[float, ...]
    total_s: float
    cpu_s: float
    memory_kb: tuple[float, ...]

    @property
    def trial_s(self) -> float:
        return self.total_s / (len(self.ended_s) - 1)

    @property
    def rest_s(self) -> float:
        """What was left to do when the last trial had ended."""
        return self.total_s - self.ended_s[-1]

    def pace_s(self, around: int, width: int) -> float:
        """Seconds a trial over the ``width`` trials around trial number ``around``, or the last ones."""
        last = min(len(self.ended_s) - 1, around + width // 2)
        return (self.ended_s[last] - self.ended_s[last - width]) / width

    def growth_kb(self, first: int) -> float:
        """Memory a trial, from trial number ``first`` to the last."""
        return (self.memory_kb[-1] - self.memory_kb[first - 1]) / (len(self.memory_kb) - first)


def dearer(few: Cost, many: Cost) -> float:
    """How much dearer a trial is late in a long sweep than early: the larger of two ways to look at it. Pure."""
    early = len(few.ended_s)
    width = early // 2  # of the trials around the hundredth, and of the last ones
    within = many.pace_s(len(many.ended_s), width) / many.pace_s(early, width)
    return max(many.trial_s / few.trial_s, within)


class Clock:
    """Notes when trials end and how large this process is then. Can be pickled, as Tune does with its callbacks."""

    def __init__(self) -> None:
        self._times_s: list[float] = []
        self._memory_kb: list[float] = []
        self._cpu_s = 0.0

    def trial_ended(self) -> None:
        if not self._times_s:
            self._cpu_s = time.process_time()
        self._times_s.append(time.monotonic())
        self._memory_kb.append(psutil.Process().memory_info().rss / 1000)

    def stop(self) -> Cost:
        first = self._times_s[0]
        return Cost(
            tuple(at - first for at in self._times_s),
            time.monotonic() - first,
            time.process_time() - self._cpu_s,
            tuple(self._memory_kb),
        )


SPACE = """
name: overhead
data: {source: builtin:digits}
search:
  backbone: small_cnn
  image_size: 16
  unfrozen_layers: all
  dropout: {uniform: [0, 0.6]}
  learning_rate: {loguniform: [1e-5, 1e-1]}
  smoothing: {uniform: [0, 0.2]}
  head: [softmax, normface, cosface]
budget: {trials: TRIALS, epochs: 1, sampler: SAMPLER}
weights: none
"""


def run_orch(folder: Path, trials: int, sampler: str) -> Cost:
    """The search of a sweep, as ``orch sweep`` runs it, with workers that do nothing."""
    from rich.console import Console

    from orchestrator.cluster.ray_session import ray_session
    from orchestrator.ledger.ledger import Ledger
    from orchestrator.ledger.segments import Event, EventKind
    from orchestrator.ledger.state import TrialState
    from orchestrator.paths import SweepPaths
    from orchestrator.report.progress import ProgressReporter
    from orchestrator.search.run import run_trials
    from orchestrator.search.sampling import OptunaSampler, SamplerSettings
    from orchestrator.search.settings import SearchSettings
    from orchestrator.spec.load import load_spec
    from orchestrator.tracking.settings import tracking_settings
    from orchestrator.tracking.tracker import Tracker
    from trainers.config import TrialConfig
    from trainers.contract import FitJob

    file = folder / "overhead.yaml"
    file.write_text(SPACE.replace("TRIALS", str(trials)).replace("SAMPLER", sampler))
    spec = load_spec(str(file), [f"tracking.uri=sqlite:///{folder / 'mlflow.db'}"])
    paths = SweepPaths(folder / "sweep")
    paths.root.mkdir()

    def make_job(trial: str, config: TrialConfig) -> FitJob:
        return FitJob(trial, config, 0, str(paths.manifest))

    clock = Clock()
    with (folder / "output.txt").open("w") as output, Ledger(paths.ledger) as ledger, ray_session(cpus=SLOTS):
        reporter = ProgressReporter(Console(file=output))
        tracker = Tracker(paths, tracking_settings(spec))
        tracker.start()

        def show(event: Event) -> None:
            reporter.on_event(event)
            tracker.show(event)
            if event.kind == EventKind.TRIAL and TrialState(event.state).is_final:
                clock.trial_ended()

        show(ledger.append(EventKind.SWEEP, state="RUNNING", payload={"name": spec.name}))
        source = OptunaSampler(spec.space, SamplerSettings(trials, 1, 0, "no data", sampler), make_job)
        settings = SearchSettings(1, paths.logs.resolve(), paths.ray.resolve(), "benchmarks.common.no_work:open_fit")
        outcome = run_trials(source, settings, ledger, show)
        warning = tracker.close(600.0)
        cost = clock.stop()
    if warning or outcome.states != {"COMPLETED": trials}:
        raise SystemExit(f"the sweep did not go through: {warning or outcome.states}")
    check_tracked(str(spec.tracking.uri), spec.name, trials)
    return cost


def check_tracked(uri: str, experiment: str, trials: int) -> None:
    """Every trial is one finished run with its metrics and parameters; else SystemExit."""
    from orchestrator.tracking.mlflow_store import connect

    client, found, token = connect(uri), [], ""
    number = client.get_experiment_by_name(experiment).experiment_id
    while token is not None:
        page = client.search_runs(
            [number], "attributes.status = 'FINISHED'", max_results=1000, page_token=token or None
        )
        found += page
        token = page.token
    whole = {r.data.tags.get("orch.trial") for r in found if r.data.metrics.get("val_accuracy") and r.data.params}
    if len(whole - {None}) != trials:
        raise SystemExit(f"MLflow has {len(whole - {None})} of {trials} trials.")


def run_ray(folder: Path, trials: int, sampler: str) -> Cost:
    """Plain Ray Tune as its users write it, with the documented settings that make it faster."""
    del sampler
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "1000000"}
    os.environ |= {"RAY_AIR_NEW_OUTPUT": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    import ray
    from ray import tune

    class NoWork(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.reset_config(config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.accuracy = 1 - new_config["dropout"]
            return True

        def step(self) -> dict[str, Any]:
            return {"val_accuracy": self.accuracy, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """There is nothing to keep."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """There is nothing to keep."""

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            clock.trial_ended()

    clock = Clock()
    ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    space = {
        "dropout": tune.uniform(0, 0.6),
        "learning_rate": tune.loguniform(1e-5, 1e-1),
        "smoothing": tune.uniform(0, 0.2),
        "head": tune.choice(["softmax", "normface", "cosface"]),
    }
    tune.Tuner(
        tune.with_resources(NoWork, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(folder), name="plain", verbose=0, callbacks=[Watch()]),
    ).fit()
    cost = clock.stop()
    ray.shutdown()
    return cost


def measure(side: str, trials: int) -> Cost:
    """Run one side in a process of its own, in a folder that goes away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.overhead", "--side", side, "--trials", str(trials)]
        ended = subprocess.run([*command, "--folder", folder], capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{side} with {trials} trials failed:\n{ended.stdout}{ended.stderr}")
    values = json.loads(ended.stdout.splitlines()[-1])
    cost = Cost(tuple(values["ended_s"]), values["total_s"], values["cpu_s"], tuple(values["memory_kb"]))
    print(f"{side}, {trials} trials: {words(cost)}", flush=True)
    return cost


def words(cost: Cost) -> str:
    return (
        f"{figure_text(cost.trial_s, 's')} a trial ({cost.cpu_s / (len(cost.ended_s) - 1):.3f} s of the driver's CPU), "
        f"{cost.rest_s:.1f} s left at the end, {cost.growth_kb(len(cost.ended_s) // 10):.0f} KB a trial"
    )


def run_side(side: str, trials: int, folder: Path) -> None:
    """What the process of one side does; its figures are the last line of its output."""
    run: Callable[[Path, int, str], Cost] = run_ray if side == "ray" else run_orch
    print(json.dumps(asdict(run(folder, trials, side))), flush=True)


def compare(few: int, many: int, size: str) -> Result:
    """All runs, one after the other, and what they amount to."""
    short, long = measure("random", few), measure("random", many)
    tpe, ray = measure("tpe", many), measure("ray", many)
    ratio, growth_kb = dearer(short, long), long.growth_kb(few)
    rows = (
        ("orch, random", words(long)),
        ("orch, tpe", words(tpe)),
        ("plain Ray Tune, no tracking", words(ray)),
        ("orch, random, against plain Ray Tune", f"{long.trial_s / ray.trial_s:.1f} times as dear a trial"),
    )
    also = (
        Bound(f"a trial at {many:,} over one at {few:,}", ratio, "x", DEARER),
        Bound(f"the driver's memory a trial, from {few:,} to {many:,}", growth_kb, "KB", MEMORY_KB),
    )
    notes = f"{many:,} trials of no work, one epoch each, two slots."
    return Result("overhead", long.trial_s, "s", TARGET_S, False, size, rows, notes, also)


def main() -> int:
    """Run and record it; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="100 trials against 30 instead of 1,000 against 100")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--trials", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        run_side(asked.side, asked.trials, asked.folder)
        return 0
    hold_cores()
    few, many, size = (30, 100, "small") if asked.small else (100, 1000, "full")
    return 0 if record(compare(few, many, size)) else 1


if __name__ == "__main__":
    sys.exit(main())
