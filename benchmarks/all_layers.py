"""Nothing is frozen, so nothing but decoded photos can be shared: ``python -m benchmarks.all_layers [--small]``.

The aim is to be no slower than a plain Ray Tune + Keras script and KerasTuner. Each side runs with the better of two
trials of one thread and one trial of two.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.task import Task, Trial, fewer_photos, trashnet
from benchmarks.common.versus import Comparison, compare, parse

TARGET = 1.0
NOTES = """Every layer is trained by every side; what orch could save is the start of each trial and the work around the
steps. The figure is against the faster peer, starts included."""


def trials(count: int, epochs: int, backbone: str) -> tuple[Trial, ...]:
    """``count`` configurations, always the same ones."""
    draw = random.Random(3)
    return tuple(
        Trial(
            f"t{number}",
            epochs,
            {
                "backbone": backbone,
                "unfrozen_layers": "all",
                "dropout": draw.choice([0.0, 0.2]),
                "head": "softmax",
                "smoothing": draw.choice([0.0, 0.1]),
                "learning_rate": float(f"{10 ** draw.uniform(-3.5, -3.0):.3g}"),
            },
        )
        for number in range(1, count + 1)
    )


def full(folder: Path) -> Comparison:
    """MobileNet 0.5 at 160 px, all of TrashNet, 4 trials of 3 epochs."""
    table, weights = trashnet()
    task = Task("all_layers", table, weights, 160, trials(4, 3, "mobilenet_0.5"))
    probe = Task("all_layers", fewer_photos(table, folder / "probe-photos", 384, 64), weights, 160, task.trials)
    return Comparison(task, "full", TARGET, probe=probe, choose_ours=True, closely=True, tolerance=0.12, least=0.3)


def small(folder: Path) -> Comparison:
    """MobileNet 0.25 at 128 px, 128 photos, 2 trials of 2 epochs."""
    table, weights = trashnet()
    task = Task(
        "all_layers", fewer_photos(table, folder / "photos", 128, 64), weights, 128, trials(2, 2, "mobilenet_0.25")
    )
    return Comparison(task, "small", tolerance=0.4, least=0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and record it; 1 where the target is missed."""
    asked = parse("Trials that train everything, against Ray Tune + Keras and KerasTuner.", arguments)
    return 0 if compare(small if asked.small else full, asked.keep, NOTES) else 1


if __name__ == "__main__":
    sys.exit(main())
