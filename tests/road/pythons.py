"""The Pythons that this machine has: pyenv's, and ``python3.N`` on PATH."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

MINORS = (11, 12, 13)
"""The minor versions that pyproject.toml names."""


def others(wanted: str = "") -> dict[str, str]:
    """Version -> program, of each one that is not this Python's own; with ``wanted`` ("3.12 3.13") of those alone.

    Raises LookupError where one that is wanted is not here.
    """
    own = f"3.{sys.version_info.minor}"
    versions = wanted.replace(",", " ").split() or [f"3.{minor}" for minor in MINORS if f"3.{minor}" != own]
    found = {version: program for version in versions if (program := _program(version))}
    if wanted and (lacking := [version for version in versions if version not in found]):
        raise LookupError(f"there is no Python {', '.join(lacking)} here")
    return found


def _program(version: str) -> str:
    """A program of that version which starts and can make environments; "" where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [str(folder / "bin" / "python") for folder in sorted(pyenv.glob(f"{version}.*"), reverse=True)]
    for program in (*candidates, shutil.which(f"python{version}") or ""):
        code = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
        asked = [program, "-c", code]
        if program and subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() == version:
            return program
    return ""
