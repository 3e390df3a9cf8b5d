"""Metrics of a trial: which way is better, and the front of several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.objectives import OBJECTIVES, front_of


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from([0.0, 1.0, 2.0])), max_size=9))
def test_every_row_is_on_the_front_or_beaten_by_one_that_is(costs: list[tuple[float, float]]) -> None:
    front = front_of(costs)
    assert bool(front) == bool(costs)
    for i, row in enumerate(costs):
        beaten = any(costs[j] != row and all(a <= b for a, b in zip(costs[j], row, strict=True)) for j in front)
        assert beaten != (i in front)


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [("val_accuracy", 0.9, 0.8), ("val_macro_f1", 0.9, 0.8), ("val_loss", 0.2, 0.3), ("images_per_s", 200.0, 100.0)],
)
def test_a_better_value_costs_less(name: str, better: float, worse: float) -> None:
    assert OBJECTIVES[name].cost(better) < OBJECTIVES[name].cost(worse)


def test_values_are_shown_with_their_units() -> None:
    shown = {name: [row.show(value) for value in (0.5, 1234.5)] for name, row in OBJECTIVES.items()}
    assert shown["images_per_s"] == ["0.5 images/s", "1,234 images/s"]
    assert [values[0] for values in shown.values()] == ["50.00 %", "50.00 %", "0.5000", "0.5 images/s"]
