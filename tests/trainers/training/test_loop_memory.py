"""Memory of training on rows larger than the budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.memory import peak_of

BUDGET_MIB = 8

TRAIN = """
import resource, sys
import numpy as np
from pathlib import Path
from tests.support.tiny_fits import CLASSES, config
from trainers.training import chunks, device
import trainers.store.rows
from trainers.store.shelf import Shelf
from trainers.contract import FitJob
from trainers.training.features import LabelledRows
from trainers.networks.network import Architecture
from trainers.training.loop import TrainingFit
device.prepare(1, 0, "float32")
trainers.store.rows.IN_MEMORY_BYTES = chunks.CHUNK_BYTES = int(sys.argv[3]) * 2**20
count = int(sys.argv[2])
def compute(positions):
    for start in range(0, len(positions), 32):
        part = np.array(positions[start : start + 32])
        yield np.random.default_rng(start).random((len(part), 8, 8, 32), np.float32)
rows = Shelf(Path(sys.argv[1]), "features", {}).rows([str(i) for i in range(count)], compute)
job = FitJob("fit", config(batch_size=64), 0, "", weights="none")
architecture = Architecture.of(job.config, "none", len(CLASSES), "float32")
examples = LabelledRows(rows, (np.arange(count) % 3).astype(np.int32))
fit = TrainingFit(job, architecture, examples, examples)
seen = sum(count for epoch in (fit.run_epoch(), fit.run_epoch()) if epoch.loss > 0)
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_a_worker_trains_on_features_far_larger_than_its_budget(tmp_path: Path) -> None:
    """Two chunks, what TensorFlow copies of them and the set's own bookkeeping; never the set."""
    row_bytes, small_mib, large_mib = 8 * 8 * 32 * 4, 64, 320
    counts = [size * 2**20 // row_bytes for size in (small_mib, large_mib)]
    peaks = []
    for count in counts:
        seen, peak = peak_of(TRAIN, tmp_path / str(count), count, BUDGET_MIB)
        assert seen == 2 * count
        peaks.append(peak)
    allowed = 4 * BUDGET_MIB * 2**20 + 1000 * counts[1]
    assert allowed < (large_mib - small_mib) * 2**20 // 2
    assert peaks[1] - peaks[0] < allowed, [f"{peak / 2**20:.0f} MiB" for peak in peaks]
