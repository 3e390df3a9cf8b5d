"""The stage ``data``: read, check and split the photos."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from orchestrator.errors import DataError
from orchestrator.ledger.kept import FILES, checksums
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.spec.data_source import data_source
from orchestrator.spec.sections.data import AUTO
from orchestrator.sweep.class_counts import class_count_lines
from orchestrator.sweep.context import SweepContext
from orchestrator.tracking.kept_splits import record_manifest, source_of
from trainers.data.build import build_manifest
from trainers.data.data_source import DataSource
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write_text

KEPT = "keep_splits"
"""Key of the payload of the stage's beginning: the sweep or the manifest whose splits are kept; "" for none."""


def prepare_data(sweep: SweepContext) -> Manifest:
    """Return the manifest of the sweep, made on the first call. Raises DataError."""
    kept = sweep.kept()
    damage = kept.state(sweep.paths.manifest)
    if sweep.paths.manifest.is_file() and not damage.is_damage:
        return Manifest.read(sweep.paths.manifest)
    source = _source(sweep)
    begun = {
        "sources": list(sweep.spec.data.sources),
        KEPT: str(source.keep_splits.resolve()) if source.keep_splits else "",
    }
    sweep.record(EventKind.STAGE, stage=Stage.DATA, state="BEGUN", payload=begun)
    try:
        manifest, report = build_manifest(source)
    except TrainerError as error:
        raise DataError(str(error)) from error
    if damage.is_damage:
        _require_same_data(sweep, manifest)
    atomic_write_text(sweep.paths.data_report, "\n".join(report.lines()) + "\n")
    manifest.write(sweep.paths.manifest)
    payload = {
        "fingerprint": manifest.fingerprint,
        "classes": list(manifest.classes),
        "images": manifest.table["split"].value_counts().to_dict(),
        "folds": manifest.folds,
        "to_choose_on": images_to_choose_on(manifest),
        "class_counts": class_count_lines(manifest, sweep.spec),
        "splits": list(report.kept),
        "warnings": list(report.warnings),
        FILES: checksums(sweep.paths, [sweep.paths.manifest, sweep.paths.data_report]),
    }
    ended = sweep.record(EventKind.STAGE, stage=Stage.DATA, state="ENDED", payload=payload)
    record_manifest(sweep.paths, sweep.spec, ended.time_s)
    return manifest


def _source(sweep: SweepContext) -> DataSource:
    """Return the source of the photos; a manifest that is made again keeps the splits that the first one kept."""
    events = [event for event in sweep.ledger.events() if event.stage == Stage.DATA]
    begun = [event.data.get(KEPT) for event in events if event.state == "BEGUN"]
    if not any(event.state == "ENDED" for event in events):
        return source_of(sweep.spec, sweep.paths.root)
    source, kept = data_source(sweep.spec), begun[-1] if begun else None
    if kept is None:
        return source
    by_default = sweep.spec.data.keep_splits == AUTO
    return dataclasses.replace(source, keep_splits=Path(kept) if kept else None, kept_by_default=by_default)


def _require_same_data(sweep: SweepContext, manifest: Manifest) -> None:
    """Raise DataError unless ``manifest``, made again because the file was damaged, is of the sweep's data."""
    ended = [e for e in sweep.ledger.events() if e.stage == Stage.DATA and e.state == "ENDED"]
    before = ended[-1].data.get("fingerprint") if ended else None
    path = sweep.paths.manifest
    if manifest.fingerprint != before:
        raise DataError(
            f"{path} is damaged, and the photos of today give another one: they have changed since the sweep began. "
            f"Restore {path} from a copy, or the photos; or start another sweep with --out DIR."
        )
    sweep.warn(f"{path} was damaged or missing and was made again from the same photos")


def images_to_choose_on(manifest: Manifest) -> int:
    """Count the images that a trial is validated on: the validation split, or all folds."""
    return sum(fold_sizes(manifest)) if manifest.folds else int((manifest.table["split"] == "validation").sum())


def fold_sizes(manifest: Manifest) -> tuple[int, ...]:
    """Count the images of fold 1, 2, ...; () without folds."""
    return tuple(int((manifest.table["fold"] == fold).sum()) for fold in range(1, manifest.folds + 1))


def data_identity(manifest: Manifest) -> str:
    """Return what trial ids hash of the data: images, labels and splits, and the seed of their copies."""
    return f"{manifest.fingerprint}-{manifest.seed}"
