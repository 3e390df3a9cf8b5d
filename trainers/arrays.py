"""Arrays in one ``.npz``, written beside and then renamed, so that a reader sees all of it or nothing."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What NumPy, zipfile and json raise on a file that is torn, or of another make."""


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Named arrays or scalars; folders are made, an older file is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez(beside, **arrays)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_list(path: Path, arrays: Sequence[np.ndarray], **more: Any) -> None:
    """Arrays in order, and ``more`` by name."""
    write_arrays(path, {f"w{i:05d}": a for i, a in enumerate(arrays)} | more)


def read_list(path: Path) -> list[np.ndarray]:
    """What ``write_list`` wrote in order, without what it was given by name."""
    with np.load(path) as stored:
        return [stored[key] for key in sorted(stored.files) if key[0] == "w" and key[1:].isdigit()]
