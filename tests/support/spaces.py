"""Spaces in Python, and the mistakes of a search section."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.spec.mistakes import Mistakes
from orchestrator.spec.space.domains import Choice, Uniform
from orchestrator.spec.space.section import read_search
from orchestrator.spec.space.space import Case

MARGINS = Case(Uniform(0.1, 0.5), (("head", ("cosface", "arcface")),))
HEADS = Case(Choice(("softmax", "cosface", "arcface")))
DEPTHS = {
    "learning_rate": [
        Case(Uniform(1e-3, 1e-2, log=True), (("unfrozen_layers", (0,)),)),
        Case(Uniform(1e-4, 1e-3, log=True)),
    ],
    "unfrozen_layers": [Case(Choice((0, 13, "all")))],
}


def mistakes(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Each mistake in the section: its dotted place and its text."""
    with pytest.raises(Mistakes) as error:
        read_search(raw)
    return [(".".join(map(str, mistake.keys)), mistake.text) for mistake in error.value.mistakes]
