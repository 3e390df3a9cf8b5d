"""The benchmark of a warm worker's memory: its decisions, and a few trials of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.training import worker_memory
from trainers.config import canonical
from trainers.networks.network import Architecture


def test_there_are_twenty_different_architectures():
    found = {Architecture.of(canonical(values), "none", 10) for values in worker_memory.architectures()}
    assert len(found) == len(worker_memory.architectures()) == 20


def test_each_architecture_comes_first_and_then_at_random():
    order = worker_memory.order(500, 20)
    assert len(order) == 500
    assert order[:20] == [*range(20)]
    assert min(order[20:].count(each) for each in range(20)) > 10
    assert order == worker_memory.order(500, 20)


@pytest.mark.parametrize(
    ("rss", "expected"),
    [
        ([500.0] * 10 + [1000.0] * 8, 0.0),
        ([500.0] * 10 + [1000.0] * 4 + [1090.0] * 4, 0.09),
        ([500.0] * 10 + [1000.0] * 4 + [1200.0] * 4 + [900.0] * 4, 0.2),
        ([2000.0] * 10 + [1000.0] * 4 + [950.0] * 4, -0.05),
    ],
)
def test_growth_is_counted_after_the_first_trials(rss, expected):
    assert worker_memory.growth(rss, warm=10, window=4) == pytest.approx(expected)


def test_too_few_trials_say_nothing():
    assert math.isnan(worker_memory.growth([1000.0] * 60))


@pytest.mark.slow
def test_a_few_trials_are_measured(tmp_path: Path):
    rows = list(worker_memory.run(3, tmp_path))
    assert [row["architecture"] for row in rows] == [0, 1, 2]
    assert all(100 < float(row["rss_mb"]) < 10_000 for row in rows)
