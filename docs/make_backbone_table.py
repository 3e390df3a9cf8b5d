"""Writes the table of docs/backbones.md from the code: ``make docs``. With --check it compares, as ``make check``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trainers.backbones import BACKBONES, Backbone

PAGE = ROOT / "docs" / "backbones.md"
MARKED = re.compile(r"(<!-- table backbones -->\n).*?(<!-- end -->)", re.DOTALL)
HEADER = ("backbone", "layers", "native px", "from px", "output stride", "input", "ImageNet weights", "licence")


def cells(row: Backbone) -> tuple[str, ...]:
    """One line of the table."""
    weights = row.source or "none: starts at random"
    return (
        f"`{row.name}`",
        str(row.layers),
        str(row.native_size),
        str(row.smallest_size),
        " or ".join(map(str, row.output_strides)),
        row.preprocessing,
        weights if row.imagenet or not row.files else f"{weights}; no download",
        row.licence or "-",
    )


def table() -> str:
    lines = [HEADER, tuple("---" for _ in HEADER), *map(cells, BACKBONES.values())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> int:
    page = PAGE.read_text(encoding="utf-8")
    filled, count = MARKED.subn(lambda match: match[1] + table() + match[2], page)
    if count != 1:
        print(f"{PAGE.name} needs one <!-- table backbones --> ... <!-- end -->, not {count}.", file=sys.stderr)
        return 1
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(filled, encoding="utf-8")
        return 0
    if page == filled:
        return 0
    print(f"{PAGE.relative_to(ROOT)} differs from the code; run `make docs`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
