"""The grid on which the constants of the intervals are chosen; ``benchmarks.coverage`` reports on another.

``python -m benchmarks.coverage_tuning`` simulates it (minutes) and prints how many cells miss each mark.
"""

from __future__ import annotations

import itertools
import sys

from benchmarks.common.coverage_page import summary
from benchmarks.coverage import MIXED, Cell, run_cell

SEED = 990
DATA_SETS = 1_000
FEW_GROUPS = ((240, 0.95, 12, 0.5), (450, 0.96, 25, 0.5), (300, 0.975, 15, 0.45), (400, 0.93, 20, 0.45))
FEW_ERRORS = (
    *((250, 0.96, 20, 0.4), (450, 0.94, 25, 0.5), (240, 0.92, 12, 0.5), (300, 0.9, 15, 0.45), (300, 0.95, 15, 0.45)),
    *((420, 0.88, 22, 0.5), (1000, 0.99, 1, 0.0), (800, 0.988, 1, 0.0), (1200, 0.996, 1, 0.0), (1800, 0.995, 3, 0.2)),
    (300, 0.97, 1, 0.0),
)
"""(photos, accuracy, group, correlation)."""


def tuning_grid() -> tuple[Cell, ...]:
    found = []
    for photos, accuracy in itertools.product((150, 600, 2500), (0.75, 0.93, 0.985)):
        for group, correlation in ((1, 0.0), (3, 0.2), (12, 0.4), (12, 0.05), (30, 0.2), (MIXED, 0.3)):
            found.append(Cell(photos, 1, accuracy, group, correlation, 0.0))
        networks = ((2, 0.0), (2, 0.005), (2, 0.02), (3, 0.0), (3, 0.005), (3, 0.015), (3, 0.025))
        for (group, correlation), (number, deviation) in itertools.product(
            ((1, 0.0), (3, 0.2), (12, 0.4)), (*networks, (4, 0.02), (6, 0.0), (6, 0.01))
        ):
            found.append(Cell(photos, number, accuracy, group, correlation, deviation))
    found += [Cell(n, 1, a, m, icc, 0.0) for n, a, m, icc in FEW_ERRORS]
    for (number, deviation), (n, a, m, icc) in itertools.product(
        ((2, 0.0), (3, 0.0), (4, 0.01), (5, 0.0), (6, 0.01)), FEW_GROUPS
    ):
        found.append(Cell(n, number, a, m, icc, deviation))
    return tuple(found)


def main() -> int:
    rows = [run_cell(cell, DATA_SETS, (SEED, number)) for number, cell in enumerate(tuning_grid())]
    print("\n".join(summary(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
