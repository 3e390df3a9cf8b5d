"""The ``budget`` section."""

from __future__ import annotations

import pytest

from orchestrator.spec import load as spec_module
from tests.support.sweep_files import mistakes, sweep

BUDGET = [
    (
        ", trails: 4",
        '4:32: budget.trails: no such field; did you mean "trials"? Allowed: trials, epochs, hours, target_acc',
    ),
    (", hours: -1", "4:39: budget.hours: found -1; allowed: a number, above 0."),
    (", hours: soon", '4:39: budget.hours: found the text "soon"; allowed: a number, above 0.'),
    (", target_accuracy: 93", "4:49: budget.target_accuracy: found 93; allowed: a number, above 0 and at most 1."),
    (", retries: 1.5", "4:41: budget.retries: found 1.5; allowed: a whole number, at least 0 and at most 100."),
    (", seed: true", "4:38: budget.seed: found true; allowed: a whole number, at least 0 and at most 2147483647."),
    (
        ", concurrent: 0",
        "4:44: budget.concurrent: found 0; allowed: a whole number, at least 1, or auto for as many as fit.",
    ),
    (
        ", scheduler: ashaa",
        '4:43: budget.scheduler.name: found "ashaa"; did you mean "asha"? Allowed: asha, hyperband, medi',
    ),
    (
        ", scheduler: 5",
        "4:43: budget.scheduler: found 5; allowed: a mapping with the fields name, grace_epochs, reduction_fac",
    ),
    (
        ", scheduler: {name: median, reduction_factor: 2}",
        "4:58: budget.scheduler.reduction_factor: median has no reduction_factor; it takes grace_epochs, min_trials.",
    ),
    (
        ", scheduler: {name: none, grace_epochs: 1}",
        "4:56: budget.scheduler.grace_epochs: none has no grace_epochs; it takes ",
    ),
    (
        ", scheduler: {grace_epochs: 9}",
        "4:58: budget.scheduler.grace_epochs: found 9, which is more than budget.epochs (3)",
    ),
    (
        ", sampler: {name: grid, startup_trials: 3}",
        "4:54: budget.sampler.startup_trials: grid has no startup_trials; it takes",
    ),
    (
        ", sampler: grid",
        "4:41: budget.sampler: the grid sampler cannot enumerate dropout, a continuous range; give it a list",
    ),
    (
        ", sampler: cmaes",
        "4:41: budget.sampler: the cmaes sampler needs at least two numeric ranges; use tpe or random.",
    ),
    (", first: 3", "4:39: budget.first: found 3; allowed: a list of configurations, each a mapping of fields."),
    (
        ", first: [{dropout: 0.3}]",
        "4:40: budget.first.0: lies outside the space: dropout is 0.3; allowed here: a number from ",
    ),
    (
        ", first: [{}]",
        "4:40: budget.first.0: lies outside the space: dropout is left out, but it varies here; give it a value",
    ),
    (
        ", first: [{dropuot: 0}]",
        '4:41: budget.first.0.dropuot: no such field; did you mean "dropout"? Allowed: backbone, ',
    ),
    (", first: [{dropout: 2}]", "4:50: budget.first.0.dropout: found 2; allowed: a number, at least 0 and below 1."),
    (
        f", first: [{', '.join(['{dropout: 0}'] * 6)}]",
        "4:32: budget.first: holds 6 configurations, more than budget.trials (5).",
    ),
]


@pytest.mark.parametrize(("text", "sentence"), BUDGET)
def test_a_mistake_in_the_budget(load, text, sentence):
    found = mistakes(load, sweep(budget=text))
    assert len(found) == 1
    assert found[0].startswith(f"f.yaml:{sentence}")


def test_the_sampler_is_checked_although_the_budget_is_wrong_elsewhere(load):
    text = sweep("head: [softmax, arcface]", ", hours: -1, sampler: cmaes, first: [{head: normface}]")
    assert [sentence.split(": ")[1] for sentence in mistakes(load, text)] == [
        "budget.hours",
        "budget.sampler",
        "budget.first.0",
    ]


def test_a_sampler_that_is_an_extra_says_how_to_get_it(load, monkeypatch):
    monkeypatch.setattr(spec_module.importlib.util, "find_spec", lambda name: None)
    text = sweep("dropout: {uniform: [0, 0.2]}, smoothing: {uniform: [0, 0.2]}", ", sampler: cmaes")
    assert mistakes(load, text) == [
        "f.yaml:4:41: budget.sampler: the sampler cmaes needs the package cmaes, which is not installed: "
        'pip install "orch[cmaes]".'
    ]
