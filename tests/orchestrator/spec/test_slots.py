"""How many trials run at once, and what each has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.spec.slots import Resources, Slots, at_once, gpus_of, slots_of
from tests.support.sweep_costs import spec_of


@pytest.mark.parametrize(
    ("resources", "cpus", "gpus", "expected"),
    [
        ({}, 2, 0, Slots(2, 1.0, 0.0)),
        ({"cpus": 4}, 10, 0, Slots(2, 4.0, 0.0)),
        ({"cpus": 4}, 2, 0, Slots(1, 4.0, 0.0)),
        ({}, 32, 4, Slots(4, 1.0, 1.0)),
        ({"gpus": 0.5}, 32, 2, Slots(4, 1.0, 0.5)),
        ({"gpus": 2}, 32, 5, Slots(2, 1.0, 2.0)),
        ({"gpus": 0}, 32, 5, Slots(32, 1.0, 0.0)),
    ],
)
def test_slots_of_a_file(resources: dict[str, Any], cpus: float, gpus: float, expected: Slots) -> None:
    assert slots_of(spec_of(None, resources=resources), Resources(cpus, gpus)) == expected


def test_concurrent_limits_the_trials_at_once() -> None:
    assert slots_of(spec_of(None, budget={"concurrent": 3}), Resources(32, 0)).workers == 3
    assert slots_of(spec_of(None, budget={"concurrent": 99}), Resources(32, 0)).workers == 32


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        ("auto", 0, 0.0),
        ("auto", 0.5, 0.0),
        ("auto", 1, 1.0),
        ("auto", 8, 1.0),
        (0, 8, 0.0),
        (0.25, 0, 0.25),
        (2, 8, 2.0),
    ],
)
def test_gpus_of_one_trial(wanted: float | str, there: float, expected: float) -> None:
    assert gpus_of(wanted, there) == expected


@pytest.mark.parametrize(
    ("there", "each", "most", "expected"),
    [
        (Resources(10, 0), Resources(0.1, 0), None, 100),  # and not 99
        (Resources(16, 2), Resources(1, 0.4), None, 4),  # a share lies on one device
        (Resources(16, 1), Resources(1, 0.1), None, 10),
        (Resources(16, 7), Resources(1, 2), None, 3),
        (Resources(0, 8), Resources(0, 1), None, 8),
        (Resources(16, 8), Resources(1, 1), 5, 5),
        (Resources(1, 0), Resources(4, 0), None, 1),
        (Resources(16, 0), Resources(1, 1), None, 1),
        (Resources(16, 0), Resources(0, 0), None, 1),
    ],
)
def test_trials_at_once(there: Resources, each: Resources, most: int | None, expected: int) -> None:
    assert at_once(there, each, most) == expected


@given(st.integers(1, 64), st.integers(0, 16), st.integers(1, 8), st.sampled_from([0, 0.125, 0.3, 0.5, 1, 2]))
def test_there_is_room_for_all_or_for_one(cpus: int, gpus: int, own_cpus: int, own_gpus: float) -> None:
    found = at_once(Resources(cpus, gpus), Resources(own_cpus, own_gpus))
    assert found == 1 or (found * own_cpus <= cpus and found * own_gpus <= gpus)
