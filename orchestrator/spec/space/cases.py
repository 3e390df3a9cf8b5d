"""Read one field of the ``search`` section: its cases, each with a domain and a condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.mistakes import quoted, unknown_field
from orchestrator.spec.space.checks import SpaceMistakes
from orchestrator.spec.space.domains import Choice, Constant, Domain, IntRange, Uniform, Value
from orchestrator.spec.space.fields import FIELDS, GPU_MEMORY, Names, Numbers
from orchestrator.spec.space.space import Case

KINDS = ("value", "choice", "uniform", "loguniform", "int")
"""Kinds of domain; a case has exactly one of these keys."""
GPU = "gpu_memory_gb"
"""Key of a ``when`` that sets a minimum GPU memory."""


def read_cases(name: str, raw: Any, notes: SpaceMistakes) -> tuple[Case, ...]:
    """Return the cases of one field; () if mistakes were added to ``notes``."""
    if isinstance(raw, Mapping):
        return _whole([_read_case(name, raw, notes)])
    if not isinstance(raw, list | tuple):
        domain = _read_choice(name, [raw], notes, listed=False)
        return (Case(domain),) if domain else ()
    mappings = [isinstance(item, Mapping) for item in raw]
    if any(mappings) and not all(mappings):
        notes.add("this list mixes plain values and cases; write each plain value as a case: {value: ...}.")
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
    """Return all cases, or () if any is None."""
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
