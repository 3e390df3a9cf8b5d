"""The configurations that a sweep may come to, without its sampler: what the file names, and draws of its space. Pure.

Two kinds of draws, for two questions. ``trials_of`` gives one sweep as it may go: no trial twice, logarithms honoured.
``many_of`` counts which kinds of networks come how often: always the same draws, repeats included.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from orchestrator.spec.space.space import LARGEST_COUNTED, Choice, Constant, Domain, IntRange, Space, Uniform, Value
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig, canonical

MANY = 300
"""Configurations drawn to see which parts a space has, and how often."""
LEARNING = ("tpe", "cmaes", "gp")
CANDIDATES = 3
"""A sampler that has learnt is taken to propose, of so many configurations drawn evenly, the one that trains longest:
what trains more scores better, as a rule (``simulation.EFFORT``). In a sweep of trashnet.yaml 6 of the 12 trials after
the start-up were of the dearest twelfth of the space (2026-11-24)."""
DUPLICATES_IN_A_ROW = 300
"""As the search does: so many draws that were all seen before end the list of trials."""


def named(spec: SweepSpec) -> list[TrialConfig]:
    """What the file itself says, in its order: all of a list of configurations, or those of a search to try first."""
    epochs = spec.budget.epochs
    if spec.configurations:
        return [canonical({**values, "epochs": epochs}) for _, values in spec.configurations]
    return [_first(spec.space, values, epochs) for values in spec.budget.first]


def trials_of(
    spec: SweepSpec, draw: random.Random, epoch_s: Callable[[TrialConfig], float] | None = None
) -> list[TrialConfig]:
    """The trials of one sweep: those that the file names, and others drawn from the space, none twice; all of a space
    that holds no more.

    Evenly, but where ``epoch_s`` says how long one trains and the sampler learns: see ``CANDIDATES``.
    """
    found = dict.fromkeys(named(spec))
    if spec.configurations:
        return list(found)
    space, budget, sampler = spec.space, spec.budget, spec.budget.sampler
    prefers = epoch_s if sampler.name in LEARNING else None
    # Of a continuous range no value comes twice, and what has no effect costs nothing: no need to be exact.
    is_endless = any(isinstance(domain, Uniform) for domain in space.parameters().values())

    def drawn() -> TrialConfig:
        values = {**space.resolve(lambda _, domain: sample(domain, draw)), "epochs": budget.epochs}
        return TrialConfig(**values) if is_endless else canonical(values)

    whole = None if is_endless else _whole(space, budget.epochs, budget.trials)
    if whole is not None:
        draw.shuffle(whole)
        return list(dict.fromkeys([*found, *whole]))
    misses = 0
    while len(found) < budget.trials and misses < DUPLICATES_IN_A_ROW:
        if prefers is None or len(found) < sampler.startup_trials:
            config = drawn()
        else:
            config = max((drawn() for _ in range(CANDIDATES)), key=prefers)
        misses = misses + 1 if config in found else 0
        found[config] = None
    return list(found)[: budget.trials]


def _whole(space: Space, epochs: int, most: int) -> list[TrialConfig] | None:
    """Every configuration of a finite space; None where there are more than ``most``, or too many to look at."""
    found: dict[TrialConfig, None] = {}
    for looked_at, values in enumerate(space.grid()):
        found[canonical({**values, "epochs": epochs})] = None
        if len(found) > most or looked_at > LARGEST_COUNTED:
            return None
    return list(found)


def many_of(spec: SweepSpec) -> list[TrialConfig]:
    """What the file names, and of a search ``MANY`` more, always the same ones, as often as they come."""
    if spec.configurations:
        return named(spec)
    draw, space, epochs = np.random.default_rng(0), spec.space, spec.budget.epochs

    def pick(parameter: str, domain: Domain) -> Value:
        # Evenly, on no logarithm: what is kept of a machine was measured for these draws, others may ask for more.
        if isinstance(domain, Uniform):
            return float(draw.uniform(domain.low, domain.high))
        if isinstance(domain, IntRange):
            return int(draw.choice(domain.values()))
        options = domain.values()
        return options[int(draw.integers(len(options)))]

    return [*named(spec), *(canonical({**space.resolve(pick), "epochs": epochs}) for _ in range(MANY))]


def sample(domain: Domain, draw: random.Random) -> Value:
    """A value of ``domain``, each as likely as any other; on its logarithm where the domain says so."""
    if isinstance(domain, Constant):
        return domain.value
    if isinstance(domain, Choice):
        return draw.choice(domain.options)
    if isinstance(domain, Uniform):
        if domain.log:
            return math.exp(draw.uniform(math.log(domain.low), math.log(domain.high)))
        return draw.uniform(domain.low, domain.high)
    if domain.log:
        spread = math.exp(draw.uniform(math.log(domain.low), math.log(domain.high + 1)))
        return min(int(spread), domain.high)
    return draw.choice(domain.values())


def _first(space: Space, values: Mapping[str, Any], epochs: int) -> TrialConfig:
    parameters = space.parameters_for(values)
    return canonical({**space.resolve(lambda name, domain: parameters[name]), "epochs": epochs})
