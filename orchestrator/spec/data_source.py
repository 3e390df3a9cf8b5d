"""Convert the ``data`` section to the ``DataSource`` that ``build_manifest`` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from orchestrator.paths import cache_folder
from orchestrator.spec.sweep import SweepSpec
from trainers.data.data_source import DataSource


def data_source(spec: SweepSpec) -> DataSource:
    """Return the file's ``data`` section as a ``DataSource``; ``tracking.kept_splits`` finds what "auto" keeps."""
    data = spec.data
    splits: tuple[float, float, float] | Literal["auto"] | None
    if isinstance(data.splits, str):
        splits = "auto" if data.splits == "auto" else None
    else:
        splits = (data.splits.train, data.splits.validation, data.splits.test)
    return DataSource(
        source=data.source,
        splits=splits,
        seed=data.seed,
        duplicates=data.duplicates,
        cache=cache_folder(),
        folds=data.folds,
        encoding="" if data.encoding == "auto" else data.encoding,
        keep_splits=Path(data.keep_splits).expanduser() if data.names_kept_splits else None,
    )
