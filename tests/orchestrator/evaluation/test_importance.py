"""Findings of a search: rare where there is no effect, found where there is one, right about its size."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.evaluation.importance import Finding, Parameter, find_effects
from orchestrator.ledger.state import TrialState
from orchestrator.search.sampling import OptunaSampler, SamplerSettings
from orchestrator.spec.space.parameters import searched_parameters
from orchestrator.spec.space.section import read_search
from trainers.contract import FitJob

LEVELS = {"backbone": 5, "unfrozen_layers": 4, "head": 5, "recipe": 4, "smoothing": 3, "pooling": 2, "balance": 3}
TRIALS = 40


def a_sweep(draw: np.random.Generator, planted: str = "") -> tuple[list[Parameter], np.ndarray]:
    """Random trials whose accuracies have a noise of 1 point; one level of ``planted`` is worth 2 points."""
    everywhere = np.ones(TRIALS, bool)
    columns = {name: draw.integers(0, levels, TRIALS) for name, levels in LEVELS.items()}
    accuracy = 0.85 + 0.01 * draw.standard_normal(TRIALS)
    if planted:
        accuracy += 0.02 * (columns[planted] == draw.integers(LEVELS[planted]))
    found = [Parameter(n, tuple(c.tolist()), everywhere, tuple(range(LEVELS[n]))) for n, c in columns.items()]
    rates, dropout = 10 ** draw.uniform(-5, -2, TRIALS), draw.uniform(0, 0.6, TRIALS)
    found.append(Parameter("learning_rate", tuple(rates), everywhere, log=True, low=1e-5, high=1e-2))
    found.append(Parameter("dropout", tuple(dropout), everywhere, low=0.0, high=0.6))
    return found, accuracy


def significant(findings: tuple[Finding, ...]) -> list[str]:
    return [finding.parameter.name for finding in findings if finding.significant]


def count_findings(sweeps: int, planted: str = "") -> int:
    """Count the sweeps that state a finding; with ``planted``, those that name it."""
    count = 0
    for seed in range(sweeps):
        names = significant(find_effects(*a_sweep(np.random.default_rng(seed), planted), np.ones(TRIALS, bool), seed))
        count += planted in names if planted else bool(names)
    return count


def test_few_random_sweeps_have_a_finding_and_most_planted_ones_name_it() -> None:
    assert count_findings(20) <= 2
    assert count_findings(20, "head") >= 14


@pytest.mark.slow
def test_of_200_random_sweeps_5_percent_have_a_finding_at_most() -> None:
    assert count_findings(200) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("planted", ["pooling", "head", "backbone"])
def test_of_200_planted_sweeps_80_percent_name_the_word(planted: str) -> None:
    assert count_findings(200, planted) >= 160


@pytest.mark.slow
def test_a_sampler_that_learns_from_random_accuracies_makes_no_findings() -> None:
    search = read_search(
        {
            "backbone": ["mobilenet_1.0", "resnet50", "vgg16", "xception"],
            "head": ["softmax", "normface", "cosface"],
            "dropout": {"uniform": [0.0, 0.6]},
            "learning_rate": {"loguniform": [1e-5, 1e-2]},
            "smoothing": [0, 0.05, 0.1],
        }
    )
    count = 0
    for seed in range(200):
        settings = SamplerSettings(trials=TRIALS, epochs=1, seed=seed, data="planted", sampler="tpe")
        sampler = OptunaSampler(search.space, settings, lambda trial, config: FitJob(trial, config, 0, "planted"))
        draw, configs, accuracies = np.random.default_rng(seed), [], []
        while (request := sampler.ask()) is not None:
            configs.append(request.job.config.to_dict())
            accuracies.append(0.85 + 0.01 * draw.standard_normal())
            sampler.tell(request.id, TrialState.COMPLETED, [accuracies[-1]])
        parameters = searched_parameters(search, 0, configs)
        count += bool(significant(find_effects(parameters, np.array(accuracies), np.ones(len(configs), bool), seed)))
    assert count <= 10


def test_the_size_of_an_effect_and_the_share_it_explains() -> None:
    draw = np.random.default_rng(0)
    head = np.arange(200) % 2
    accuracy = 0.8 + 0.04 * head + 0.02 * draw.standard_normal(200)
    parameter = Parameter(
        "head", tuple(np.array(["softmax", "arcface"])[head]), np.ones(200, bool), ("softmax", "arcface")
    )
    (finding,) = find_effects([parameter], accuracy, np.ones(200, bool))
    assert finding.significant
    assert {finding.level, abs(round(finding.difference, 2))} == {finding.level, 0.04}
    assert finding.difference_low < finding.difference < finding.difference_high
    assert finding.share_low < 0.5 < finding.share_high  # variances 0.02^2 of the head and 0.02^2 of noise
    assert finding.share == pytest.approx(0.5, abs=0.08)
    assert finding.sentence.startswith(f"head = {finding.level}: ")


def test_a_range_can_be_best_in_its_middle() -> None:
    draw = np.random.default_rng(1)
    rate = 10 ** draw.uniform(-5, -2, 60)
    accuracy = 0.9 - 0.02 * (np.log10(rate) + 3.5) ** 2 + 0.005 * draw.standard_normal(60)
    parameter = Parameter("learning_rate", tuple(rate), np.ones(60, bool), log=True, low=1e-5, high=1e-2)
    (finding,) = find_effects([parameter], accuracy, np.ones(60, bool))
    assert (finding.significant, finding.level) == (True, "middle")
    assert "learning_rate is best at its middle values: +" in finding.sentence


def test_a_parameter_that_only_varies_together_with_another_is_not_named() -> None:
    draw = np.random.default_rng(2)
    backbone = draw.integers(0, 2, 80)
    shadow = np.where(draw.random(80) < 0.9, backbone, 1 - backbone)
    accuracy = 0.8 + 0.05 * backbone + 0.005 * draw.standard_normal(80)
    parameters = [
        Parameter(n, tuple(v.tolist()), np.ones(80, bool), (0, 1))
        for n, v in (("shadow", shadow), ("backbone", backbone))
    ]
    assert significant(find_effects(parameters, accuracy, np.ones(80, bool))) == ["backbone"]


def test_a_conditional_parameter_is_tested_where_it_applied() -> None:
    draw = np.random.default_rng(3)
    head = draw.integers(0, 2, 80)
    margin = draw.uniform(0.1, 0.5, 80)
    accuracy = 0.8 + np.where(head == 1, 0.2 * (margin - 0.3), 0) + 0.005 * draw.standard_normal(80)
    values = tuple(m if h else None for m, h in zip(margin, head, strict=True))
    parameter = Parameter("margin", values, head == 1, low=0.1, high=0.5, condition="head arcface")
    (finding,) = find_effects([parameter], accuracy, np.ones(80, bool))
    assert (finding.significant, finding.level, finding.trials) == (True, "high", int(head.sum()))
    assert finding.sentence.startswith("margin (head arcface) is best at its high values")


def test_trials_stopped_early_and_too_few_trials_take_no_part() -> None:
    head = tuple(["softmax", "arcface"] * 10)
    accuracy = np.array([0.9, 0.1] * 10)
    completed = np.array([True] * 7 + [False] * 13)
    (finding,) = find_effects([Parameter("head", head, np.ones(20, bool), ("softmax", "arcface"))], accuracy, completed)
    assert (finding.trials, finding.significant, finding.sentence) == (7, False, "")
    assert np.isnan(finding.share)


def test_equal_accuracies_are_no_finding() -> None:
    head = tuple(["softmax", "arcface"] * 10)
    parameter = Parameter("head", head, np.ones(20, bool), ("softmax", "arcface"))
    assert significant(find_effects([parameter], np.full(20, 0.5), np.ones(20, bool))) == []
    # No noise at all: the effect is certain.
    assert significant(find_effects([parameter], np.array([0.9, 0.1] * 10), np.ones(20, bool))) == ["head"]
