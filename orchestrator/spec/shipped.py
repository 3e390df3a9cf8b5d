"""Find a sweep's file: one of the user's own, or one that is shipped."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from orchestrator.errors import SpecError
from trainers.wording import did_you_mean

SHIPPED = "search_spaces"
"""The package of the shipped files, and the folder by which the repository knows them."""


def shipped_spaces() -> dict[str, Path]:
    """Name -> file of the sweeps that come with the package."""
    folder = Path(str(resources.files(SHIPPED)))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def names_sweep(path_or_name: str) -> bool:
    """Whether it is a YAML file, or stands for a shipped one and for nothing else here."""
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml"):
        return not path.is_dir()
    return not path.exists() and _shipped_name(path_or_name) is not None


def _shipped_name(path_or_name: str) -> str | None:
    """The shipped sweep that NAME, NAME.yaml or search_spaces/NAME.yaml stands for; None for anything else."""
    path = Path(path_or_name)
    stands = path.parent in (Path(), Path(SHIPPED)) and path.suffix in ("", ".yaml")
    return path.stem if stands and path.stem in shipped_spaces() else None


def find_file(path_or_name: str) -> tuple[Path, tuple[str, ...]]:
    """The file, and a line where it is a shipped one under a path. A file of the person's own comes first."""
    path, shipped = Path(path_or_name), shipped_spaces()
    if path.is_file():
        return path, ()
    if path_or_name in shipped:
        return shipped[path_or_name], ()
    if path.is_dir():
        raise SpecError(f"{path_or_name} is a folder; name the YAML file in it.")
    if (name := _shipped_name(path_or_name)) is not None:
        note = f"file     there is no {path_or_name} here; this is the shipped {name}, {shipped[name]}"
        return shipped[name], (note,)
    hint = did_you_mean(path.stem, shipped)
    raise SpecError(f"there is no file {path_or_name}{hint} Shipped sweeps are {', '.join(shipped)}.")
