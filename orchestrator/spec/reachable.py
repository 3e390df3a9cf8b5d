"""Combinations of values that trials of a file can have. Pure."""

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
    """Return every combination of values of the fields ``names`` in one trial, each once, in the space's order.

    A range counts with both ends, every value that a condition names, and both ends of the other values. Fields that
    are not in the file have their defaults; values without effect are those of ``canonical``.
    """
    if spec.configurations:
        whole = [{**DEFAULTS, **values} for _, values in spec.configurations]
    else:
        fields = tuple(field for field in spec.space.fields if field.name in _needed(spec.space, names))
        whole = [{**DEFAULTS, **values} for values in _combinations(fields, {}, _asked(fields))]
    found = [_canonical(values, names) for values in whole]
    return [values for place, values in enumerate(found) if values not in found[:place]]


def values_of(spec: Searched, name: str) -> list[Any]:
    """Return every value of the field ``name``, each once; of a range those of ``reachable``."""
    return [values[name] for values in reachable(spec, name)]


def _canonical(values: dict[str, Value], names: tuple[str, ...]) -> dict[str, Value]:
    exact = canonical(values).to_dict()
    return {name: exact[name] for name in names}


def _needed(space: Space, names: tuple[str, ...]) -> set[str]:
    """Return ``names`` and every field that they depend on by conditions."""
    needed: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            field = space.field(name)
            waiting += [other for case in field.cases for other, _ in case.when] if field else []
    return needed


def _asked(fields: tuple[Field, ...]) -> dict[str, set[Value]]:
    """Return for each field the values that conditions of ``fields`` name."""
    found: dict[str, set[Value]] = {field.name: set() for field in fields}
    for name, allowed in (each for field in fields for case in field.cases for each in case.when):
        found.setdefault(name, set()).update(allowed)
    return found


def _combinations(
    fields: tuple[Field, ...], values: dict[str, Any], asked: dict[str, set[Value]]
) -> Iterator[dict[str, Any]]:
    if len(values) == len(fields):
        yield values
        return
    field = fields[len(values)]
    _, domain = field.active(values)
    for value in _listed(domain, asked[field.name]):
        yield from _combinations(fields, {**values, field.name: value}, asked)


def _listed(domain: Domain, asked: set[Value]) -> tuple[Any, ...]:
    """Return the values of a list; of a range its ends, the values ``asked``, and the ends of the others."""
    if isinstance(domain, Uniform):
        return (domain.low, domain.high)
    if not isinstance(domain, IntRange):
        return tuple(domain.values())
    options = domain.values()
    rest = [next((each for each in way if each not in asked), domain.low) for way in (options, reversed(options))]
    inner = [option for option in options if option in asked]
    return tuple(sorted({domain.low, domain.high, *rest, *inner}))
