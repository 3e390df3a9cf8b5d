"""Convert the ``data`` section to the ``DataSource`` that ``build_manifest`` takes."""

from __future__ import annotations

from pathlib import Path

from orchestrator.paths import cache_folder
from orchestrator.spec.sweep import SweepSpec
from trainers.data.manifest import DataSource


def data_source(spec: SweepSpec) -> DataSource:
    """Return the file's ``data`` section as a ``DataSource``."""
    data = spec.data
    splits = None if data.splits == "own" else (data.splits.train, data.splits.validation, data.splits.test)
    return DataSource(
        source=data.source,
        splits=splits,
        seed=data.seed,
        duplicates=data.duplicates,
        cache=cache_folder(),
        folds=data.folds,
        keep_splits=Path(data.keep_splits).expanduser() if data.keep_splits else None,
    )
