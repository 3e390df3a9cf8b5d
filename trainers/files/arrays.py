"""Arrays in one ``.npz``, replaced as a whole."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers.files.atomic import atomic_write, make_folders

DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What NumPy, zipfile and json raise on a file that is torn, or of another make."""


def write_arrays(path: Path, arrays: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write named arrays or scalars; folders are made, an older file is replaced. ``durable``: see ``atomic_write``."""
    make_folders(path.parent)
    with atomic_write(path, durable=durable, suffix=".npz") as temporary:  # NumPy appends .npz to any other name
        np.savez(temporary, **arrays)


def write_list(
    path: Path, arrays: Sequence[np.ndarray], more: Mapping[str, Any] | None = None, *, durable: bool = True
) -> None:
    """Write arrays in order, and ``more`` by name."""
    write_arrays(path, {f"w{i:05d}": a for i, a in enumerate(arrays)} | dict(more or {}), durable=durable)


def read_list(path: Path) -> list[np.ndarray]:
    """What ``write_list`` wrote in order, without what it was given by name."""
    with np.load(path) as stored:
        return [stored[key] for key in sorted(stored.files) if key[0] == "w" and key[1:].isdigit()]
