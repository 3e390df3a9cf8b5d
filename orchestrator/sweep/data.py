"""The stage ``data``: read, check and split the photos."""

from __future__ import annotations

from orchestrator.errors import DataError
from orchestrator.ledger.kept import FILES, checksums
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.spec.data_source import data_source
from orchestrator.sweep.class_counts import class_count_lines
from orchestrator.sweep.context import SweepContext
from trainers.data.build import build_manifest
from trainers.data.manifest import Manifest
from trainers.errors import TrainerError
from trainers.files.atomic import atomic_write_text


def prepare_data(sweep: SweepContext) -> Manifest:
    """Return the manifest of the sweep, made on the first call. Raises DataError."""
    kept = sweep.kept()
    damage = kept.state(sweep.paths.manifest)
    if sweep.paths.manifest.is_file() and not damage.is_damage:
        return Manifest.read(sweep.paths.manifest)
    source = data_source(sweep.spec)
    sweep.record(EventKind.STAGE, stage=Stage.DATA, state="BEGUN", payload={"sources": list(sweep.spec.data.sources)})
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
        "warnings": list(report.warnings),
        FILES: checksums(sweep.paths, [sweep.paths.manifest, sweep.paths.data_report]),
    }
    sweep.record(EventKind.STAGE, stage=Stage.DATA, state="ENDED", payload=payload)
    return manifest


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
