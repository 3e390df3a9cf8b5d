"""Find a sweep's file: the user's, or a shipped one."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from orchestrator.errors import SpecError
from trainers.files.lookup import obstacle
from trainers.wording import did_you_mean

SHIPPED = "search_spaces"
"""Package of the shipped files; also their folder in the repository."""


def shipped_spaces() -> dict[str, Path]:
    """Return name -> file of every shipped sweep."""
    folder = Path(str(resources.files(SHIPPED)))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def names_sweep(path_or_name: str) -> bool:
    """Return whether the argument is the path of a YAML file, or names a shipped sweep and no file or folder here."""
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml"):
        return not os.path.isdir(path)
    return not os.path.exists(path) and _shipped_name(path_or_name) is not None


def _shipped_name(path_or_name: str) -> str | None:
    """Return the NAME of the shipped sweep NAME, NAME.yaml or search_spaces/NAME.yaml; None for anything else."""
    path = Path(path_or_name)
    has_form = path.parent in (Path(), Path(SHIPPED)) and path.suffix in ("", ".yaml")
    return path.stem if has_form and path.stem in shipped_spaces() else None


def find_file(path_or_name: str) -> tuple[Path, tuple[str, ...]]:
    """Return the file, and a line to print if a path refers to a shipped one. The user's files take precedence.

    Raises SpecError if there is neither.
    """
    path, shipped = Path(path_or_name), shipped_spaces()
    if why := obstacle(path):
        raise SpecError(f"{path_or_name} cannot be read: {why}.")
    if path.is_file():
        return path, ()
    if path_or_name in shipped:
        return shipped[path_or_name], ()
    if path.is_dir():
        raise SpecError(f"{path_or_name} is a folder; name the YAML file in it.")
    if (name := _shipped_name(path_or_name)) is not None:
        note = f"file     there is no {path_or_name} here; using the shipped {name}, {shipped[name]}"
        return shipped[name], (note,)
    hint = did_you_mean(path.stem, shipped)
    raise SpecError(f"there is no file {path_or_name}{hint} Shipped sweeps are {', '.join(shipped)}.")
