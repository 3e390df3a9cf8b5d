"""The benchmark of samplers and schedulers: its planted truths, its statistics, and a small run of each kind."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from benchmarks.common.planted import OBJECTIVES
from benchmarks.common.planted_curves import accuracy, open_fit
from benchmarks.common.quality_page import (
    SAMPLER_EXPECTATIONS,
    SCHEDULER_EXPECTATIONS,
    PageFacts,
    SamplerRow,
    SchedulerRow,
    page,
    sampler_table,
    wilson,
)
from benchmarks.search_quality import (
    BEST_END,
    CURVES,
    PLANTED,
    available,
    curves,
    interval_of_mean,
    main,
    run_search,
)
from orchestrator.spec.sections.budget import SAMPLERS, SCHEDULERS
from orchestrator.spec.space.checks import sampler_refusal
from orchestrator.spec.space.domains import Uniform
from trainers.config import TrialConfig, canonical
from trainers.contract import FitJob

BY_NAME = {objective.name: objective for objective in OBJECTIVES}


# Planted optima


@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_in_the_space_lies_above_the_planted_best(name):
    objective, random = BY_NAME[name], np.random.default_rng(1)

    def pick(_, domain):
        if isinstance(domain, Uniform):
            low, high = (math.log(e) if domain.log else e for e in (domain.low, domain.high))
            drawn = random.uniform(low, high)
            return math.exp(drawn) if domain.log else drawn
        return domain.values()[random.integers(len(domain.values()))]

    values = [objective.value(canonical(objective.space.resolve(pick))) for _ in range(2000)]
    assert len(values) == 2000
    assert max(values) <= objective.best + 1e-12
    assert min(values) < objective.best - 0.05  # there is something to find


def test_the_planted_best_is_there():
    bowl = {"dropout": 0.18, "smoothing": 0.21, "learning_rate": 1e-5 * 1e4**0.62, "weight_decay": 1e-6 * 1e5**0.45}
    assert BY_NAME["bowl"].value(canonical(bowl)) == pytest.approx(BY_NAME["bowl"].best)
    branch = {"backbone": "mobilenet_1.0", "unfrozen_layers": 5, "head": "arcface", "margin": 0.32, "dropout": 0.18}
    config = canonical({**branch, "learning_rate": 1e-4 * 1e2**0.62})
    assert BY_NAME["conditional"].value(config) == pytest.approx(BY_NAME["conditional"].best)
    assert BY_NAME["conditional"].space.contains(config.to_dict()) is None
    lists = BY_NAME["lists"]
    every = [lists.value(canonical(values)) for values in lists.space.grid()]
    assert len(every) == 625
    assert max(every) == pytest.approx(lists.best)


def test_every_sampler_is_measured_on_a_space_that_it_can_take():
    measured = {sampler for objective in OBJECTIVES for sampler in objective.samplers} | {"random"}
    assert measured == SAMPLERS.keys()
    refused = [
        (objective.name, sampler)
        for objective in OBJECTIVES
        for sampler in ("random", *objective.samplers)
        if sampler_refusal(sampler, objective.space)
    ]
    assert refused == []
    assert {(o.name, sampler) for o in OBJECTIVES for sampler in o.samplers} == SAMPLER_EXPECTATIONS.keys()
    assert {(kind, name) for kind in CURVES for name in SCHEDULERS} == SCHEDULER_EXPECTATIONS.keys()


def test_noise_is_a_function_of_configuration_and_seed():
    objective, config = BY_NAME["bowl"], TrialConfig(dropout=0.3, smoothing=0.1, weight_decay=0.001)
    first = objective.measured(config, 1)
    assert first == objective.measured(config, 1)
    others = [objective.measured(config, seed) - objective.value(config) for seed in range(300)]
    assert np.std(others) == pytest.approx(0.005, rel=0.15)


# Samplers through the real proposer


@pytest.mark.parametrize(("name", "sampler"), [("bowl", "tpe"), ("bowl", "cmaes"), ("conditional", "tpe")])
def test_samplers_that_learn_beat_random(name, sampler):
    if sampler not in available([sampler]):
        pytest.skip(f"the package of {sampler} is not installed")
    objective, seeds = BY_NAME[name], range(5)
    random = [run_search(objective, "random", 30, seed) for seed in seeds]
    learning = [run_search(objective, sampler, 30, seed) for seed in seeds]
    assert min(random + learning) >= 0
    assert np.mean(learning) < 0.8 * np.mean(random)


def test_a_grid_that_is_gone_through_holds_the_best():
    quiet = dataclasses.replace(BY_NAME["lists"], noise=0.0)
    assert run_search(quiet, "grid", 625, 3) == pytest.approx(0)
    assert run_search(quiet, "grid", 20, 3) > 0


# Curves


@pytest.mark.parametrize("kind", CURVES)
def test_curves_hold_one_planted_best(kind):
    found = curves(kind, 40, 27, seed=5)
    assert found == curves(kind, 40, 27, seed=5)
    assert found != curves(kind, 40, 27, seed=6)
    assert len({name for name, _ in found}) == 40
    ends = {name: accuracy(config, config.epochs) for name, config in found}
    assert max(ends, key=lambda name: ends[name]) == PLANTED
    early = {name: accuracy(config, 3) for name, config in found}
    ahead = sum(value > early[PLANTED] for value in early.values())
    assert (ahead == 0) == (kind == "orderly")


def test_a_planted_fit_goes_on_where_it_was_saved(tmp_path):
    job = FitJob("t", TrialConfig(dropout=1 - BEST_END, smoothing=0.15, epochs=9), 0, "m")
    fit = open_fit(job)
    rows = [fit.run_epoch() for _ in range(3)]
    fit.save(tmp_path)
    again = open_fit(job)
    again.restore(tmp_path)
    assert open_fit(job).run_epoch().val_accuracy == rows[0].val_accuracy
    assert again.run_epoch().val_accuracy == fit.run_epoch().val_accuracy
    assert rows[0].val_accuracy < rows[2].val_accuracy < BEST_END


# Figures and page


def test_intervals():
    # Student's t for 4 degrees of freedom is 2.776; the standard deviation of 1 to 5 is 1.581
    assert interval_of_mean(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx((3 - 1.963, 3 + 1.963), abs=0.001)
    assert interval_of_mean(np.array([2.0, 2.0])) == (2.0, 2.0)
    assert wilson(8, 10) == pytest.approx((0.4901624715, 0.9433178485), abs=1e-7)
    assert wilson(5, 5)[1] == 1.0


@pytest.mark.parametrize(
    ("interval", "verdict", "agrees"),
    [
        ((0.001, 0.02), "better", "yes"),
        ((-0.01, 0.02), "no difference seen", "**no**"),
        ((-0.02, -0.001), "worse", "**no**"),
    ],
)
def test_verdicts_come_from_the_interval(interval, verdict, agrees):
    row = SamplerRow("bowl", "tpe", 30, 0.01, (0.005, 0.015), sum(interval) / 2, interval, 0.7)
    assert row.verdict == verdict
    line = sampler_table([row]).splitlines()[-1]
    assert line.startswith("| bowl | tpe | 30 | 1.00 (0.50 to 1.50) | ")
    assert line.endswith(f"| {verdict} | better (Bergstra et al. 2011) | {agrees} |")


def test_the_page_says_what_was_not_as_expected():
    rows = [
        SamplerRow("bowl", "random", 30, 0.02, (0.01, 0.03)),
        SamplerRow("bowl", "tpe", 30, 0.02, (0.01, 0.03), 0.0, (-0.01, 0.01), 0.5),
    ]
    curves_row = SchedulerRow("orderly", "asha", 4, 5, 0.35, 0.004)
    facts = PageFacts("2026-01-02", "python -m x", {"bowl": "a bowl"}, 20, 5, 27, 9, ["gp"])
    text = page(rows, [curves_row], facts)
    assert "Not as expected: tpe on bowl (no difference seen)." in text
    assert "Not run, because their packages are not installed: gp." in text
    assert "| orderly | asha | 4 of 5 (38 to 96 %) | 35 % | 0.40 | keeps the best" in text
    assert "2026-01-02" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith(("|", "- "))) <= 125


@pytest.mark.slow
def test_the_whole_benchmark_in_small_writes_its_page(tmp_path):
    out = tmp_path / "page.md"
    small = ["--seeds", "2", "--trials", "14", "--curve-seeds", "1", "--curves", "9", "--epochs", "6", "--out"]
    assert main([*small, str(out)]) == 0
    text = out.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    samplers = len(OBJECTIVES) + sum(len(available(objective.samplers)) for objective in OBJECTIVES)
    assert len(lines) == 2 + samplers + 2 * len(SCHEDULERS) + 2  # two headers, two rules
    assert "| orderly | none | 1 of 1 (21 to 100 %) | 100 % | 0.00 |" in text
    assert f"python -m benchmarks.search_quality {' '.join(small)}" in text
