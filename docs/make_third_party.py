"""Writes THIRD_PARTY.md from the installed packages' metadata: ``make docs``. --check compares, as ``make check``.

Covers what orch and its extras for users install, directly or not.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "THIRD_PARTY.md"
EXTRAS = ("cmaes", "convert", "heic", "onnx", "postgres")
"""The extras that a user installs; ``gp`` brings torch, whose own notices list what it holds."""
INTRODUCTION = """# Third-party software

orch is licensed under the [Apache License 2.0](LICENSE). It copies no code of others. It installs the packages
below, each under its own licence; versions are those of `constraints.txt`. The extra `gp` adds PyTorch
(BSD-3-Clause) and what it needs.

Pretrained weights are not part of orch. `orch weights list` and [docs/backbones.md](docs/backbones.md) name the
licence of each. Test fixtures under `tests/fixtures` hold numbers computed with torchvision (BSD-3-Clause) and
timm (Apache-2.0), no code.

The wheels of `pillow-heif` (extra `heic` alone) bundle libheif and libde265 (LGPL-3.0) and x265 (GPL-2.0).

Written by `make docs`; `make check` compares.
"""
FROM_THEIR_FILES = {"huey": "MIT", "namex": "Apache-2.0", "skops": "MIT"}
"""Packages whose metadata names no licence: what the licence file in the package says."""
SHORT = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(name: str, extras: tuple[str, ...] = ()) -> set[str]:
    """What the distribution ``name`` asks for on this machine with ``extras``."""
    found = set()
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = [{"extra": extra} for extra in extras] + [{"extra": ""}]
        if requirement.marker is None or any(requirement.marker.evaluate(one) for one in wanted):
            found.add(canonical(requirement.name))
    return found


def closure() -> list[str]:
    """Every distribution that comes along, sorted; those that are not installed here are left out."""
    seen: set[str] = {"psycopg-binary"}  # of psycopg[binary]
    waiting = required("orch", EXTRAS)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        try:
            more = required(name)
        except metadata.PackageNotFoundError:
            continue
        seen.add(name)
        waiting |= more - seen
    return sorted(seen - {"orch"})


def licence(name: str) -> str:
    """An SPDX expression if the package gives one, else what its classifiers or its licence field say."""
    fields = metadata.metadata(name)
    if expression := fields.get("License-Expression"):
        return expression
    classes = [c.split(" :: ")[-1] for c in fields.get_all("Classifier") or [] if c.startswith("License :: ")]
    classes = [SHORT.get(c, c) for c in classes if c != "OSI Approved"]
    given = (fields.get("License") or "").strip().partition("\n")[0]
    return ", ".join(classes) or SHORT.get(given, given)[:60] or FROM_THEIR_FILES.get(name, "see the package")


def page() -> str:
    lines = ["| package | version | licence |", "|---|---|---|"]
    for name in closure():
        fields = metadata.metadata(name)
        lines.append(f"| {fields['Name']} | {fields['Version']} | {licence(name).replace('|', '/')} |")
    return INTRODUCTION + "\n" + "\n".join(lines) + "\n"


def main() -> None:
    if "--check" in sys.argv[1:]:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
            sys.exit(f"{PAGE.name} is out of date: run make docs.")
        return
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
