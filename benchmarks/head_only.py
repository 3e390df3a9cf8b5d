"""Only the head is trained, 24 times: ``python -m benchmarks.head_only [--small]``.

Against a plain Ray Tune + Keras script and KerasTuner, each of which decodes every photo once and runs the frozen
network over all of them in every epoch of every trial (see ``benchmarks/peers``). Ours is ``orch sweep FILE --until
search`` from an empty store: its start, reading the photos, the store, all trials, the record and MLflow are included.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.task import Task, Trial, fewer_photos, trashnet
from benchmarks.common.versus import Comparison, compare, parse

TARGET = 60.0
NOTES = """Each side trains the same list with Adam at a constant rate on the same photos. A peer's long run is measured
on its first trials and multiplied, its start counted once; the figure is against the faster peer. The script with
features made by hand is for orientation: it shares the idea and has no tool around it. Mean accuracies are
over the trials that a side ran, so those of sides that ran as many compare."""


def trials(count: int, epochs: int, backbone: str) -> tuple[Trial, ...]:
    """``count`` different configurations in random order, always the same ones."""
    draw = random.Random(1)
    found = []
    for number in range(count):
        head = ("softmax", "normface")[number % 2]
        config = {
            "backbone": backbone,
            "unfrozen_layers": 0,
            "dropout": draw.choice([0.0, 0.2, 0.4]),
            "head": head,
            "smoothing": draw.choice([0.0, 0.1]),
            "learning_rate": round(10 ** draw.uniform(-3, -2), 5),
        }
        if head == "normface":
            config["scale"] = 16.0
        found.append(Trial(f"t{number + 1:02d}", epochs, config))
    return tuple(found)


def full(folder: Path) -> Comparison:
    """MobileNet 1.0 at 224 px, all of TrashNet, 24 trials of 10 epochs."""
    table, weights = trashnet()
    task = Task("head_only", table, weights, 224, trials(24, 10, "mobilenet_1.0"))
    fewer = Task("head_only", fewer_photos(table, folder / "probe-photos", 512, 64), weights, 224, task.trials)
    return Comparison(task, "full", TARGET, measured=("t01", "t02", "t03"), probe=fewer, warm=True, by_hand=True)


def small(folder: Path) -> Comparison:
    """MobileNet 0.25 at 128 px, 256 photos, 4 trials of 3 epochs."""
    table, weights = trashnet()
    fewer = fewer_photos(table, folder / "photos", 256, 64)
    task = Task("head_only", fewer, weights, 128, trials(4, 3, "mobilenet_0.25"))
    return Comparison(task, "small", by_hand=True, tolerance=0.25, least=0.25)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and record it; 1 where the target is missed."""
    asked = parse("Trials that train the head alone, against Ray Tune + Keras and KerasTuner.", arguments)
    return 0 if compare(small if asked.small else full, asked.keep, NOTES) else 1


if __name__ == "__main__":
    sys.exit(main())
