"""Convert the ``search`` section of the file to a ``Search``, a space or named configurations, and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.spec.mistakes import Keys, Mistake, Mistakes, quoted, unknown_field
from orchestrator.spec.space.cases import GPU, read_cases
from orchestrator.spec.space.checks import (
    SpaceMistakes,
    check_conditions,
    check_named,
    check_nothing_varies,
    check_space,
)
from orchestrator.spec.space.domains import DEFAULTS, Choice, Constant, Domain, Uniform, Value
from orchestrator.spec.space.fields import FIELDS
from orchestrator.spec.space.space import Case, Space, find_circle

EPOCHS_ELSEWHERE = " Epochs are set in budget."


@dataclass(frozen=True)
class Search:
    """A space to search, or ``named`` trials; for these, the space holds the constants next to them."""

    space: Space
    named: tuple[tuple[str, tuple[tuple[str, Value], ...]], ...] = ()

    @property
    def configurations(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Name and values of each named trial, including the constants of the file."""
        return tuple((name, _completed(self.space, dict(given))) for name, given in self.named)

    def on_gpu(self, memory_gb: float) -> Search:
        """Return the search for a trial with ``memory_gb`` of GPU memory; see ``Space.on_gpu``."""
        return Search(self.space.on_gpu(memory_gb), self.named)

    def without(self, backbones: Collection[str]) -> Search | None:
        """Return the search without these backbones; None if nothing is left."""
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
    """Validate the ``search`` section. Raises Mistakes with everything that is wrong in it."""
    if isinstance(raw, Search):
        return raw
    notes = SpaceMistakes()
    if not isinstance(raw, Mapping):
        raise Mistakes([Mistake((), f"found {quoted(raw)}; allowed: a mapping of fields to values, lists or ranges.")])
    for name in raw:
        if name not in FIELDS and name != "configurations":
            also = EPOCHS_ELSEWHERE if name == "epochs" else ""
            notes.at(name).add(unknown_field(name, [*FIELDS, "configurations"]) + also, at_key=True)
    cases = {name: read_cases(name, raw[name], notes.at(name)) for name in FIELDS if name in raw}
    sound = {name: each for name, each in cases.items() if each and not any(m.keys[0] == name for m in notes.found)}
    circle = find_circle(sound)
    if circle:
        notes.at(circle[0]).add(f"its conditions form a cycle: {' -> '.join(circle)}.", at_key=True)
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


def read_configuration(raw: Any, notes_at: Keys = (), named: bool = False) -> tuple[dict[str, Value], list[Mistake]]:
    """Return the values of one configuration, and its mistakes. ``named``: allow the key ``name`` too."""
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
            here.at("name").add(f"found {quoted(name)} twice; each configuration needs a unique name.")
        else:
            found[name] = tuple(values.items())
    return tuple(found.items())


def plain_search(search: Search) -> dict[str, Any]:
    """Return plain values that ``read_search`` reads back as an equal ``Search``."""
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
    """Return a lone value or list without the mapping around it."""
    return next(iter(case.values())) if len(case) == 1 and ("value" in case or "choice" in case) else case
