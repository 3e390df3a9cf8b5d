"""Files of the user's that repeat facts of sweeps, so that they outlive a sweep's folder: one JSON object a line.

Lines are appended in one write and never changed, so that several processes may write. Without a home, or where a file
cannot be written, nothing is kept and nothing fails.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.paths import data_folder
from trainers.files.atomic import make_folders


def append(name: str, facts: Mapping[str, Any]) -> None:
    """Append a line to the file called ``name``, written through to the disk."""
    file = _file(name)
    if file is None:
        return
    with contextlib.suppress(OSError):
        make_folders(file.parent)
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, (json.dumps(facts) + "\n").encode())  # one write: lines do not mix
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def lines(name: str) -> list[str]:
    """Read the lines of the file called ``name``; [] without one. One that was cut off may be no JSON."""
    file = _file(name)
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace").splitlines() if file else []
    return []


def _file(name: str) -> Path | None:
    folder = data_folder()
    return folder / name if folder else None
