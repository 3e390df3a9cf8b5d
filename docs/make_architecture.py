"""Writes docs/architecture.svg and the package table of docs/architecture.md from the code's imports: ``make docs``.

With --check it compares, as ``make check`` does.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "architecture.svg"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- packages: written by docs/make_architecture.py -->", "<!-- end -->"
TOPS = ("orchestrator", "trainers", "dashboards")
WIDTH, BOX_HEIGHT, ROW, GAP, MARGIN = 960, 40, 78, 18, 24
"""Pixels: of the picture, of a box, from row to row, between boxes, around everything."""
COLOURS = {"orchestrator": "#dbeafe", "trainers": "#dcfce7", "dashboards": "#fef3c7"}

Arrows = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module; a package's ``__init__`` under the package's name."""
    found = {}
    for top in TOPS:
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def package_of(module: str, known: Mapping[str, Path]) -> str:
    """``orchestrator.search`` for everything in that package; a module at the top stands for itself.

    ``dashboards`` is one package.
    """
    top = module.partition(".")[0]
    second = ".".join(module.split(".")[:2])
    return second if second in known and top != "dashboards" else top


def imports(path: Path) -> set[str]:
    """Dotted names of what a file imports, those inside functions included and those for type checkers alone not."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(inner) for node in ast.walk(tree) if _for_types(node) for inner in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def package_arrows(known: Mapping[str, Path]) -> Arrows:
    """Package -> the packages it imports."""
    arrows: Arrows = {package_of(module, known): set() for module in known}
    for module, path in known.items():
        here = package_of(module, known)
        arrows[here] |= {package_of(name, known) for name in imports(path) if name in known} - {here}
    shown = {name for name, targets in arrows.items() if targets or "." in name} - {"orchestrator", "trainers"}
    return {name: arrows[name] & shown for name in shown}


def reduced(arrows: Arrows) -> Arrows:
    """The arrows that no longer way implies (transitive reduction)."""
    below = {name: _reachable(name, arrows) for name in arrows}
    return {
        name: {to for to in targets if not any(to in below[other] for other in targets - {to})}
        for name, targets in arrows.items()
    }


def _reachable(name: str, arrows: Arrows) -> set[str]:
    found: set[str] = set()
    waiting = list(arrows[name])
    while waiting:
        here = waiting.pop()
        if here not in found:
            found.add(here)
            waiting += arrows[here]
    return found


def rows(arrows: Arrows) -> list[list[str]]:
    """Packages by height: what imports nothing is at the bottom, everything else one row above what it imports."""
    heights: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in heights:
            heights[name] = 1 + max((height(to) for to in arrows[name]), default=-1)
        return heights[name]

    top = max(height(name) for name in arrows)
    return [sorted(name for name in arrows if heights[name] == top - row) for row in range(top + 1)]


def picture(arrows: Arrows, sizes: Mapping[str, int]) -> str:
    """The packages as boxes, arrows downwards to what they import."""
    places: dict[str, tuple[float, float, float]] = {}
    parts: list[str] = []
    placed = rows(arrows)
    for number, row in enumerate(placed):
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        width = min(width, 210)
        left = (WIDTH - width * len(row) - GAP * (len(row) - 1)) / 2
        for i, name in enumerate(row):
            places[name] = (left + i * (width + GAP), MARGIN + number * ROW, width)
    for name, targets in sorted(reduced(arrows).items()):
        for to in sorted(targets):
            parts.append(_arrow(places[name], places[to]))
    for name, (x, y, width) in sorted(places.items()):
        top, _, rest = name.partition(".")
        parts.append(
            f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6" '
            f'fill="{COLOURS[top]}" stroke="#475569"/>'
            f'<text x="{x + width / 2:.0f}" y="{y + 17:.0f}">{rest or top}</text>'
            f'<text x="{x + width / 2:.0f}" y="{y + 32:.0f}" class="small">{_subtitle(top, sizes[name])}</text>'
        )
    height = 2 * MARGIN + (len(placed) - 1) * ROW + BOX_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="13" text-anchor="middle">\n'
        "<style>.small{font-size:10px;fill:#475569}</style>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#94a3b8"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _subtitle(top: str, size: int) -> str:
    return f"{top}, {size} modules" if size > 1 else top


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float]) -> str:
    x1, y1 = start[0] + start[2] / 2, start[1] + BOX_HEIGHT
    x2, y2 = end[0] + end[2] / 2, end[1]
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}" '
        'fill="none" stroke="#94a3b8" marker-end="url(#tip)"/>'
    )


def table(known: Mapping[str, Path], arrows: Arrows, sizes: Mapping[str, int]) -> str:
    """Markdown: each package, the first line of its docstring, its modules and what it imports."""
    lines = ["| package | what it is for | modules | imports |", "|---|---|--:|---|"]
    for name in [name for row in rows(arrows) for name in row]:
        docstring = ast.get_docstring(ast.parse(known[name].read_text(encoding="utf-8"))) or ""
        purpose = " ".join(docstring.partition("\n\n")[0].split())
        below = ", ".join(f"`{to}`" for to in sorted(arrows[name])) or "nothing of ours"
        link = f"../{name.replace('.', '/')}" + ("" if known[name].name == "__init__.py" else ".py")
        lines.append(f"| [`{name}`]({link}) | {purpose} | {sizes[name]} | {below} |")
    return "\n".join(lines)


def module_counts(known: Mapping[str, Path]) -> dict[str, int]:
    """Modules of each package, ``__init__`` not counted."""
    counts = {package_of(module, known): 0 for module in known}
    for module, path in known.items():
        counts[package_of(module, known)] += path.name != "__init__.py"
    return counts


def written() -> Iterable[tuple[Path, str]]:
    """Each file and what it should hold."""
    known = modules()
    arrows, sizes = package_arrows(known), module_counts(known)
    yield PICTURE, picture(arrows, sizes)
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    yield PAGE, f"{before}{BEGIN}\n{table(known, arrows, sizes)}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    stale = [path for path, text in written() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(f"{', '.join(path.name for path in stale)} out of date: run make docs.")
        return
    for path, text in written():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
