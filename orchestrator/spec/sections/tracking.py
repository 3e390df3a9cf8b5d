"""The ``tracking`` section: where MLflow logs the sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from orchestrator.spec.mistakes import quoted
from orchestrator.spec.sections.base import Section


def _text_tags(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: quoted(tag) if isinstance(tag, int | float) else tag for key, tag in value.items()}


class TrackingSpec(Section):
    """Where the sweep is logged in MLflow."""

    enabled: bool = Field(default=True, description="Whether to log the sweep to MLflow.")
    uri: str | None = Field(
        default=None, description="MLflow tracking URI; null: MLFLOW_TRACKING_URI, or sqlite:///mlflow.db."
    )
    experiment: str | None = Field(
        default=None, min_length=1, description="Name of the experiment; null: the sweep's name."
    )
    tags: Annotated[dict[str, str], BeforeValidator(_text_tags)] = Field(
        default={}, description="Tags of the parent run."
    )
    model: str | None = Field(
        default=None, min_length=1, description="Name of the registered model; null: the data's name."
    )

    @field_validator("model")
    @classmethod
    def _model_name(cls, value: str | None) -> str | None:
        if value and ("/" in value or ":" in value):
            raise ValueError(f'found {quoted(value)}; the name of a registered model cannot contain "/" or ":".')
        return value
