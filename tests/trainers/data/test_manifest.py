"""From files on a disk to a manifest and a report, or to a sentence that says what to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.support.photos_on_disk import (
    folder_of,
    source,
)
from trainers.data.build import build_manifest
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError


def test_split_keeps_the_classes_and_refuses_unknown_names(tmp_path: Path) -> None:
    manifest, _ = build_manifest(source(folder_of(tmp_path / "p", a=10, b=10)))
    part = manifest.split("train", "validation")
    assert (part.classes, part.seed) == (("a", "b"), 0)
    assert len(part.table) == (manifest.table["split"] != "test").sum() < 20
    assert list(part.table.index) == list(range(len(part.table)))
    assert part.fingerprint != manifest.fingerprint
    with pytest.raises(TrainerError, match="there is no split 'val'; known are train, validation, test"):
        manifest.split("val")


def test_manifest_survives_the_disk(tmp_path: Path) -> None:
    manifest, _ = build_manifest(source(folder_of(tmp_path / "p", a=5, b=5), seed=7))
    path = tmp_path / "deep" / "manifest.parquet"
    manifest.write(path)
    again = Manifest.read(path)
    pd.testing.assert_frame_equal(again.table, manifest.table)
    assert (again.root, again.classes, again.seed) == (manifest.root, ("a", "b"), 7)
    assert again.fingerprint == manifest.fingerprint
    assert [p.name for p in path.parent.iterdir()] == ["manifest.parquet"]
    assert len(pd.read_parquet(path)) == 10


def test_reading_something_else_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"there is no manifest .*none\.parquet"):
        Manifest.read(tmp_path / "none.parquet")
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(TrainerError, match=r"other\.parquet is a Parquet file but not a manifest of orch"):
        Manifest.read(tmp_path / "other.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(TrainerError, match=r"torn\.parquet cannot be read as a manifest: "):
        Manifest.read(tmp_path / "torn.parquet")


def test_folds_survive_the_disk_and_older_manifests_have_none(tmp_path: Path) -> None:
    manifest, _ = build_manifest(source(folder_of(tmp_path / "p", a=9, b=9), folds=3))
    manifest.write(tmp_path / "m.parquet")
    again = Manifest.read(tmp_path / "m.parquet")
    pd.testing.assert_frame_equal(again.table, manifest.table)
    assert (again.folds, again.fingerprint, again.fold(2).folds) == (3, manifest.fingerprint, 3)
    plain, _ = build_manifest(source(tmp_path / "p"))
    old = dataclasses.replace(plain, table=plain.table.drop(columns="fold"))
    assert (old.folds, old.fingerprint) == (0, plain.fingerprint)
    old.write(tmp_path / "old.parquet")
    read = Manifest.read(tmp_path / "old.parquet")
    assert (read.folds, set(read.table["fold"]), read.fingerprint) == (0, {0}, plain.fingerprint)


def test_fingerprint_of_a_manifest_without_folds_is_as_it_always_was(tmp_path: Path) -> None:
    rows = [(f"{i:064x}", "ab"[i % 2], ("train", "validation", "test")[i % 3]) for i in range(12)]
    table = pd.DataFrame(rows, columns=["sha256", "label", "split"]).assign(
        path=[f"{i}.png" for i in range(12)], fold=0
    )
    manifest = Manifest(tmp_path, ("a", "b"), 0, table)
    expected = hashlib.sha256(json.dumps([["a", "b"], sorted(map(list, rows))]).encode()).hexdigest()[:16]
    assert manifest.fingerprint == expected
