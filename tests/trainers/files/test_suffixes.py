"""One table of suffixes: nothing else in the code lists them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.support.places import ROOT
from trainers.files.suffixes import ARCHIVES, PHOTOS, TABLES, is_archive, is_photo, is_table


def test_case_does_not_count() -> None:
    assert all(is_photo(f"x{suffix.upper()}") for suffix in PHOTOS)
    assert all(is_table(Path(f"x{suffix.upper()}")) for suffix in TABLES)
    assert all(is_archive(f"x{suffix.upper()}") for suffix in ARCHIVES)
    assert not any((is_photo("x.txt"), is_table("x.txt"), is_archive("x.7z")))


def test_no_other_module_lists_them() -> None:
    seen = 0
    for path in sorted([*(ROOT / "orchestrator").rglob("*.py"), *(ROOT / "trainers").rglob("*.py")]):
        seen += 1
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Tuple | ast.List | ast.Set) and path.name != "suffixes.py":
                texts = {element.value for element in node.elts if isinstance(element, ast.Constant)}
                assert len(texts & {*PHOTOS, *TABLES, *ARCHIVES}) < 2, f"{path}: {texts}"
    assert seen > 100


def test_the_table_imports_nothing_heavy() -> None:
    program = "import sys, trainers.files.suffixes; print({'pandas', 'PIL', 'numpy'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
