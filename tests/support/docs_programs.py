"""The programs below ``docs/`` as modules."""

from __future__ import annotations

import importlib.util
from types import ModuleType

from tests.support.places import ROOT


def load_program(name: str) -> ModuleType:
    """Load ``docs/NAME.py`` without running it as a program."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
