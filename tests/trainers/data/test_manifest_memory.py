"""Memory of building a manifest, and its size on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.support.memory import peak_of
from trainers.data.manifest import Manifest

BYTES_AN_IMAGE = 2500
"""What an image may add to the peak of ``build_manifest``: its path, hash, group and places; a thumbnail is 1,024."""

BUILD = """
import resource, sys
from pathlib import Path
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
manifest, report = build_manifest(DataSource(sys.argv[1], (0.7, 0.15, 0.15), Path(sys.argv[1]), folds=int(sys.argv[2])))
assert not report.problems
print(len(manifest.table), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


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


def test_a_manifest_of_100000_photos_takes_at_most_a_kilobyte_a_photo(tmp_path: Path) -> None:
    n, random = 100_000, np.random.default_rng(0)
    digests = random.bytes(32 * n).hex()
    table = pd.DataFrame(
        {
            "path": [
                f"class {i % 40:02d}/taken on 2026-11-{i % 30:02d}/{digests[9 * i : 9 * i + 36]}.jpg" for i in range(n)
            ],
            "label": [f"class {i % 40:02d}" for i in range(n)],
            "split": np.array(["train", "val", "test"])[random.integers(0, 3, n)],
            "sha256": [digests[64 * i : 64 * i + 64] for i in range(n)],
            "width": random.integers(100, 6000, n),
            "height": random.integers(100, 6000, n),
            "group": [digests[64 * i : 64 * i + 16] for i in range(n)],
            "fold": 0,
            "descriptor": [random.bytes(256) for _ in range(n)],
        }
    ).sort_values("path", ignore_index=True)
    Manifest(tmp_path, tuple(sorted(set(table["label"]))), 0, table, "photos").write(tmp_path / "manifest.parquet")
    assert 300 * n < (tmp_path / "manifest.parquet").stat().st_size <= 1024 * n
    assert len(Manifest.read(tmp_path / "manifest.parquet", files=False).table) == n
