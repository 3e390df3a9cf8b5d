"""The parameters of a search as ``evaluation.importance`` tests them: where each applied, and on which scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.errors import SpecError
from orchestrator.evaluation.importance import Parameter
from orchestrator.spec.space.domains import DEFAULTS, IntRange, Uniform
from orchestrator.spec.space.section import Search
from orchestrator.spec.space.space import Case, Space

MOST_LEVELS = 6
"""Maximum integers of a range that count as levels, not as a scale."""
SHOWN_VALUES = 2
"""Maximum values of a condition that are named."""


def searched_parameters(search: Search, gpu_memory_gb: float, configs: Sequence[Mapping[str, Any]]) -> list[Parameter]:
    """Return a ``Parameter`` for each that takes two values or more in ``configs`` (``TrialConfig.to_dict()``).

    Of a space, in its order; a field with several cases is several parameters, each with its condition. A trial
    outside the space, from before the file was edited, has none. Of named configurations, every field that varies.
    """
    if search.named:
        found = [_listed(name, [config.get(name, DEFAULTS[name]) for config in configs]) for name in DEFAULTS]
    else:
        space = search.space.on_gpu(gpu_memory_gb)
        picked, varied = [_picked(space, config) for config in configs], space.parameters()
        found = [
            _parameter(field.name, case, field.parameter(index), picked)
            for field in space.fields
            for index, case in enumerate(field.cases)
            if field.parameter(index) in varied
        ]
    return [parameter for parameter in found if _varies(parameter)]


def _picked(space: Space, config: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return space.parameters_for(config)
    except SpecError:
        return {}


def _listed(name: str, values: Sequence[Any]) -> Parameter:
    return Parameter(name, tuple(values), np.ones(len(values), bool), levels=tuple(dict.fromkeys(values)))


def _parameter(name: str, case: Case, key: str, picked: Sequence[Mapping[str, Any]]) -> Parameter:
    """Return the parameter ``key`` of the field ``name``, which applied to the trials that picked a value for it."""
    values = tuple(one.get(key) for one in picked)
    applies = np.array([key in one for one in picked], bool)
    condition = " and ".join(_clause(field, allowed) for field, allowed in case.when)
    domain = case.domain
    if isinstance(domain, Uniform):
        return Parameter(name, values, applies, (), domain.log, domain.low, domain.high, condition)
    if isinstance(domain, IntRange) and len(domain.values()) > MOST_LEVELS:
        return Parameter(name, values, applies, (), domain.log, domain.low, domain.high, condition)
    return Parameter(name, values, applies, tuple(domain.values()), condition=condition)


def _clause(field: str, allowed: Sequence[Any]) -> str:
    named = " or ".join(map(str, allowed[:SHOWN_VALUES]))
    more = len(allowed) - SHOWN_VALUES
    return f"{field} {named}{f' or {more} more' if more > 0 else ''}"


def _varies(parameter: Parameter) -> bool:
    return len({value for value, applies in zip(parameter.values, parameter.applies, strict=True) if applies}) > 1
