"""settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.spec.sweep import SweepSpec
from trainers.files.suffixes import ARCHIVES, is_table

if TYPE_CHECKING:
    pass


def model_name(spec: SweepSpec) -> str:
    """The registered model's name: ``tracking.model``, else the data's name."""
    if spec.tracking.model:
        return spec.tracking.model
    name = "-".join(_short_name(source) for source in spec.data.sources)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-") or spec.name


def _short_name(source: str) -> str:
    """What a person would call the data: its folder, its archive without the ending, or the built-in's name."""
    if ":" in source and not Path(source).exists():
        source = source.rpartition(":")[2]
    path = Path(source)
    if is_table(path.name):
        return path.parent.name
    return next((path.name[: -len(end)] for end in ARCHIVES if path.name.lower().endswith(end)), path.name)


def tracking_settings(spec: SweepSpec) -> TrackingSettings:
    """Where MLflow is and what the sweep is called there."""
    return TrackingSettings(spec.tracking.uri, spec.tracking.experiment or spec.name, dict(spec.tracking.tags))


@dataclass(frozen=True)
class TrackingSettings:
    """``uri``: None for ``MLFLOW_TRACKING_URI`` or a database file here. ``tags`` go on the sweep's run."""

    uri: str | None = None
    experiment: str = "orch"
    tags: Mapping[str, str] = field(default_factory=dict)
