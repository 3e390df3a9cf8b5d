"""Rows of the store, and names of trials: what 42b062d computed is found by the same data and configuration."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.since_42b062d import RECORDED, recorded, unpack
from trainers.config import canonical, trial_id
from trainers.contract import FitJob
from trainers.data.manifest import Manifest
from trainers.networks.prefix import Prefix
from trainers.networks.prefix_index import features_description, known_images, stored_dtype
from trainers.store.shelf import Shelf
from trainers.training.examples import example_sets, row_keys
from trainers.training.prefill import fill

RECORD = recorded("store.json")
ROWS = RECORD["rows"]
CLASSES = ("glass", "metal", "paper")


@pytest.fixture(autouse=True)
def _own_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's module ``own_rows``, word for word as it was; kept as text, so that no program rewrites it."""
    (tmp_path / "own_rows.py").write_text((RECORDED / "own_rows.txt").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_rows", raising=False)


def manifest(folds: int = 0) -> Manifest:
    """Eighteen photos that only have names."""
    rows = []
    for number in range(18):
        sha256 = hashlib.sha256(str(number).encode()).hexdigest()
        split = "train" if number < 9 else "validation" if number < 15 else "test"
        fold = number % folds + 1 if folds and number < 15 else 0
        label = CLASSES[min(number % 5, 2)]
        rows.append((f"{number:02d}.png", label, "train" if fold else split, sha256, 8, 8, sha256[:16], fold))
    columns = ["path", "label", "split", "sha256", "width", "height", "group", "fold"]
    return Manifest(Path("photos"), CLASSES, 7, pd.DataFrame(rows, columns=columns))


def named(rows: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=[row["name"] for row in rows])


def test_the_record_is_whole() -> None:
    assert len(ROWS) == 22
    assert len(RECORD["trial_ids"]) == 54


@named(ROWS)
def test_a_configuration_reads_the_same_shelf(row: dict[str, Any]) -> None:
    config, cache = canonical(row["values"]), Path("cache")
    precision = row["job"].get("precision", "float32")
    prefix = Prefix(config.prefix_key("none", precision))
    if prefix.is_identity:
        shelf = known_images(cache, prefix.key.image_size, config.view).shelf(cache)
        description = shelf_description = {"size": prefix.key.image_size, "view": config.view}
    else:
        dtype = stored_dtype(prefix.row_dtype, row["job"].get("store_dtype", "float32"))
        description = shelf_description = features_description(prefix.description(), config.view, dtype)
        shelf = Shelf(cache, "features", shelf_description)
    assert description == row["description"]
    assert shelf.folder == cache / row["folder"]


@named(ROWS)
def test_a_configuration_reads_the_same_keys(row: dict[str, Any]) -> None:
    config, folds = canonical(row["values"]), row["job"].get("folds", 0)
    splits = tuple(row["job"].get("train_splits", ["train"]))
    pairs = example_sets(FitJob("id", config, 0, "m", train_splits=splits, folds=folds), manifest(folds))
    keys = [[None if part is None else row_keys(part, config.recipe) for part in pair] for pair in pairs]
    assert [len(part or ()) for part in keys[0]] == row["rows"]
    assert [None if part is None else part.view for part in pairs[0]] == row["views"]
    train = keys[0][0] or []
    assert (train[0], train[-1]) == (row["first"], row["last"])
    assert hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16] == row["keys"]


def test_the_same_data_has_the_same_fingerprint() -> None:
    assert {str(folds): manifest(folds).fingerprint for folds in (0, 3)} == RECORD["fingerprints"]


def test_a_configuration_has_the_same_trial_id() -> None:
    found = [
        trial_id(canonical(each["values"]), each["seed"], manifest(each["folds"]).fingerprint)
        for each in RECORD["trial_ids"]
    ]
    assert found == [each["id"] for each in RECORD["trial_ids"]]
    assert len({json.dumps(each["values"]) for each in RECORD["trial_ids"]}) > 20


def test_no_row_of_a_cache_of_then_is_computed_again(tmp_path: Path) -> None:
    folder = unpack(tmp_path, "rows") / "rows"
    then = Manifest.read(folder / "manifest.parquet")
    here = Manifest(folder / "photos", then.classes, then.seed, then.table)
    here.write(folder / "here.parquet")
    jobs = json.loads((folder / "jobs.json").read_text())
    cache = str(folder / "cache")
    before = {path: path.read_bytes() for path in (folder / "cache").rglob("*.npy")}
    assert len(jobs) == 4
    assert len(before) > 10
    for name, recorded_job in jobs.items():
        config = canonical(recorded_job["values"])
        job = FitJob("now", config, 0, str(folder / "here.parquet"), weights="none", cache=cache, precision="float32")
        done = fill(job.to_dict())
        assert {key: done[key] for key in ("images", "features", "bytes")} == dict.fromkeys(
            ("images", "features", "bytes"), 0
        ), name
        assert done["stored"]
        assert done["what"] == recorded_job["first"]["what"]
    assert {path: path.read_bytes() for path in (folder / "cache").rglob("*.npy")} == before
