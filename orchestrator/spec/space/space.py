"""The search space as values: which fields vary, over what, and under which condition. Knows no sampler."""

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
"""``Space.size`` enumerates no further."""
_LOOSE = ("unfrozen_layers", "image_size", "scale", "margin", "recipe")
"""Fields that ``canonical`` may change: several raw values can mean the same trial."""


@dataclass(frozen=True)
class Case:
    """A domain and the condition under which it applies: each named field has one of the listed values.

    ``gpu_memory_gb``: and a trial has at least so much memory of a GPU. ``Space.on_gpu`` settles that; until then
    such a case does not match.
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
    """One searched field. The first case that matches applies; without any, the field keeps its default."""

    name: str
    cases: tuple[Case, ...]

    def active(self, values: Mapping[str, Value]) -> tuple[str, Domain]:
        """The parameter's name and the domain that apply to what is chosen so far.

        The name is the field's, or ``field@i`` for case i of several, so that one name never has two domains.
        """
        for index, case in enumerate(self.cases):
            if case.matches(values):
                return self.parameter(index), case.domain
        return self.name, Constant(DEFAULTS[self.name])

    def parameter(self, index: int) -> str:
        return self.name if len(self.cases) == 1 else f"{self.name}@{index}"

    def on_gpu(self, memory_gb: float) -> Field:
        """The cases that a trial with ``memory_gb`` of GPU memory can reach, nothing asked of the GPU any more."""
        found: list[Case] = []
        for case in self.cases:
            if case.gpu_memory_gb <= memory_gb and all(earlier.when for earlier in found):
                found.append(dataclasses.replace(case, gpu_memory_gb=0))
        return Field(self.name, tuple(found))


@dataclass(frozen=True)
class Space:
    """Fields in an order in which every condition speaks only of fields before. ``Space.of`` sorts them."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, cases: Mapping[str, Iterable[Case]]) -> Space:
        """Sort the fields so that conditions come after what they name. Raises SpecError if they go in a circle."""
        ordered = {name: tuple(cases[name]) for name in DEFAULTS if name in cases}
        circle = find_circle(ordered)
        if circle:
            raise SpecError(f"conditions go in a circle: {' -> '.join(circle)}")
        done: dict[str, Field] = {}
        while len(done) < len(ordered):
            waiting = {name: each for name, each in ordered.items() if name not in done}
            ready = next(name for name, each in waiting.items() if not waiting.keys() & set(_conditions(each)))
            done[ready] = Field(ready, ordered[ready])
        return cls(tuple(done.values()))

    def on_gpu(self, memory_gb: float) -> Space:
        """The space of a machine where a trial has ``memory_gb`` of GPU memory (0 = no GPU): cases that need more are
        dropped, the others ask no more for it. A field without a case left keeps its default.
        """
        fields = [field.on_gpu(memory_gb) for field in self.fields]
        return Space(tuple(field for field in fields if field.cases))

    def without(self, name: str, values: Collection[Value]) -> Space | None:
        """The space whose field ``name`` has none of ``values``; None where that leaves it without a value."""
        field = self.field(name)
        if field is None:
            return None if DEFAULTS[name] in values else self
        cases = [dataclasses.replace(case, domain=left) for case in field.cases if (left := _rest(case.domain, values))]
        if not cases or (len(cases) < len(field.cases) and cases[-1].is_conditional and DEFAULTS[name] in values):
            return None
        replaced = Field(name, tuple(cases))
        return Space(tuple(replaced if each is field else each for each in self.fields))

    def field(self, name: str) -> Field | None:
        return next((field for field in self.fields if field.name == name), None)

    def domains(self, name: str) -> tuple[Domain, ...]:
        """Everything that ``name`` can be: the domains of the cases that can apply, and its default if none may.

        Cases that ask for a GPU's memory are among them.
        """
        field = self.field(name)
        cases = [case for case in field.cases if self.can_meet(case)] if field else []
        found = [case.domain for case in cases]
        if all(case.is_conditional for case in cases):
            found.append(Constant(DEFAULTS[name]))
        return tuple(found)

    def can_meet(self, case: Case) -> bool:
        """Whether each field that the case's condition names can take one of the values it asks for."""
        return all(
            any(domain.holds(value) for domain in self.domains(name) for value in allowed)
            for name, allowed in case.when
        )

    def parameters(self) -> dict[str, Domain]:
        """Every parameter that ``resolve`` may ask for, with its one domain."""
        return {
            field.parameter(index): case.domain
            for field in self.fields
            for index, case in enumerate(field.cases)
            if not isinstance(case.domain, Constant) and self.can_meet(case)
        }

    @property
    def is_conditional(self) -> bool:
        """Whether some parameter exists only under a condition."""
        asked = self.parameters()
        return any(
            field.parameter(index) in asked and (case.is_conditional or len(field.cases) > 1)
            for field in self.fields
            for index, case in enumerate(field.cases)
        )

    def resolve(self, pick: Callable[[str, Domain], Value]) -> dict[str, Any]:
        """One configuration: ``pick`` is asked for each parameter that applies, in order.

        Returns the raw values of the space's fields; ``canonical({**values, "epochs": n})`` makes the trial.
        """
        values: dict[str, Any] = {}
        for field in self.fields:
            parameter, domain = field.active(values)
            values[field.name] = domain.value if isinstance(domain, Constant) else pick(parameter, domain)
        return values

    def parameters_for(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of ``resolve``: parameters that lead to the same canonical configuration as ``values``.

        ``values`` may be raw or canonical (``TrialConfig.to_dict()``), may hold ``epochs``, and may leave out
        fields that are fixed. Where a value without effect was dropped, the parameter is any that leads there.

        Raises SpecError with the sentence of ``contains`` when ``values`` lie outside.
        """
        parameters, outside = self._locate(values)
        if outside:
            raise SpecError(outside)
        return parameters

    def contains(self, values: Mapping[str, Any]) -> str | None:
        """None if ``values`` lie in the space, else the sentence that says which one does not and what is allowed."""
        return self._locate(values)[1]

    def grid(self) -> Iterator[dict[str, Any]]:
        """All combinations of raw values, conditions honoured, the last field fastest.

        Two of them can be the same canonical configuration. Raises SpecError at a continuous range.
        """
        return self._combinations({})

    def size(self) -> int | None:
        """How many different canonical configurations there are; None if infinite or above ``LARGEST_COUNTED``."""
        if any(isinstance(domain, Uniform) for domain in self.parameters().values()):
            return None
        combinations = list(itertools.islice(self.grid(), LARGEST_COUNTED + 1))
        if len(combinations) > LARGEST_COUNTED:
            return None
        return len({canonical(values) for values in combinations})

    def _locate(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """The parameters behind ``values`` and None, or nothing and why there are none."""
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
            raise SpecError(f"{field.name} is {domain}, which has no list of values to go through.")
        for value in options:
            yield from self._combinations({**values, field.name: value})

    def _invert(self, given: dict[str, Any], raw: dict[str, Any], picked: dict[str, Any]) -> dict[str, Any] | None:
        """Depth first over the raw values that could stand behind ``given``; None when none does."""
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
    """``domain`` without ``values``, of a field that holds names; None where nothing is left of it."""
    left = tuple(value for value in domain.values() or () if value not in values)
    return None if not left else Constant(left[0]) if len(left) == 1 else Choice(left)


def _candidates(name: str, domain: Domain, given: Mapping[str, Any], loose: Sequence[str] = _LOOSE) -> Iterator[Value]:
    """Raw values of ``domain`` that ``given`` may come from, the likeliest first."""
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
    """Names of fields whose conditions lead back to the first, which is named again at the end; () if none do."""
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
