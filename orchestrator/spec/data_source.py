"""data_source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.paths import cache_folder
from orchestrator.spec.sweep import SweepSpec
from trainers.data.manifest import DataSource

if TYPE_CHECKING:
    pass


def data_source(spec: SweepSpec) -> DataSource:
    """What the file says of the photos, for ``build_manifest``."""
    data = spec.data
    splits = None if data.splits == "own" else (data.splits.train, data.splits.validation, data.splits.test)
    return DataSource(
        source=data.source,
        splits=splits,
        seed=data.seed,
        duplicates=data.duplicates,
        cache=cache_folder(),
        folds=data.folds,
    )
