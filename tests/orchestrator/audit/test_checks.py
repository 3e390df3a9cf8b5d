"""One comparison: numbers in every digit, anything else exactly."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.audit.checks import DIFFERENT, EQUAL, compare


@pytest.mark.parametrize(
    ("recorded", "computed", "state"),
    [
        (0.95, 0.95, EQUAL),
        (0.95, 0.95 + 1e-12, EQUAL),
        (0.95, 0.95 + 1e-6, DIFFERENT),
        (float("nan"), float("nan"), EQUAL),
        (float("nan"), 0.5, DIFFERENT),
        (1.0, 1, EQUAL),
        ("a", "a", EQUAL),
        (3, 4, DIFFERENT),
        (["a", "b"], ["b", "a"], DIFFERENT),
        (True, 1, DIFFERENT),
    ],
)
def test_two_values(recorded: Any, computed: Any, state: str) -> None:
    assert compare("part", "what", recorded, computed).state == state


def test_a_difference_shows_every_digit() -> None:
    check = compare("leaderboard", "a, whole: accuracy", 0.9192200557103064, 0.9)
    assert check.sentence() == "leaderboard: a, whole: accuracy: recorded 0.9192200557103064, computed 0.9"
    assert compare("p", "w", "x" * 300, "y").recorded == "x" * 197 + "..."
