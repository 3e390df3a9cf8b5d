"""The domains of a field: what each holds, and the defaults."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.spec.space.domains import DEFAULTS, Choice, Constant, Domain, IntRange, Uniform
from trainers.config import TrialConfig


def test_defaults_are_those_of_a_trial_without_epochs() -> None:
    assert {**DEFAULTS, "epochs": TrialConfig().epochs} == TrialConfig().to_dict()


@pytest.mark.parametrize(
    ("domain", "inside", "outside", "values", "words"),
    [
        (Constant("all"), ["all"], [0], ("all",), '"all"'),
        (Constant(None), [None], [0], (None,), "null"),
        (Choice((0, 13, "all")), [0, "all"], [1], (0, 13, "all"), 'one of 0, 13, "all"'),
        (Uniform(0.1, 0.5), [0.1, 0.3, 0.5], [0.09, 0.51, "0.3"], None, "a number from 0.1 to 0.5"),
        (
            IntRange(16, 48, 16),
            [16, 32.0, 48],
            [17, 64, 32.5],
            (16, 32, 48),
            "a whole number from 16 to 48 in steps of 16",
        ),
        (IntRange(1, 3), [1, 2, 3], [0, 4, "2"], (1, 2, 3), "a whole number from 1 to 3"),
    ],
)
def test_what_a_domain_holds(
    domain: Domain, inside: list[Any], outside: list[Any], values: tuple[Any, ...] | None, words: str
) -> None:
    assert [domain.holds(value) for value in inside] == [True] * len(inside)
    assert [domain.holds(value) for value in outside] == [False] * len(outside)
    found = domain.values()
    assert (found if found is None else tuple(found)) == values
    assert str(domain) == words
