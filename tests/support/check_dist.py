"""Check that sdist and wheel hold every module and data file; the last step of ``make dist``."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

from tests.support.places import ROOT

PACKAGES = ("orchestrator", "trainers", "dashboards", "search_spaces")


def expected() -> set[str]:
    """Every file of the packages, relative to the checkout."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if "__pycache__" not in path.parts}


def names_in(archive: Path) -> set[str]:
    """Names in a wheel, or in an sdist without its top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return set(wheel.namelist())
    with tarfile.open(archive) as sdist:
        return {name.partition("/")[2] for name in sdist.getnames()}


def main() -> None:
    archives = sorted(path for path in (ROOT / "dist").iterdir() if path.suffix in (".whl", ".gz"))
    if len(archives) != 2:
        sys.exit(f"dist/ holds {len(archives)} archives instead of an sdist and a wheel: run make dist.")
    for archive in archives:
        if missing := sorted(expected() - names_in(archive)):
            sys.exit(f"{archive.name} lacks {', '.join(missing)}.")
        print(f"{archive.name}: all {len(expected())} files of the packages")


if __name__ == "__main__":
    main()
