"""Tests mirror the packages: a module's tests have its name, in the folder of its package's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.places import ROOT

PACKAGES = ("orchestrator", "trainers", "dashboards")
EXCEPTIONS = {
    "orchestrator/__main__.py": "tests/orchestrator/cli/test_exits.py",
    "orchestrator/cli/help.py": "tests/docs/test_generated_pages.py",
    "orchestrator/ledger/stages.py": "constants alone",
    "orchestrator/spec/sections/base.py": "settings of pydantic alone",
    "trainers/augment.py": "tests/trainers/test_own_imports.py",
    "trainers/errors.py": "tests/orchestrator/cli/test_exits.py",
    "trainers/export/export.py": "tests/trainers/export/test_write.py",
}
"""Module without a test file of its name -> the file that tests it, or why it needs no tests."""


def modules(root: Path) -> list[Path]:
    """Every module of the packages below ``root``, relative to it, without each ``__init__``."""
    paths = [path for package in PACKAGES for path in (root / package).rglob("*.py") if path.name != "__init__.py"]
    return sorted(path.relative_to(root) for path in paths)


def mirror(module: Path) -> Path:
    """Where the tests of ``module`` belong."""
    return "tests" / module.with_name(f"test_{module.name}")


def untested(root: Path) -> list[str]:
    """Modules below ``root`` without a test file of their name."""
    return [module.as_posix() for module in modules(root) if not (root / mirror(module)).is_file()]


def test_every_module_has_tests_of_its_name() -> None:
    assert len(modules(ROOT)) > 150
    assert untested(ROOT) == sorted(EXCEPTIONS)


@pytest.mark.parametrize("module", EXCEPTIONS)
def test_what_an_exception_names_is_there(module: str) -> None:
    reason = EXCEPTIONS[module]
    assert not reason.startswith("tests/") or (ROOT / reason).is_file()


def test_a_module_without_tests_is_found(tmp_path: Path) -> None:
    for name in ("orchestrator/a.py", "orchestrator/b/a.py", "trainers/__init__.py", "tests/orchestrator/test_a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert untested(tmp_path) == ["orchestrator/b/a.py"]
