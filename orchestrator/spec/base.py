"""What every section of a sweep's file has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

LARGEST_SEED = 2**31 - 1


class Section(BaseModel):
    """A part of the file as a frozen value: unknown fields and loose types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
