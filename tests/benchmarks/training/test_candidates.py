"""Candidates are compared on photos that no test part holds."""

import numpy as np
import pandas as pd

from benchmarks.training.candidates import CANDIDATES, design_manifest, report
from benchmarks.training.five_splits import disjoint_splits
from trainers.data.manifest import Manifest


def test_candidates_are_validated_on_photos_that_are_never_tested(tmp_path):
    from PIL import Image

    draw = np.random.default_rng(0)
    rows = []
    for label in ("a", "b"):
        for number in range(40):
            path = tmp_path / f"{label}{number}.png"
            Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
            rows.append((path.name, label))
    table = pd.DataFrame(rows, columns=["path", "label"])
    for number, splits in enumerate(disjoint_splits(table["label"].to_numpy(), np.arange(len(table)))):
        table.assign(split=splits).to_csv(tmp_path / f"split-{number}.csv", index=False)
    found = Manifest.read(design_manifest(tmp_path, tmp_path / "cache")).table.set_index("path")["split"]
    tested = set()
    for number in range(5):
        part = pd.read_csv(tmp_path / f"split-{number}.csv")
        tested |= set(part["path"][part["split"] == "test"])
    assert set(found.index[found == "train"]) == tested
    assert set(found) == {"train", "validation"}
    assert found.value_counts().to_dict() == {"train": 60, "validation": 20}


def test_a_line_for_each_candidate_with_the_mean_over_its_seeds():
    name = next(iter(CANDIDATES))
    rows = [{"name": name, "seed": str(s), "val_accuracy": f"0.9{s}", "seconds": "10"} for s in (0, 2)]
    assert [line.split() for line in report(rows)] == [[*name.split(), "0.9100", "10", "s,", "seeds", "0,", "2"]]
