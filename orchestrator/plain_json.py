"""Values as JSON that every parser takes: the JSON standard has no NaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any


def json_ready(value: Any) -> Any:
    """Convert ``value`` to what JSON holds: NaN and infinities become None, enums their values, the rest text."""
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, Enum):
        return json_ready(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if hasattr(value, "item"):  # a numpy scalar
        return json_ready(value.item())
    if isinstance(value, int | float):
        return value if math.isfinite(value) else None
    return str(value)
