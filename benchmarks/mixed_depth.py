"""Two backbones, 0, 5, 20 and 40 layers unfrozen, 24 trials: ``python -m benchmarks.mixed_depth [--small]``.

Every side runs one recorded list of (trial, epochs), ``mixed_depth.json``: what ASHA let each of 24 trials have in a
real sweep, which ``--record-list`` runs again. Peers measure one trial of each (backbone, depth) and the others are
counted at those costs. Ours runs the whole list, with an empty and with a filled store.

What limits the ratio is in the rows: the epochs of deep trials, whose trained layers are most of the network and are
the same work for every side.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.sides import hold_cores, run_sweep
from benchmarks.common.task import Task, Trial, fewer_photos, trashnet
from benchmarks.common.versus import Comparison, compare, parser
from orchestrator.ledger.segments import Event, read_events
from orchestrator.ledger.state import derive
from orchestrator.paths import SweepPaths

TARGET, WARM_TARGET = 2.5, 3.0
LIST = Path(__file__).resolve().parent / "mixed_depth.json"
BACKBONES = ("mobilenet_0.5", "mobilenet_0.75")
DEPTHS = (0, 5, 20, 40)
OF_EACH = 3
LARGEST_RATE = {0: -2.0, 5: -2.7, 20: -3.0, 40: -3.0}
"""The exponent of 10 that learning rates go up to at each depth; they go down to a fifth of it."""
SCHEDULER = {"name": "asha", "grace_epochs": 2, "reduction_factor": 3}
EPOCHS = 8
IMAGE_SIZE = 160
NOTES = """The list of trials and epochs is benchmarks/mixed_depth.json, which says how it was made. Peers run one trial
of each backbone and depth; the whole list is counted at the costs measured, their start once. Figures are against the
faster peer. Ours runs the stages of `orch sweep --until search` without the plan, which would measure the machine once,
for under a minute, if the file gave hours."""


def configurations() -> tuple[Trial, ...]:
    """24 configurations, three of each backbone and depth, in random order, always the same ones."""
    draw = random.Random(2)
    found = []
    for backbone in BACKBONES:
        for depth in DEPTHS:
            for number in range(OF_EACH):
                config = {
                    "backbone": backbone,
                    "unfrozen_layers": depth,
                    "dropout": draw.choice([0.0, 0.2, 0.4]),
                    "head": "normface" if number == 1 else "softmax",
                    "smoothing": draw.choice([0.0, 0.1]),
                    "learning_rate": float(f"{10 ** (LARGEST_RATE[depth] - draw.uniform(0, 0.7)):.3g}"),
                }
                if config["head"] == "normface":
                    config["scale"] = 16.0
                found.append(config)
    draw.shuffle(found)
    return tuple(Trial(f"t{number:02d}", EPOCHS, config) for number, config in enumerate(found, start=1))


def epochs_of(events: Sequence[Event], trials: Sequence[Trial]) -> dict[str, int]:
    """How many epochs each of ``trials`` had in the sweep of ``events``. Raises SystemExit where one had none."""
    spent = {record.name: len(record.epochs) for record in derive(events).trials.values()}
    without = [trial.name for trial in trials if not spent.get(trial.name)]
    if without:
        raise SystemExit(f"the sweep ran no epoch of {', '.join(without)}; nothing was recorded.")
    return {trial.name: spent[trial.name] for trial in trials}


def record_list(train: int = 0) -> None:
    """Run the sweep that the list comes from, on ``train`` training photos (0: all), and write the list."""
    table, weights = trashnet()
    hold_cores()
    trials = configurations()
    with tempfile.TemporaryDirectory(prefix="orch-bench-") as temporary:
        folder = Path(temporary)
        if train:
            table = fewer_photos(table, folder / "photos", train, train // 4)
        task = Task("mixed_depth", table, weights, IMAGE_SIZE, trials)
        run_sweep(task, folder / "sweep", folder / "store", scheduler=SCHEDULER)
        epochs = epochs_of(read_events(SweepPaths(folder / "sweep" / "sweep").ledger), trials)
    how = (
        f"python -m benchmarks.mixed_depth --record-list: orch sweep of these configurations on "
        f"{train or 'all'} training photos of TrashNet at {IMAGE_SIZE} px, budget.epochs {EPOCHS}, "
        f"scheduler {SCHEDULER}"
    )
    rows = [dataclasses.asdict(dataclasses.replace(trial, epochs=epochs[trial.name])) for trial in trials]
    LIST.write_text(json.dumps({"how": how, "trials": rows}, indent=1) + "\n", encoding="utf-8")
    print(f"written: {LIST}, {sum(epochs.values())} epochs in all")


def read_list(content: Mapping[str, Any]) -> tuple[Trial, ...]:
    """The trials of the recorded list, in its order."""
    return tuple(Trial(row["name"], row["epochs"], row["config"]) for row in content["trials"])


def one_of_each(trials: Sequence[Trial]) -> tuple[str, ...]:
    """The names of one trial of each kind: the shortest of two epochs or more, whose second shows what an epoch costs
    without tracing; the first of a kind that has none. Pure."""
    kinds = dict.fromkeys(trial.kind for trial in trials)
    chosen = []
    for kind in kinds:
        same = [trial for trial in trials if trial.kind == kind]
        chosen.append(min((t for t in same if t.epochs > 1), key=lambda t: t.epochs, default=same[0]).name)
    return tuple(trial.name for trial in trials if trial.name in chosen)


def full(folder: Path) -> Comparison:
    """The whole list on all of TrashNet."""
    table, weights = trashnet()
    trials = read_list(json.loads(LIST.read_text(encoding="utf-8")))
    task = Task("mixed_depth", table, weights, IMAGE_SIZE, trials)
    probed = tuple(trial for trial in trials if trial.kind == (BACKBONES[0], 20))
    probe = Task("mixed_depth", fewer_photos(table, folder / "probe-photos", 512, 64), weights, IMAGE_SIZE, probed)
    return Comparison(
        task,
        "full",
        TARGET,
        WARM_TARGET,
        one_of_each(trials),
        probe=probe,
        closely=True,
        warm=True,
        tolerance=0.08,
        least=0.4,
    )


def small(folder: Path) -> Comparison:
    """One trial of each depth on 128 photos, MobileNet 0.25 at 128 px, one or two epochs."""
    table, weights = trashnet()
    listed = read_list(json.loads(LIST.read_text(encoding="utf-8")))
    first = [next(trial for trial in listed if trial.kind == (BACKBONES[0], depth)) for depth in DEPTHS]
    trials = tuple(
        Trial(trial.name, 1 + number % 2, {**trial.config, "backbone": "mobilenet_0.25"})
        for number, trial in enumerate(first)
    )
    task = Task("mixed_depth", fewer_photos(table, folder / "photos", 128, 64), weights, 128, trials)
    return Comparison(task, "small", tolerance=0.3, least=0.1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and record it; 1 where a target is missed."""
    reader = parser("Trials of different depths, against Ray Tune + Keras and KerasTuner.")
    reader.add_argument("--record-list", action="store_true", help="run the sweep that the list of epochs comes from")
    reader.add_argument("--photos", type=int, default=0, help="training photos of that sweep (default: all)")
    asked = reader.parse_args(arguments)
    if asked.record_list:
        record_list(asked.photos)
        return 0
    return 0 if compare(small if asked.small else full, asked.keep, NOTES) else 1


if __name__ == "__main__":
    sys.exit(main())
