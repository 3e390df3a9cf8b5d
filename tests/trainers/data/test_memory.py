"""Memory stays flat: what 70,000 photos and rows far larger than the memory budget cost, measured in a process of its
own by the kernel's own count (``getrusage``, largest resident set, mapped files included)."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.places import ROOT
from trainers.data.duplicates import HASH_DISTANCE, close_hashes

BYTES_AN_IMAGE = 2500
"""What an image may add to the peak of ``build_manifest``: its path, hash, group and places; a thumbnail is 1,024."""
BUDGET_MIB = 8

BUILD = """
import resource, sys
from pathlib import Path
from trainers.data.manifest import DataSource, build_manifest
manifest, report = build_manifest(DataSource(sys.argv[1], (0.7, 0.15, 0.15), Path(sys.argv[1]), folds=int(sys.argv[2])))
assert not report.problems
print(len(manifest.table), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
TAKE = """
import resource, sys
import numpy as np
from pathlib import Path
from trainers.store import shelf as store
store.IN_MEMORY_BYTES = int(sys.argv[3]) * 2**20
count, side = int(sys.argv[2]), int(sys.argv[4])
def compute(positions):
    for start in range(0, len(positions), 32):
        part = positions[start : start + 32]
        yield np.stack([np.full(side, p % 251, np.uint8) for p in part])
rows = store.Shelf(Path(sys.argv[1]), "images", {}).rows([str(i) for i in range(count)], compute)
random = np.random.default_rng(0)
seen = 0
for epoch in range(2):
    for batch in np.array_split(random.permutation(count), max(count // 32, 1)):
        taken = rows.take(batch)
        assert (taken[:, 0] == batch % 251).all() and (taken[:, -1] == batch % 251).all()
        seen += len(taken)
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""

TRAIN = """
import resource, sys
sys.path.insert(0, "tests")
import numpy as np
from pathlib import Path
from tests.support.tiny_fits import CLASSES, config
from trainers.training import chunks, device
from trainers.store import shelf as store
from trainers.contract import FitJob
from trainers.training.features import LabelledRows
from trainers.networks.prefix import Architecture
from trainers.training.loop import TrainingFit
device.prepare(1, 0, "float32")
store.IN_MEMORY_BYTES = chunks.CHUNK_BYTES = int(sys.argv[3]) * 2**20
count = int(sys.argv[2])
def compute(positions):
    for start in range(0, len(positions), 32):
        part = np.array(positions[start : start + 32])
        yield np.random.default_rng(start).random((len(part), 8, 8, 32), np.float32)
rows = store.Shelf(Path(sys.argv[1]), "features", {}).rows([str(i) for i in range(count)], compute)
job = FitJob("fit", config(batch_size=64), 0, "", weights="none")
architecture = Architecture.of(job.config, "none", len(CLASSES), "float32")
examples = LabelledRows(rows, (np.arange(count) % 3).astype(np.int32))
fit = TrainingFit(job, architecture, examples, examples)
seen = sum(count for epoch in (fit.run_epoch(), fit.run_epoch()) if epoch.loss > 0)
print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak_of(code: str, *arguments: object) -> tuple[int, int]:
    """What a process that runs ``code`` counted, and its peak in bytes."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    counted, peak = done.stdout.split()[-2:]
    return int(counted), int(peak)


def write_photos(root: Path, count: int, first: int = 0) -> None:
    random = np.random.default_rng(first)
    for label in range(40):
        (root / f"class {label:02d}").mkdir(parents=True, exist_ok=True)
    for i in range(first, count):
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((64, 48), Image.Resampling.BILINEAR).save(root / f"class {i % 40:02d}" / f"{i:06d}.jpg")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_manifest_of_70000_photos_needs_little_more_memory_than_one_of_5000(tmp_path: Path) -> None:
    few, many = 5_000, 70_000
    write_photos(tmp_path / "photos", few)
    counted, low = peak_of(BUILD, tmp_path / "photos", 0)
    assert counted == few
    write_photos(tmp_path / "photos", many, few)
    counted, high = peak_of(BUILD, tmp_path / "photos", 5)
    assert counted == many
    assert high - low < BYTES_AN_IMAGE * (many - few), f"{low / 2**20:.0f} MiB, then {high / 2**20:.0f} MiB"


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


def test_close_hashes_of_70000_images_are_found_without_comparing_all() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, 70_000, np.uint64)
    planted = random.integers(0, len(hashes), (500, 2))
    for a, b in planted:
        flips = random.choice(64, random.integers(0, HASH_DISTANCE + 1), replace=False)
        hashes[b] = hashes[a] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    begin = time.process_time()
    found = {(a, int(b)) for a, close in close_hashes(hashes) for b in close}
    spent_s = time.process_time() - begin
    still = [
        (min(a, b), max(a, b))
        for a, b in planted.tolist()
        if a != b and np.bitwise_count(hashes[a] ^ hashes[b]) <= HASH_DISTANCE
    ]
    assert len(still) > 450
    assert found >= set(still)
    assert spent_s < 8  # a comparison of each with each takes 2.4 billion steps
