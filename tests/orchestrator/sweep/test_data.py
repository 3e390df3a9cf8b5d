"""The stage data on real photos."""

from __future__ import annotations

from collections.abc import Callable

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
