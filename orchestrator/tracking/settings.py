"""How a sweep appears in MLflow: store, experiment, tags and the name of its registered model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.spec.sweep import SweepSpec
from trainers.files.suffixes import ARCHIVES, is_table


def model_name(spec: SweepSpec) -> str:
    """Return the registered model's name: ``tracking.model``, else a name made from the data's sources."""
    return spec.tracking.model or name_of_data(spec.data.sources) or spec.name


def name_of_data(sources: Sequence[str]) -> str:
    """Return a name made from the data's sources; "" if they have no letter that a name may hold."""
    name = "-".join(_short_name(source) for source in sources)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")


def _short_name(source: str) -> str:
    """Return a short name for a data source: its folder, its archive without the suffix, or the built-in's name."""
    if ":" in source and not os.path.exists(source):
        source = source.rpartition(":")[2]
    path = Path(source)
    if is_table(path.name):
        return path.parent.name
    return next((path.name[: -len(end)] for end in ARCHIVES if path.name.lower().endswith(end)), path.name)


def tracking_settings(spec: SweepSpec) -> TrackingSettings:
    """Return the tracking settings of ``spec``."""
    return TrackingSettings(spec.tracking.uri, spec.tracking.experiment or spec.name, dict(spec.tracking.tags))


@dataclass(frozen=True)
class TrackingSettings:
    """``uri``: None for ``MLFLOW_TRACKING_URI`` or the default database file. ``tags`` are set on the sweep's run."""

    uri: str | None = None
    experiment: str = "orch"
    tags: Mapping[str, str] = field(default_factory=dict)
