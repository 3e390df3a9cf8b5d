"""The stage data on real photos."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import DataError
from orchestrator.sweep import data
from orchestrator.sweep.context import SweepContext
from tests.support.printed_lines import PrintedLines
from trainers.data.manifest import Manifest

Open = Callable[..., SweepContext]


def test_folds_are_reported_and_the_class_counts_come_before_training(open_sweep: Open, printed: PrintedLines) -> None:
    sweep = open_sweep(folds=4)
    manifest = data.prepare_data(sweep)
    assert manifest.folds == 4
    sizes = data.fold_sizes(manifest)
    assert len(sizes) == 4
    assert sum(sizes) == data.images_to_choose_on(manifest) == int((manifest.table["split"] == "train").sum())
    assert printed.lines[1].startswith(
        f"data     1797 images of 10 classes: {sum(sizes)} in 4 folds to train and choose on, "
    )
    assert printed.lines[2].startswith("classes  ")
    assert Manifest.read(sweep.paths.manifest).folds == 4


def test_one_split_is_reported_as_ever(open_sweep: Open, printed: PrintedLines) -> None:
    manifest = data.prepare_data(open_sweep())
    sizes = manifest.table["split"].value_counts()
    assert printed.lines[1] == (
        f"data     1797 images of 10 classes: {sizes['train']} to train on, {sizes['validation']} to choose on, "
        f"{sizes['test']} to judge on at the end"
    )
    assert data.fold_sizes(manifest) == ()
    assert data.images_to_choose_on(manifest) == sizes["validation"]


def test_a_damaged_manifest_is_made_again_from_the_same_photos(open_sweep: Open, printed: PrintedLines) -> None:
    sweep = open_sweep()
    before = data.prepare_data(sweep).fingerprint
    content = bytearray(sweep.paths.manifest.read_bytes())
    content[len(content) // 2] ^= 1
    sweep.paths.manifest.write_bytes(bytes(content))
    assert data.prepare_data(sweep).fingerprint == before
    assert any("manifest.parquet was damaged or missing and was made again" in line for line in printed.lines)
    lines = len(printed.lines)
    assert data.prepare_data(sweep).fingerprint == before
    assert len(printed.lines) == lines


def test_a_damaged_manifest_of_photos_that_have_changed_is_a_sentence(
    open_sweep: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = open_sweep()
    data.prepare_data(sweep)
    sweep.paths.manifest.unlink()
    build = data.build_manifest

    def other(source: Any) -> Any:
        manifest, report = build(source)
        return dataclasses.replace(manifest, table=manifest.table.iloc[1:]), report

    monkeypatch.setattr(data, "build_manifest", other)
    with pytest.raises(DataError, match=r"manifest.parquet is damaged, and the photos of today give another one"):
        data.prepare_data(sweep)
    assert not sweep.paths.manifest.exists()
