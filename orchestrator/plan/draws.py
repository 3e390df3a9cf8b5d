"""Draw configurations of a sweep without its sampler: those that the file names, and samples of its space. Pure.

``trials_of`` draws one possible sweep: distinct trials, with logarithmic scales. ``many_of`` draws a fixed sample, with
repeats, to count how often each kind of network occurs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from orchestrator.search.next_step import DUPLICATES_IN_A_ROW
from orchestrator.spec.space.domains import Choice, Constant, Domain, IntRange, Uniform, Value
from orchestrator.spec.space.space import LARGEST_COUNTED, Space
from orchestrator.spec.sweep import SweepSpec
from trainers.config import TrialConfig, canonical

MANY = 300
"""Configurations drawn to count the parts of a space."""
LEARNING = ("tpe", "cmaes", "gp")
CANDIDATES = 3
"""Uniform samples of which a learning sampler is assumed to propose the one that trains longest, since more training
usually scores better (``simulation.EFFORT``). In a sweep of trashnet.yaml 6 of the 12 trials after the start-up were in
the most expensive twelfth of the space (2026-11-24)."""


def named(spec: SweepSpec) -> list[TrialConfig]:
    """Return the configurations that the file names, in order: its whole list, or those to try first."""
    epochs = spec.budget.epochs
    if spec.configurations:
        return [canonical({**values, "epochs": epochs}) for _, values in spec.configurations]
    return [_first(spec.space, values, epochs) for values in spec.budget.first]


def trials_of(
    spec: SweepSpec, draw: random.Random, epoch_s: Callable[[TrialConfig], float] | None = None
) -> list[TrialConfig]:
    """Return the distinct trials of one sweep: those that the file names, and samples of the space, or the whole space.

    Samples are uniform unless the sampler learns and ``epoch_s`` returns a trial's seconds per epoch; see
    ``CANDIDATES``.
    """
    found = dict.fromkeys(named(spec))
    if spec.configurations:
        return list(found)
    space, budget, sampler = spec.space, spec.budget, spec.budget.sampler
    prefers = epoch_s if sampler.name in LEARNING else None
    is_endless = any(isinstance(domain, Uniform) for domain in space.parameters().values())

    def drawn() -> TrialConfig:
        values = {**space.resolve(lambda _, domain: sample(domain, draw)), "epochs": budget.epochs}
        return canonical(values)

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
    """Return every configuration of a finite space; None if there are more than ``most``, or too many to count."""
    found: dict[TrialConfig, None] = {}
    for looked_at, values in enumerate(space.grid()):
        found[canonical({**values, "epochs": epochs})] = None
        if len(found) > most or looked_at > LARGEST_COUNTED:
            return None
    return list(found)


def many_of(spec: SweepSpec) -> list[TrialConfig]:
    """Return the named configurations and, for a search, ``MANY`` samples with repeats, always the same ones."""
    if spec.configurations:
        return named(spec)
    draw, space, epochs = np.random.default_rng(0), spec.space, spec.budget.epochs

    def pick(parameter: str, domain: Domain) -> Value:
        # Without logarithmic scales: kept calibrations were measured for these draws.
        if isinstance(domain, Uniform):
            return float(draw.uniform(domain.low, domain.high))
        if isinstance(domain, IntRange):
            return int(draw.choice(domain.values()))
        options = domain.values()
        return options[int(draw.integers(len(options)))]

    return [*named(spec), *(canonical({**space.resolve(pick), "epochs": epochs}) for _ in range(MANY))]


def sample(domain: Domain, draw: random.Random) -> Value:
    """Return a uniform sample of ``domain``, on a logarithmic scale if the domain has one."""
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
