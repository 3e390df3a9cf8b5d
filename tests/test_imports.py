"""Names are imported from the module that defines them; folders stay small; dashboards import little."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGES = ("orchestrator", "trainers", "dashboards", "benchmarks")
MAX_MODULES = 15
"""Maximum modules in a folder, ``__init__`` not counted."""
DASHBOARDS_MAY_IMPORT = (
    *("dashboards", "trainers.files", "trainers.images"),
    *("orchestrator.api", "orchestrator.ledger", "orchestrator.evaluation"),
)


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse_modules(root: Path) -> dict[str, ast.Module]:
    """Parse every module below ``root``'s ``PACKAGES``; dotted name -> syntax tree."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return {module_name(path, root): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def defined_names(tree: ast.Module) -> set[str]:
    """Return the names that a module's own statements bind, imports excluded."""
    found: set[str] = set()
    statements: list[ast.stmt] = list(tree.body)
    while statements:
        node = statements.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.TypeAlias if hasattr(ast, "TypeAlias") else ()):
            found.add(node.name.id)
        elif isinstance(node, ast.If | ast.Try | ast.For | ast.With):
            statements += [child for child in ast.walk(node) if isinstance(child, ast.stmt) and child is not node]
        else:
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found


def borrowed_names(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Yield each import of a name from a module that does not define it."""
    defined = {module: defined_names(tree) for module, tree in trees.items()}
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in trees:
                for alias in node.names:
                    if alias.name not in defined[node.module] and f"{node.module}.{alias.name}" not in trees:
                        yield f"{module}:{node.lineno} imports {alias.name} from {node.module}"


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    return parse_modules(ROOT)


def test_names_are_imported_from_the_module_that_defines_them(trees: dict[str, ast.Module]) -> None:
    assert list(borrowed_names(trees)) == []


def test_no_folder_has_too_many_modules() -> None:
    paths = [path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    counts = Counter(path.parent.as_posix() for path in paths if path.name != "__init__.py")
    assert {folder: n for folder, n in counts.items() if n > MAX_MODULES} == {}


def test_dashboards_import_only_tables_files_and_photos(trees: dict[str, ast.Module]) -> None:
    found = {
        imported
        for module, tree in trees.items()
        if module.partition(".")[0] == "dashboards"
        for node in ast.walk(tree)
        for imported in ([node.module] if isinstance(node, ast.ImportFrom) else names_of(node))
        if imported and imported.partition(".")[0] in PACKAGES
    }
    assert {name for name in found if not f"{name}.".startswith(tuple(f"{p}." for p in DASHBOARDS_MAY_IMPORT))} == set()


def names_of(node: ast.AST) -> list[str]:
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_a_borrowed_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "orchestrator" / "a.py").write_text("VALUE = 1\nif VALUE:\n    OTHER = 2\n")
    (tmp_path / "orchestrator" / "b.py").write_text("from orchestrator.a import OTHER, VALUE\n")
    (tmp_path / "orchestrator" / "c.py").write_text("def late():\n    from orchestrator.b import VALUE\n")
    assert list(borrowed_names(parse_modules(tmp_path))) == ["orchestrator.c:2 imports VALUE from orchestrator.b"]
