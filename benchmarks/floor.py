"""How far two sweeps are from their plan's floor: ``python -m benchmarks.floor [--small]``.

The sweeps are those of ``head_only`` and ``mixed_depth``, each from an empty store. Their floor is the plan's: each
photo decoded once, each frozen part run once over each image, each trainable part trained for its epochs, each at the
better of our speed and that of a bare ``tf.function`` on tensors in memory (``orchestrator.plan.calibrate`` for steps,
``benchmarks.peers.bare_parts`` for frozen parts), evenly over the workers. The speeds are measured anew in the same
run, on every worker at once. Sweep and measuring take turns, three times each, and of both the quickest counts:
what a shared machine takes away for a while is neither's doing.

Compared is the time from the moment a worker is ready to work (start of the first job that fills the store) to the end
of the last trial: opening and tracing networks, waiting, scheduling and the record are in it, and not in the floor.
Before that lie imports, Ray and reading the photos, which the rows of "of the clock" show. Cuts of one backbone are
passes of their own here; a program that took all of them in one pass would lie lower.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import head_only, mixed_depth
from benchmarks.common.measured import Side
from benchmarks.common.results import Result, figure_text, record
from benchmarks.common.sides import OURS, hold_cores, ready_s, run_module, run_ours
from benchmarks.common.task import CORES, Task
from benchmarks.common.versus import parser
from orchestrator.ledger.segments import Event, EventKind, read_events
from orchestrator.paths import SweepPaths
from orchestrator.plan.calibrate import CalibrationRequest, calibrated
from orchestrator.plan.calibration import Calibration, Machine
from orchestrator.plan.playthrough import SimulatedSweep, SweepConditions
from orchestrator.plan.workload import PhotoCounts
from orchestrator.spec.load import load_spec
from orchestrator.spec.slots import Resources, slots_of
from orchestrator.spec.sweep import SweepSpec
from trainers.config import canonical
from trainers.data.manifest import Manifest

TARGET = 1.5
ROUNDS = 3
"""Sweep and parts are measured so often, in turn, and the quickest count: a floor that a busy moment had raised would
flatter us, and a sweep that one had slowed down would say nothing of the program."""
BARE_S = 12.0
"""How long bare functions try each frozen part."""
CALIBRATE_S, SMALL_S = 64.0, 24.0
"""How long the workers measure in each round: enough for every part of the larger sweep; and at the small size."""
NOTES = """The figure is the worse of the two sweeps: their time after the start over their floor, both the quickest of
three rounds. What lies between is opening and tracing, the driver, and workers that wait for one another."""


@dataclasses.dataclass(frozen=True)
class Found:
    """One sweep: ``seconds`` of the clock after its start, ``floor_s`` beneath it, and what both consist of."""

    name: str
    seconds: float
    floor_s: float
    rows: tuple[tuple[str, str], ...]

    @property
    def ratio(self) -> float:
        return self.seconds / self.floor_s

    @property
    def words(self) -> str:
        return f"{self.seconds:.1f} s over a floor of {self.floor_s:.1f} s, {figure_text(self.ratio, 'x')}"


def working_s(events: Sequence[Event]) -> float:
    """From the first job of a worker, less what it took, to the end of the last trial. Pure."""
    return max(e.time_s for e in events if e.kind == EventKind.TRIAL) - ready_s(events)


def measure(task: Task, folder: Path, measured_s: float = CALIBRATE_S) -> Found:
    """Run the sweep of ``task`` and measure its parts on the same workers for ``measured_s``, in turn, in folders below
    ``folder``."""
    sweeps, speeds = [], []
    for number in range(ROUNDS):
        here = folder / f"round-{number + 1}"
        side = run_ours(OURS, task, here, here / "store")
        out = SweepPaths(here / "sweep")
        sweeps.append((working_s(read_events(out.ledger)), side))
        spec, manifest = load_spec(str(here / "sweep.yaml")), Manifest.read(out.manifest)
        request = CalibrationRequest(
            spec, manifest, slots_of(spec, Resources(CORES, 0)), here / "store", seconds=measured_s
        )
        speeds.append(calibrated(request, again=True))
        shutil.rmtree(here / "store")
    seconds, side = min(sweeps, key=lambda sweep: sweep[0])
    epochs = {trial.name: trial.epochs for trial in task.trials}
    speed, bare = with_bare(quickest(speeds), str(task.weights), len(manifest.classes), folder / "bare")
    floor_s, rows = floor_of(spec, epochs, PhotoCounts.of(manifest), speed)
    rows += bare
    rounds = ("rounds", ", ".join(f"{each:.1f} s" for each, _ in sweeps))
    clock = [(label, f"{value:.1f} s") for label, value in side.breakdown]
    return Found(task.name, seconds, floor_s, (rounds, *rows, *clock, *_accuracy(side)))


def quickest(rounds: Sequence[Calibration]) -> Calibration:
    """The least that any round measured of each part, of decoding and of augmenting. Pure.

    What lies below a deeper cut is a part of what lies below a shallower one, so it takes no longer either.
    """
    last = rounds[-1]
    parts = {}
    for key in last.parts:
        measured = [each.parts[key] for each in rounds if key in each.parts]
        least = {
            name: min(getattr(speed, name) for speed in measured) for name in ("train_s", "floor_train_s", "predict_s")
        }
        above = [
            speed.prefix_s
            for each in rounds
            for other, speed in each.parts.items()
            if dataclasses.replace(other, unfrozen_layers=key.unfrozen_layers) == key
            and _depth(other.unfrozen_layers) <= _depth(key.unfrozen_layers)
        ]
        parts[key] = dataclasses.replace(measured[0], **least, prefix_s=min(above))
    decode_s = {name: min(each.decode_s[name] for each in rounds) for name in last.decode_s}
    augment_s = {name: min(each.augment_s[name] for each in rounds) for name in last.augment_s}
    return dataclasses.replace(last, parts=parts, decode_s=decode_s, augment_s=augment_s)


def with_bare(
    speeds: Calibration, weights: str, classes: int, folder: Path
) -> tuple[Calibration, tuple[tuple[str, str], ...]]:
    """``speeds`` with the time of each frozen part at most what a bare ``tf.function`` takes on every core at once; and
    both, for a table."""
    keys = [key for key, speed in speeds.parts.items() if speed.prefix_s > 0]
    names = ("backbone", "image_size", "unfrozen_layers", "batch_size", "pooling")
    configs = [canonical({name: getattr(key, name) for name in names}) for key in keys]
    parts = [{"config": config.to_dict(), "weights": weights} for config in configs]
    folder.mkdir(parents=True)

    def run(core: int) -> list[float]:
        report, file = folder / f"report-{core}.json", folder / f"task-{core}.json"
        task = {"parts": parts, "classes": classes, "seconds": BARE_S, "report": str(report)}
        file.write_text(json.dumps(task), encoding="utf-8")
        run_module(["benchmarks.peers.bare_parts", str(file)], folder / f"output-{core}")
        return json.loads(report.read_text(encoding="utf-8"))

    with ThreadPoolExecutor(CORES) as cores:
        least = [min(each) for each in zip(*cores.map(run, range(CORES)), strict=True)]
    rows, found = [], dict(speeds.parts)
    for key, bare_s in zip(keys, least, strict=True):
        ours_s = found[key].prefix_s
        found[key] = dataclasses.replace(found[key], prefix_s=min(ours_s, bare_s))
        label = f"{key.backbone}, below {key.unfrozen_layers} unfrozen layers"
        rows.append((label, f"ours {1000 * ours_s:.2f} ms an image, a bare function {1000 * bare_s:.2f} ms"))
    return dataclasses.replace(speeds, parts=found), tuple(rows)


def _depth(unfrozen_layers: int | str) -> float:
    return math.inf if unfrozen_layers == "all" else float(unfrozen_layers)


def _accuracy(side: Side) -> tuple[tuple[str, str], ...]:
    mean = sum(side.accuracy.values()) / len(side.accuracy)
    return (("mean validation accuracy", f"{mean:.3f}"),)


def floor_of(
    spec: SweepSpec, epochs: Mapping[str, int], photos: PhotoCounts, calibration: Calibration
) -> tuple[float, tuple[tuple[str, str], ...]]:
    """The floor by the clock of the named configurations, each for its own ``epochs``, from an empty store; and what it
    consists of, for a table. Pure. SystemExit where the speed of a part was not measured but estimated."""
    workers = calibration.workers
    campaign = SimulatedSweep(spec, SweepConditions(photos, Machine(workers=workers), calibration))
    fits = [
        (campaign.work(canonical({**values, "epochs": epochs[name]})), epochs[name])
        for name, values in spec.configurations
    ]
    estimated = {work.key for work, _ in fits} & campaign.speeds.estimated
    if estimated:
        raise SystemExit(f"{len(estimated)} of the parts were not measured in time; run it again on an idle machine.")
    whole = campaign.floor_s(fits)
    trained = sum(work.bare_epoch_s * count for work, count in fits) / workers
    rows = [
        ("floor: photos decoded once and frozen parts run once", f"{whole - trained:.1f} s"),
        ("floor: trainable parts", f"{trained:.1f} s"),
    ]
    for work in {work.key: work for work, _ in fits}.values():
        key, speed = work.key, work.speed
        rows.append(
            (
                f"{key.backbone}, {key.unfrozen_layers} layers unfrozen",
                f"{1000 * speed.prefix_s:.2f} ms an image below, step {1000 * speed.train_s:.3f} ms, "
                f"bare step {1000 * speed.floor_train_s:.3f} ms",
            )
        )
    return whole, tuple(rows)


def tasks(small: bool, folder: Path) -> list[Task]:
    """The two sweeps at the size asked for."""
    benchmarks = (head_only, mixed_depth)
    return [(each.small if small else each.full)(folder / each.__name__.rpartition(".")[2]).task for each in benchmarks]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and record it; 1 where the target is missed."""
    asked = parser("Two sweeps against the least that they could take.").parse_args(arguments)
    hold_cores()
    folder = Path(asked.keep or tempfile.mkdtemp(prefix="orch-bench-")).resolve()
    try:
        found = []
        for task in tasks(asked.small, folder / "photos"):
            one = measure(task, folder / task.name, SMALL_S if asked.small else CALIBRATE_S)
            print(f"{one.name}: {one.words}", flush=True)
            found.append(one)
    finally:
        if asked.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    rows = []
    for one in found:
        rows.append((one.name, one.words))
        rows += [(f"{one.name}, {label}", value) for label, value in one.rows]
    worst = max(one.ratio for one in found)
    size, target = ("small", None) if asked.small else ("full", TARGET)
    return 0 if record(Result("floor", worst, "x", target, False, size, tuple(rows), NOTES)) else 1


if __name__ == "__main__":
    sys.exit(main())
