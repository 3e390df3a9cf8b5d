"""The page docs/statistics.md from the simulated cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def write_page(rows: Sequence[dict[str, Any]]) -> None:
    """Fill the table of cells."""
