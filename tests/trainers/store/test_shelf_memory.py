"""Memory of reading rows larger than the budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.memory import peak_of

BUDGET_MIB = 8

TAKE = """
import resource, sys
import numpy as np
from pathlib import Path
import trainers.store.rows
from trainers.store.shelf import Shelf
trainers.store.rows.IN_MEMORY_BYTES = int(sys.argv[3]) * 2**20
count, side = int(sys.argv[2]), int(sys.argv[4])
def compute(positions):
    for start in range(0, len(positions), 32):
        part = positions[start : start + 32]
        yield np.stack([np.full(side, p % 251, np.uint8) for p in part])
rows = Shelf(Path(sys.argv[1]), "images", {}).rows([str(i) for i in range(count)], compute)
random = np.random.default_rng(0)
seen = 0
for epoch in range(2):
    for batch in np.array_split(random.permutation(count), max(count // 32, 1)):
        taken = rows.take(batch)
        assert (taken[:, 0] == batch % 251).all() and (taken[:, -1] == batch % 251).all()
        seen += len(taken)
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.parametrize(
    ("row_bytes", "small_mib", "large_mib"),
    [(4_096, 16, 64), pytest.param(150_528, 32, 600, marks=pytest.mark.slow)],
)
def test_rows_far_larger_than_the_budget_do_not_come_into_memory(
    tmp_path: Path, row_bytes: int, small_mib: int, large_mib: int
) -> None:
    """A larger set may cost no more than the budget over what a small one costs, plus 1,000 bytes for each key."""
    counts = [size * 2**20 // row_bytes for size in (small_mib, large_mib)]
    peaks = []
    for count in counts:
        seen, peak = peak_of(TAKE, tmp_path / str(count), count, BUDGET_MIB, row_bytes)
        assert seen == 2 * count
        peaks.append(peak)
    allowed = BUDGET_MIB * 2**20 + 1000 * counts[1]
    assert allowed < (large_mib - small_mib) * 2**20
    assert peaks[1] - peaks[0] < allowed, [f"{peak / 2**20:.0f} MiB" for peak in peaks]
