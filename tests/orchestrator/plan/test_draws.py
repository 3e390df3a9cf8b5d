"""Which configurations a sweep may come to: what the file names, and draws of the space."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.plan.draws import MANY, many_of, named, sample, trials_of
from orchestrator.spec.sections.budget import SamplerSpec
from orchestrator.spec.space.domains import Choice, Constant, IntRange, Uniform
from orchestrator.spec.sweep import SweepSpec
from tests.support.sweep_costs import spec_of

LISTED = {
    "backbone": "mobilenet_1.0",
    "configurations": [
        {"name": "one", "dropout": 0.2},
        {"name": "two", "unfrozen_layers": 5, "batch_size": 16},
    ],
}
CONDITIONAL = {
    "backbone": "mobilenet_1.0",
    "head": ["softmax", "normface"],
    "scale": {"value": 16, "when": {"head": "normface"}},
    "hidden": {"value": 64, "when": {"head": "softmax"}},
    "learning_rate": [
        {"value": 0.01, "when": {"head": "softmax"}},
        {"loguniform": [0.001, 0.01]},
    ],
}


def searching(first: list[dict], search: dict | None = None, trials: int = 4) -> SweepSpec:
    return spec_of(search or CONDITIONAL, budget={"trials": trials, "epochs": 2, "scheduler": "none", "first": first})


def test_named_configurations_are_the_space() -> None:
    spec = spec_of(LISTED, budget={"trials": 2, "epochs": 3, "scheduler": "none"})
    assert [(config.unfrozen_layers, config.epochs) for config in named(spec)] == [(0, 3), (5, 3)]
    assert many_of(spec) == trials_of(spec, random.Random(0)) == named(spec)


def test_those_to_be_tried_first_come_first() -> None:
    spec = searching([{"learning_rate": 0.0035, "head": "normface"}])
    (first,) = named(spec)
    assert (first.learning_rate, first.head, first.scale, first.hidden) == (0.0035, "normface", 16, 0)
    assert trials_of(spec, random.Random(0))[0] == many_of(spec)[0] == first


def test_what_is_left_out_of_them_is_what_its_condition_makes_it() -> None:
    (first,) = named(searching([{"head": "softmax"}]))
    assert (first.learning_rate, first.scale, first.hidden) == (0.01, None, 64)


def test_no_trial_comes_twice_and_a_small_space_ends() -> None:
    search = {"backbone": "mobilenet_1.0", "unfrozen_layers": [0, 5], "head": ["softmax", "arcface"]}
    spec = searching([{"unfrozen_layers": 5, "head": "arcface"}], search, trials=50)
    trials = trials_of(spec, random.Random(0))
    assert len(trials) == len(set(trials)) == 4
    assert len(trials_of(searching([], search, trials=3), random.Random(0))) == 3


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_a_space_that_is_no_larger_than_the_budget_is_tried_whole(sampler: str) -> None:
    search = {"backbone": "mobilenet_0.25", "dropout": [0, 0.1, 0.2, 0.3, 0.4], "hidden": [0, 64, 128, 256]}
    budget = {"trials": 40, "epochs": 3, "scheduler": "none", "sampler": sampler}
    spec = spec_of({**search, "smoothing": [0, 0.1]}, budget=budget)
    drawn = [trials_of(spec, random.Random(seed), lambda config: config.hidden) for seed in range(5)]
    assert {len(set(each)) for each in drawn} == {40}
    assert drawn[0] != drawn[1]


def test_many_are_always_the_same_ones_and_come_as_often_as_they_do() -> None:
    spec = searching([], {"backbone": "mobilenet_1.0", "unfrozen_layers": [0, 5, 13]})
    counts = Counter(config.unfrozen_layers for config in many_of(spec))
    assert many_of(spec) == many_of(spec)
    assert sum(counts.values()) == MANY
    assert set(counts) == {0, 5, 13}
    assert min(counts.values()) > MANY / 5


@pytest.mark.parametrize("seed", range(3))
def test_each_seed_draws_its_own_trials(seed: int) -> None:
    spec = searching([], {"backbone": "mobilenet_1.0", "dropout": {"uniform": [0, 0.5]}})
    assert trials_of(spec, random.Random(seed)) == trials_of(spec, random.Random(seed))
    assert trials_of(spec, random.Random(seed)) != trials_of(spec, random.Random(seed + 1))


@given(st.integers(0, 2**30))
def test_samples_lie_in_their_domain(seed: int) -> None:
    draw, seen = random.Random(seed), 0
    domains = [Constant(3), Choice(("a", "b")), Uniform(1e-4, 1.0, log=True), Uniform(-1.0, 1.0)]
    for domain in [*domains, IntRange(1, 100, log=True), IntRange(2, 20, 3)]:
        assert domain.holds(sample(domain, draw))
        seen += 1
    assert seen == 6


def test_a_sampler_that_has_learnt_prefers_what_trains_longest() -> None:
    search = {"backbone": "mobilenet_1.0", "unfrozen_layers": {"int": [0, 50]}, "dropout": {"uniform": [0, 0.5]}}
    spec = searching([], search, trials=400)
    budget = spec.budget.model_copy(update={"sampler": SamplerSpec(name="tpe", startup_trials=200)})

    def depths(spec: SweepSpec, part: slice) -> float:
        trials = trials_of(spec, random.Random(0), lambda config: float(config.unfrozen_layers))
        assert len(trials) == 400
        return sum(float(config.unfrozen_layers) for config in trials[part]) / 200

    learning = spec.model_copy(update={"budget": budget})
    assert depths(learning, slice(0, 200)) == pytest.approx(25, abs=4)
    # The greatest of three drawn evenly from 0 to 50 lies at 37.5 on average.
    assert depths(learning, slice(200, 400)) == pytest.approx(37.5, abs=4)
    by_chance = budget.model_copy(update={"sampler": SamplerSpec(name="random")})
    assert depths(spec.model_copy(update={"budget": by_chance}), slice(200, 400)) == pytest.approx(25, abs=4)


def test_samples_of_a_continuous_space_are_canonical() -> None:
    """Else a plan would take a trial on stored features for one that draws its copies anew."""
    search = {
        **{"backbone": "mobilenet_1.0", "unfrozen_layers": [5, "all"], "multiplier": [1, 2], "draws": "fresh"},
        **{"learning_rate": {"loguniform": [0.001, 0.01]}},
    }
    spec = spec_of(search, budget={"trials": 40, "epochs": 2, "scheduler": "none"})
    found = trials_of(spec, random.Random(0))
    assert {(config.draws, config.unfrozen_layers, config.multiplier) for config in found} == {
        *(("fixed", 5, 1.0), ("fixed", 5, 2.0)),
        *(("fixed", "all", 1.0), ("fresh", "all", 2.0)),
    }
