"""Base class of every section of a sweep's file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

LARGEST_SEED = 2**31 - 1
"""Maximum seed."""


class Section(BaseModel):
    """Frozen section of a file; rejects unknown fields, values of the wrong type, and infinite or NaN numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
