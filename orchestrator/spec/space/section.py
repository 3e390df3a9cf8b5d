"""The ``search`` part of the file -> ``Search``: a space, or named configurations. And back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.mistakes import Keys, Mistake, Mistakes, quoted, unknown_field
from orchestrator.spec.space.checks import (
    SpaceMistakes,
    check_conditions,
    check_named,
    check_nothing_varies,
    check_space,
)
from orchestrator.spec.space.fields import FIELDS, GPU_MEMORY, Names, Numbers
from orchestrator.spec.space.space import (
    DEFAULTS,
    Case,
    Choice,
    Constant,
    Domain,
    IntRange,
    Space,
    Uniform,
    Value,
    find_circle,
)

KINDS = ("value", "choice", "uniform", "loguniform", "int")
"""What a case may be; exactly one of them stands in it."""

GPU = "gpu_memory_gb"
"""The word of a ``when`` that asks for a GPU's memory."""

EPOCHS_ELSEWHERE = " Epochs are set in budget."


@dataclass(frozen=True)
class Search:
    """A space; with ``named`` trials the space holds the constants beside them."""

    space: Space
    named: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()

    @property
    def configurations(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Name and values of each named trial, the constants of the file filled in."""
        return tuple((name, _completed(self.space, dict(given))) for name, given in self.named)

    def on_gpu(self, memory_gb: float) -> Search:
        """What is searched where a trial has ``memory_gb`` of GPU memory; see ``Space.on_gpu``."""
        return Search(self.space.on_gpu(memory_gb), self.named)

    def without(self, backbones: Collection[str]) -> Search | None:
        """What is left to search without these backbones; None where that is nothing."""
        if not self.named:
            space = self.space.without("backbone", backbones)
            return None if space is None else Search(space)
        left = [
            name for name, values in self.configurations if values.get("backbone", DEFAULTS["backbone"]) in backbones
        ]
        named = tuple((name, given) for name, given in self.named if name not in left)
        return Search(self.space, named) if named else None


def _completed(space: Space, given: dict[str, Any]) -> dict[str, Any]:
    values = dict(given)
    for field in space.fields:
        _, domain = field.active(values)
        assert isinstance(domain, Constant)
        values.setdefault(field.name, domain.value)
    return values


def read_search(raw: Any) -> Search:
    """Raises Mistakes that hold everything that is wrong in it."""
    if isinstance(raw, Search):
        return raw
    notes = SpaceMistakes()
    if not isinstance(raw, Mapping):
        raise Mistakes([Mistake((), f"found {quoted(raw)}; allowed: a mapping of fields, each with what it may be.")])
    for name in raw:
        if name not in FIELDS and name != "configurations":
            also = EPOCHS_ELSEWHERE if name == "epochs" else ""
            notes.at(name).add(unknown_field(name, [*FIELDS, "configurations"]) + also, at_key=True)
    cases = {name: _read_cases(name, raw[name], notes.at(name)) for name in FIELDS if name in raw}
    sound = {name: each for name, each in cases.items() if each and not any(m.keys[0] == name for m in notes.found)}
    circle = find_circle(sound)
    if circle:
        notes.at(circle[0]).add(f"its conditions go in a circle: {' -> '.join(circle)}.", at_key=True)
        raise Mistakes(notes.found)
    space = Space.of(sound)
    check_conditions(space, notes)
    named: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()
    if "configurations" in raw:
        named = _read_named(raw["configurations"], notes.at("configurations"))
        check_nothing_varies(space, notes)
    if not notes.found and named:
        check_named(Search(space, named).configurations, [dict(given) for _, given in named], notes)
    asked = {other for each in sound.values() for case in each for other, _ in case.when} | {"backbone", "head"}
    if "configurations" not in raw and not asked & (raw.keys() - sound.keys()):
        check_space(space, notes)
    if notes.found:
        raise Mistakes(notes.found)
    return Search(space, named)


# One field


def _read_cases(name: str, raw: Any, notes: SpaceMistakes) -> tuple[Case, ...]:
    """The cases of one field; () where mistakes were noted."""
    if isinstance(raw, Mapping):
        return _whole([_read_case(name, raw, notes)])
    if not isinstance(raw, list | tuple):
        domain = _read_choice(name, [raw], notes, listed=False)
        return (Case(domain),) if domain else ()
    mappings = [isinstance(item, Mapping) for item in raw]
    if any(mappings) and not all(mappings):
        notes.add("this list mixes plain values and cases; write every one of them as a case: {value: ...}.")
        return ()
    if not raw or not all(mappings):
        domain = _read_choice(name, raw, notes)
        return (Case(domain),) if domain else ()
    cases = _whole([_read_case(name, item, notes.at(i)) for i, item in enumerate(raw)])
    for i, case in enumerate(cases[:-1]):
        if not case.is_conditional:
            notes.at(i + 1).add("is never reached: the case before it has no `when`, so it always applies.")
            return ()
    return cases


def _whole(cases: Iterable[Case | None]) -> tuple[Case, ...]:
    """All of them, or none where one is missing."""
    found = list(cases)
    return tuple(case for case in found if case) if all(found) else ()


def _read_case(name: str, raw: Mapping[str, Any], notes: SpaceMistakes) -> Case | None:
    kinds = [kind for kind in KINDS if kind in raw]
    allowed = (*KINDS, "step", "log", "when")
    wrong = [key for key in raw if key not in allowed]
    for key in wrong:
        notes.at(key).add(unknown_field(key, allowed), at_key=True)
    if len(kinds) != 1:
        if kinds or not wrong:
            found = " and ".join(kinds) if kinds else "none of them"
            notes.add(f"a case needs exactly one of {', '.join(KINDS)}; found {found}.")
        return None
    kind = kinds[0]
    for key in ("step", "log"):
        if key in raw and kind != "int":
            hint = "write loguniform instead" if key == "log" else "it belongs to int"
            notes.at(key).add(f"{kind} has no {key}; {hint}.", at_key=True)
    when = _read_when(name, raw["when"], notes.at("when")) if "when" in raw else _When()
    if kind == "value":
        domain: Domain | None = _read_choice(name, [raw[kind]], notes.at(kind), listed=False)
    elif kind == "choice" and not isinstance(raw[kind], list | tuple):
        domain = None
        notes.at(kind).add(f"found {quoted(raw[kind])}; allowed: a list of values.")
    elif kind == "choice":
        domain = _read_choice(name, raw[kind], notes.at(kind))
    else:
        domain = _read_range(name, kind, raw, notes)
    return Case(domain, when.fields, when.gpu_memory_gb) if domain and when and not wrong else None


def _read_choice(name: str, items: Sequence[Any], notes: SpaceMistakes, listed: bool = True) -> Domain | None:
    if not items:
        notes.add("found an empty list; give it at least one value.")
        return None
    rule, values, before = FIELDS[name], [], len(notes.found)
    for i, item in enumerate(items):
        here = notes.at(i) if listed else notes
        problem = rule.problem(item)
        if problem:
            here.add(problem)
        elif rule.clean(item) in values:
            here.add(f"found {quoted(item)} twice in the list.")
        else:
            values.append(rule.clean(item))
    if len(notes.found) > before:
        return None
    return Constant(values[0]) if len(values) == 1 else Choice(tuple(values))


def _read_range(name: str, kind: str, raw: Mapping[str, Any], notes: SpaceMistakes) -> Domain | None:
    rule, ends, here = FIELDS[name], raw[kind], notes.at(kind)
    if isinstance(rule, Names):
        kind = "names" if any(isinstance(value, str) for value in rule.known()) else "a few numbers"
        here.add(f"{name} holds {kind}, so it takes a value or a list, not a range.")
        return None
    if rule.whole and kind != "int":
        here.add(f"{name} holds whole numbers, so its range is written {{int: [LOW, HIGH]}}.")
        return None
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        here.add(f"found {quoted(ends)}; allowed: two numbers, [LOW, HIGH].")
        return None
    before = len(notes.found)
    for i, end in enumerate(ends):
        bounds = Numbers("", rule.low, rule.high, rule.open, whole=kind == "int")
        problem = bounds.problem(end)
        if kind == "loguniform" and not problem and end <= 0:
            problem = f"found {quoted(end)}; a loguniform range starts above 0."
        if problem:
            here.at(i).add(problem)
    if len(notes.found) > before:
        return None
    low, high = ends
    if low >= high:
        same = f"write {quoted(low)} alone" if low == high else f"write [{quoted(high)}, {quoted(low)}]"
        here.add(f"found [{quoted(low)}, {quoted(high)}]; the first must be below the second: {same}.")
        return None
    if kind == "int":
        return _read_int_range(low, high, raw, notes)
    return Uniform(float(low), float(high), log=kind == "loguniform")


def _read_int_range(low: int, high: int, raw: Mapping[str, Any], notes: SpaceMistakes) -> Domain | None:
    step, log = raw.get("step", 1), raw.get("log", False)
    if not isinstance(step, int) or isinstance(step, bool) or not 1 <= step <= high - low:
        notes.at("step").add(f"found {quoted(step)}; allowed: a whole number, at least 1 and at most {high - low}.")
        return None
    if not isinstance(log, bool):
        notes.at("log").add(f"found {quoted(log)}; allowed: true or false.")
        return None
    if log and (step != 1 or low < 1):
        notes.at("log").add("a logarithmic int range starts at 1 or above and has no step.")
        return None
    return IntRange(low, low + (high - low) // step * step, step, log)


@dataclass(frozen=True)
class _When:
    fields: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    gpu_memory_gb: float = 0


def _read_when(name: str, raw: Any, notes: SpaceMistakes) -> _When | None:
    if not isinstance(raw, Mapping) or not raw:
        notes.add(f"found {quoted(raw)}; allowed: a mapping of other fields, as in {{head: [cosface, arcface]}}.")
        return None
    before = len(notes.found)
    found: dict[str, tuple[Value, ...]] = {}
    for other, values in raw.items():
        here = notes.at(other)
        if other == GPU:
            problem = GPU_MEMORY.problem(values)
            if problem:
                here.add(problem)
        elif other not in FIELDS:
            here.add(unknown_field(other, [*FIELDS, GPU]), at_key=True)
        elif other == name:
            here.add(f"{name} cannot depend on itself.", at_key=True)
        else:
            listed = isinstance(values, list | tuple)
            domain = _read_choice(other, values if listed else [values], here, listed)
            options = domain.values() if domain else None
            found[other] = tuple(options) if options is not None else ()
    if len(notes.found) > before:
        return None
    return _When(tuple((other, found[other]) for other in FIELDS if other in found), float(raw.get(GPU, 0)))


# Named configurations


def read_configuration(raw: Any, notes_at: Keys = (), named: bool = False) -> tuple[dict[str, Value], list[Mistake]]:
    """The values of one configuration and what is wrong with them. ``named``: it may hold a ``name`` too."""
    notes = SpaceMistakes(notes_at)
    if not isinstance(raw, Mapping):
        notes.add(f"found {quoted(raw)}; allowed: a mapping of fields, each with one value.")
        return {}, notes.found
    values: dict[str, Value] = {}
    for field, value in raw.items():
        if named and field == "name":
            continue
        here = notes.at(field)
        if field not in FIELDS:
            also = EPOCHS_ELSEWHERE if field == "epochs" else ""
            here.add(unknown_field(field, [*(["name"] if named else []), *FIELDS]) + also, at_key=True)
        elif problem := FIELDS[field].problem(value):
            here.add(problem)
        else:
            values[field] = FIELDS[field].clean(value)
    return {name: values[name] for name in FIELDS if name in values}, notes.found


def _read_named(raw: Any, notes: SpaceMistakes) -> tuple[tuple[str, tuple[tuple[str, Value], ...]], ...]:
    if not isinstance(raw, list | tuple) or not raw:
        notes.add(f"found {quoted(raw)}; allowed: a list of named trials, as in - {{name: step-1, dropout: 0.5}}.")
        return ()
    found: dict[str, tuple[tuple[str, Value], ...]] = {}
    for i, item in enumerate(raw):
        here = notes.at(i)
        values, mistakes = read_configuration(item, here.keys, named=True)
        notes.found += mistakes
        if not isinstance(item, Mapping):
            continue
        name = item.get("name")
        if "name" not in item:
            here.at("name").add("is missing; every configuration needs one.", at_key=True)
        elif not isinstance(name, str) or not name.strip():
            here.at("name").add(f"found {quoted(name)}; allowed: text that names the trial.")
        elif name in found:
            here.at("name").add(f"found {quoted(name)} twice; each configuration needs a name of its own.")
        else:
            found[name] = tuple(values.items())
    return tuple(found.items())


# Back to plain values


def plain_search(search: Search) -> dict[str, Any]:
    """What ``read_search`` turns back into an equal ``Search``."""
    found: dict[str, Any] = {}
    for field in search.space.fields:
        cases = [_plain_case(case) for case in field.cases]
        found[field.name] = _shortened(cases[0]) if len(cases) == 1 else cases
    if search.named:
        found["configurations"] = [{"name": name, **dict(given)} for name, given in search.named]
    return found


def _plain_case(case: Case) -> dict[str, Any]:
    when: dict[str, Any] = {name: list(values) if len(values) > 1 else values[0] for name, values in case.when}
    if case.gpu_memory_gb:
        when[GPU] = case.gpu_memory_gb
    return {**_plain_domain(case.domain), **({"when": when} if when else {})}


def _plain_domain(domain: Domain) -> dict[str, Any]:
    if isinstance(domain, Constant):
        return {"value": domain.value}
    if isinstance(domain, Choice):
        return {"choice": list(domain.options)}
    if isinstance(domain, Uniform):
        return {"loguniform" if domain.log else "uniform": [domain.low, domain.high]}
    step = {"step": domain.step} if domain.step != 1 else {}
    return {"int": [domain.low, domain.high], **step, **({"log": True} if domain.log else {})}


def _shortened(case: dict[str, Any]) -> Any:
    """A value or a list alone needs no mapping around it."""
    return next(iter(case.values())) if len(case) == 1 and ("value" in case or "choice" in case) else case
