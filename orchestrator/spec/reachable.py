"""Enumerate the combinations of values that a sweep's trials can have. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from orchestrator.spec.space.domains import DEFAULTS, Domain, IntRange, Uniform, Value
from orchestrator.spec.space.space import Field, Space
from trainers.config import canonical


class Searched(Protocol):
    """A ``SweepSpec`` or a ``Search``."""

    @property
    def space(self) -> Space: ...

    @property
    def configurations(self) -> tuple[tuple[str, dict[str, Any]], ...]: ...


def reachable(spec: Searched, *names: str) -> list[dict[str, Value]]:
    """Return the distinct combinations of values that the fields ``names`` can have in a trial, in the space's order.

    A range is represented by its bounds, by every value that a condition names, and by the lowest and highest of the
    other values. Fields that are not in the file have their defaults; ``canonical`` replaces values without effect.
    """
    found = [_canonical(values, names) for values in raw_values(spec, *names)]
    return list({tuple(values.items()): values for values in found}.values())


def raw_values(spec: Searched, *names: str) -> list[dict[str, Any]]:
    """Return combinations as ``reachable`` does, but complete and as the file has them; several can be one trial."""
    if spec.configurations:
        return [{**DEFAULTS, **values} for _, values in spec.configurations]
    fields = tuple(field for field in spec.space.fields if field.name in _needed(spec.space, names))
    return [{**DEFAULTS, **values} for values in _combinations(fields, {}, _values_in_conditions(fields))]


def values_of(spec: Searched, name: str) -> list[Any]:
    """Return the distinct values of the field ``name``; a range is represented as in ``reachable``."""
    return [values[name] for values in reachable(spec, name)]


def _canonical(values: dict[str, Value], names: tuple[str, ...]) -> dict[str, Value]:
    exact = canonical(values).to_dict()
    return {name: exact[name] for name in names}


def _needed(space: Space, names: tuple[str, ...]) -> set[str]:
    """Return ``names`` and every field that their conditions depend on, transitively."""
    needed: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            field = space.field(name)
            waiting += [other for case in field.cases for other, _ in case.when] if field else []
    return needed


def _values_in_conditions(fields: tuple[Field, ...]) -> dict[str, set[Value]]:
    """Return field -> its values that the conditions of ``fields`` name."""
    found: dict[str, set[Value]] = {field.name: set() for field in fields}
    for name, allowed in (each for field in fields for case in field.cases for each in case.when):
        found.setdefault(name, set()).update(allowed)
    return found


def _combinations(
    fields: tuple[Field, ...], values: dict[str, Any], in_conditions: dict[str, set[Value]]
) -> Iterator[dict[str, Any]]:
    if len(values) == len(fields):
        yield values
        return
    field = fields[len(values)]
    _, domain = field.active(values)
    for value in _listed(domain, in_conditions[field.name]):
        yield from _combinations(fields, {**values, field.name: value}, in_conditions)


def _listed(domain: Domain, in_conditions: set[Value]) -> tuple[Any, ...]:
    """Return all values of a list, or the values that represent a range in ``reachable``."""
    if isinstance(domain, Uniform):
        return (domain.low, domain.high)
    if not isinstance(domain, IntRange):
        return tuple(domain.values())
    options = domain.values()
    others = [
        next((each for each in ordered if each not in in_conditions), domain.low)
        for ordered in (options, reversed(options))
    ]
    named = [option for option in options if option in in_conditions]
    return tuple(sorted({domain.low, domain.high, *others, *named}))
