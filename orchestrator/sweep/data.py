"""data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import DataError
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.spec.data_source import data_source
from orchestrator.sweep.class_counts import class_count_lines
from orchestrator.sweep.context import SweepContext
from trainers.data.manifest import Manifest, build_manifest
from trainers.errors import TrainerError

if TYPE_CHECKING:
    pass


def prepare_data(sweep: SweepContext) -> Manifest:
    """The manifest of the sweep, made on the first call. Raises DataError."""
    if sweep.paths.manifest.is_file():
        return Manifest.read(sweep.paths.manifest)
    source = data_source(sweep.spec)
    sweep.tell(f"data     reading {', '.join(sweep.spec.data.sources)}")
    try:
        manifest, report = build_manifest(source)
    except TrainerError as error:
        raise DataError(str(error)) from error
    sweep.paths.data_report.write_text("\n".join(report.lines()) + "\n")
    manifest.write(sweep.paths.manifest)
    sizes = manifest.table["split"].value_counts().to_dict()
    sweep.record(
        EventKind.STAGE,
        stage=Stage.DATA,
        state="ENDED",
        payload={"fingerprint": manifest.fingerprint, "classes": list(manifest.classes), "images": sizes},
    )
    sweep.tell(f"data     {_split_words(manifest)}")
    for i, line in enumerate(class_count_lines(manifest, sweep.spec)):
        sweep.tell(f"{'' if i else 'classes':8s} {line}")
    for warning in report.warnings:
        sweep.tell(f"warning  {warning}")
    return manifest


def _split_words(manifest: Manifest) -> str:
    sizes = manifest.table["split"].value_counts().to_dict()
    if manifest.folds:
        use = f"{images_to_choose_on(manifest)} in {manifest.folds} folds to train and choose on"
    else:
        use = f"{sizes.get('train', 0)} to train on, {sizes.get('validation', 0)} to choose on"
    return (
        f"{len(manifest.table)} images of {len(manifest.classes)} classes: {use}, {sizes.get('test', 0)} to judge on "
        "at the end"
    )


def images_to_choose_on(manifest: Manifest) -> int:
    """Images that a trial's validation figures are taken over: those of the validation split, or of all folds."""
    return sum(fold_sizes(manifest)) if manifest.folds else int((manifest.table["split"] == "validation").sum())


def fold_sizes(manifest: Manifest) -> tuple[int, ...]:
    """How many images lie in fold 1, 2, ...; () without folds."""
    return tuple(int((manifest.table["fold"] == fold).sum()) for fold in range(1, manifest.folds + 1))


def data_identity(manifest: Manifest) -> str:
    """What a trial's id takes of the data: the images with their labels and splits, and the seed of their copies."""
    return f"{manifest.fingerprint}-{manifest.seed}"
