"""Texts of sweeps' files, and the mistakes in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec.practice import PRACTICE
from orchestrator.spec.space.domains import Constant
from orchestrator.spec.space.space import Case
from orchestrator.spec.sweep import SweepSpec
from orchestrator.spec.yaml_file.document import Document

Load = Callable[..., SweepSpec]
"""YAML text, ``--set`` texts and environment variables -> the spec."""


def sweep(search: str = "dropout: {uniform: [0, 0.2]}", budget: str = "", rest: str = "") -> str:
    """A file whose search begins at 3:9 and whose budget begins at 4:9; ``rest`` starts in line 5."""
    return (
        "name: demo\ndata: {source: 'builtin:digits'}\n"
        f"search: {{{search}}}\nbudget: {{trials: 5, epochs: 3{budget}}}\n{rest}"
    )


def practice() -> dict[str, list[Case]]:
    """What the space of a new sweep holds besides its file's fields."""
    return {name: [Case(Constant(value))] for name, value in PRACTICE.items()}


def mistakes(load: Load, text: str, *overrides: str, **environ: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        load(text, *overrides, **environ)
    return str(error.value).splitlines()


def sentences(document: Document) -> list[str]:
    """The mistakes that reading ``document`` found, in the order of its file."""
    return str(document.error([])).splitlines()
