"""The search space as values: fields, their domains, and the conditions on them. Independent of samplers."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.spec.mistakes import quoted
from orchestrator.spec.space.domains import DEFAULTS, Choice, Constant, Domain, IntRange, Uniform, Value
from trainers.backbones import backbone
from trainers.config import canonical
from trainers.errors import TrainerError

LARGEST_COUNTED = 10_000
"""Maximum configurations that ``Space.size`` enumerates."""
_LOOSE = ("unfrozen_layers", "image_size", "scale", "margin", "recipe")
"""Fields that ``canonical`` may change: several raw values can mean the same trial."""


@dataclass(frozen=True)
class Case:
    """A domain, and the condition under which it applies: each field in ``when`` has one of the listed values.

    ``gpu_memory_gb``: minimum GPU memory of a trial in GB, 0 for no condition. ``Space.on_gpu`` resolves it; until then
    a case with such a condition does not match.
    """

    domain: Domain
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    gpu_memory_gb: float = 0

    @property
    def is_conditional(self) -> bool:
        return bool(self.when or self.gpu_memory_gb)

    def matches(self, values: Mapping[str, Value]) -> bool:
        return not self.gpu_memory_gb and all(
            values.get(name, DEFAULTS[name]) in allowed for name, allowed in self.when
        )


@dataclass(frozen=True)
class Field:
    """A field of the space. The first case that matches applies; if none does, the field keeps its default."""

    name: str
    cases: tuple[Case, ...]

    def active(self, values: Mapping[str, Value]) -> tuple[str, Domain]:
        """Return the name of the parameter and the domain that apply, given the values of the preceding fields.

        The name is the field's, or ``field@i`` for case i of several, so that a name has a single domain.
        """
        for index, case in enumerate(self.cases):
            if case.matches(values):
                return self.parameter(index), case.domain
        return self.name, Constant(DEFAULTS[self.name])

    def parameter(self, index: int) -> str:
        return self.name if len(self.cases) == 1 else f"{self.name}@{index}"

    def on_gpu(self, memory_gb: float) -> Field:
        """Return the field with the cases that a trial with ``memory_gb`` can reach, without conditions on memory."""
        found: list[Case] = []
        for case in self.cases:
            if case.gpu_memory_gb <= memory_gb and all(earlier.when for earlier in found):
                found.append(dataclasses.replace(case, gpu_memory_gb=0))
        return Field(self.name, tuple(found))


@dataclass(frozen=True)
class Space:
    """Fields in an order in which each condition depends only on preceding fields. Build it with ``Space.of``."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, cases: Mapping[str, Iterable[Case]]) -> Space:
        """Sort the fields so that each comes after those in its conditions. Raises SpecError if these form a cycle."""
        ordered = {name: tuple(cases[name]) for name in DEFAULTS if name in cases}
        circle = find_circle(ordered)
        if circle:
            raise SpecError(f"conditions form a cycle: {' -> '.join(circle)}")
        done: dict[str, Field] = {}
        while len(done) < len(ordered):
            waiting = {name: each for name, each in ordered.items() if name not in done}
            ready = next(name for name, each in waiting.items() if not waiting.keys() & set(_conditions(each)))
            done[ready] = Field(ready, ordered[ready])
        return cls(tuple(done.values()))

    def on_gpu(self, memory_gb: float) -> Space:
        """Return the space for a trial with ``memory_gb`` of GPU memory; 0 means no GPU.

        Cases that need more memory are dropped, and the conditions on memory are removed from the others. A field with
        no case left keeps its default.
        """
        fields = [field.on_gpu(memory_gb) for field in self.fields]
        return Space(tuple(field for field in fields if field.cases))

    def without(self, name: str, values: Collection[Value]) -> Space | None:
        """Return the space without ``values`` of the field ``name``; None if the field then has no value left.

        Cases whose condition can no longer be met are dropped: the space equals one that never named the values.
        """
        field = self.field(name)
        if field is None:
            return None if DEFAULTS[name] in values else self
        cases = [dataclasses.replace(case, domain=left) for case in field.cases if (left := _rest(case.domain, values))]
        if not cases or (len(cases) < len(field.cases) and cases[-1].is_conditional and DEFAULTS[name] in values):
            return None
        replaced = Field(name, tuple(cases))
        rest = Space(tuple(replaced if each is field else each for each in self.fields))
        fields = [
            Field(each.name, tuple(case for case in each.cases if rest.can_meet(case) or not self.can_meet(case)))
            for each in rest.fields
        ]
        return Space(tuple(each for each in fields if each.cases))

    def field(self, name: str) -> Field | None:
        return next((field for field in self.fields if field.name == name), None)

    def domains(self, name: str) -> tuple[Domain, ...]:
        """Return the domains of the cases of ``name`` that can apply, and its default if possibly none applies.

        Includes the cases with a condition on GPU memory.
        """
        field = self.field(name)
        cases = [case for case in field.cases if self.can_meet(case)] if field else []
        found = [case.domain for case in cases]
        if all(case.is_conditional for case in cases):
            found.append(Constant(DEFAULTS[name]))
        return tuple(found)

    def can_meet(self, case: Case) -> bool:
        """Whether each field in the case's condition can have one of the values listed there."""
        return all(
            any(domain.holds(value) for domain in self.domains(name) for value in allowed)
            for name, allowed in case.when
        )

    def parameters(self) -> dict[str, Domain]:
        """Return parameter -> domain, for every parameter that ``resolve`` can pick."""
        return {
            field.parameter(index): case.domain
            for field in self.fields
            for index, case in enumerate(field.cases)
            if not isinstance(case.domain, Constant) and self.can_meet(case)
        }

    @property
    def is_conditional(self) -> bool:
        """Whether any parameter exists only under a condition."""
        parameters = self.parameters()
        return any(
            field.parameter(index) in parameters and (case.is_conditional or len(field.cases) > 1)
            for field in self.fields
            for index, case in enumerate(field.cases)
        )

    def resolve(self, pick: Callable[[str, Domain], Value]) -> dict[str, Any]:
        """Return one configuration, calling ``pick(parameter, domain)`` for each parameter that applies, in order.

        The values are the raw ones of the space's fields; ``canonical({**values, "epochs": n})`` makes the trial.
        """
        values: dict[str, Any] = {}
        for field in self.fields:
            parameter, domain = field.active(values)
            values[field.name] = domain.value if isinstance(domain, Constant) else pick(parameter, domain)
        return values

    def parameters_for(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Invert ``resolve``: return parameters that lead to the same canonical configuration as ``values``.

        ``values`` can be raw or canonical (``TrialConfig.to_dict()``), can include ``epochs``, and can omit fixed
        fields. For a value without effect, which ``canonical`` replaced, any parameter that leads there is returned.

        Raises SpecError with the message of ``contains`` if ``values`` lie outside the space.
        """
        parameters, outside = self._locate(values)
        if outside:
            raise SpecError(outside)
        return parameters

    def contains(self, values: Mapping[str, Any]) -> str | None:
        """Return None if ``values`` lie in the space, else a message: which value does not, and what is allowed."""
        return self._locate(values)[1]

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield all combinations of raw values that meet the conditions; the last field varies fastest.

        Several can be the same canonical configuration. Raises SpecError at a continuous range.
        """
        return self._combinations({})

    def size(self) -> int | None:
        """Return the number of distinct canonical configurations; None if infinite.

        None, too, if there are more than ``LARGEST_COUNTED`` combinations of raw values.
        """
        if any(isinstance(domain, Uniform) for domain in self.parameters().values()):
            return None
        combinations = list(itertools.islice(self.grid(), LARGEST_COUNTED + 1))
        if len(combinations) > LARGEST_COUNTED:
            return None
        return len({canonical(values) for values in combinations})

    def _locate(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Return the parameters that lead to ``values`` and None; or {} and why there are none."""
        given = {name: value for name, value in values.items() if name != "epochs"}
        unknown = [name for name in given if name not in DEFAULTS]
        if unknown:
            return {}, f"there is no field {', '.join(unknown)}; known are {', '.join(DEFAULTS)}"
        try:
            found = self._invert(given, {}, {})
        except TrainerError as error:
            return {}, str(error)
        return ({}, self._why_outside(given)) if found is None else (found, None)

    def _combinations(self, values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if len(values) == len(self.fields):
            yield values
            return
        field = self.fields[len(values)]
        _, domain = field.active(values)
        options = domain.values()
        if options is None:
            raise SpecError(f"{field.name} is {domain}, a continuous range, which cannot be enumerated.")
        for value in options:
            yield from self._combinations({**values, field.name: value})

    def _invert(self, given: dict[str, Any], raw: dict[str, Any], picked: dict[str, Any]) -> dict[str, Any] | None:
        """Search depth first for raw values with the canonical form of ``given``; return their parameters, or None."""
        if len(raw) == len(self.fields):
            return picked if canonical(raw) == canonical({**raw, **given}) else None
        field = self.fields[len(raw)]
        parameter, domain = field.active(raw)
        for value in _candidates(field.name, domain, given):
            named = {} if isinstance(domain, Constant) else {parameter: value}
            found = self._invert(given, {**raw, field.name: value}, {**picked, **named})
            if found is not None:
                return found
        return None

    def _why_outside(self, given: dict[str, Any]) -> str:
        raw: dict[str, Any] = {}
        for name, value in given.items():
            if self.field(name) is None and value != DEFAULTS[name]:
                return f"{name} is {quoted(value)}, but it is not searched here and stays {quoted(DEFAULTS[name])}"
        for field in self.fields:
            _, domain = field.active(raw)
            if field.name not in given and not isinstance(domain, Constant):
                return f"{field.name} is left out, but it varies here; give it a value: {domain}"
            value = given.get(field.name, domain.value if isinstance(domain, Constant) else None)
            if not any(value == candidate for candidate in _candidates(field.name, domain, {field.name: value}, ())):
                return f"{field.name} is {quoted(value)}; allowed here: {domain}"
            raw[field.name] = value
        return "these values together lie outside the space"


def _rest(domain: Domain, values: Collection[Value]) -> Domain | None:
    """Return ``domain`` without ``values``, for a field of names; None if nothing is left."""
    left = tuple(value for value in domain.values() or () if value not in values)
    return None if not left else Constant(left[0]) if len(left) == 1 else Choice(left)


def _candidates(name: str, domain: Domain, given: Mapping[str, Any], loose: Sequence[str] = _LOOSE) -> Iterator[Value]:
    """Yield the raw values of ``domain`` that can have led to ``given``, the most likely first."""
    if name not in given:
        yield from domain.values() if isinstance(domain, Constant) else ()
        return
    value, options = given[name], domain.values()
    if domain.holds(value):
        yield value if options is None else next(option for option in options if option == value)
    if name not in loose:
        return
    if isinstance(domain, Uniform):
        yield domain.low
    elif isinstance(domain, IntRange):
        native = backbone(given.get("backbone", DEFAULTS["backbone"])).native_size
        yield from (option for option in (native, domain.high) if domain.holds(option))
    else:
        yield from (option for option in domain.values() if option != value)


def _conditions(cases: Iterable[Case]) -> list[str]:
    return [name for case in cases for name, _ in case.when]


def find_circle(cases: Mapping[str, Iterable[Case]]) -> tuple[str, ...]:
    """Return the fields of a cycle of conditions, the first repeated at the end; () if there is none."""
    arrows = {name: _conditions(each) for name, each in cases.items()}
    cleared: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in cleared:
            return ()
        circle = next((found for other in arrows.get(name, ()) if (found := walk(other, (*path, name)))), ())
        if not circle:
            cleared.add(name)
        return circle

    return next((circle for name in arrows if (circle := walk(name, ()))), ())
