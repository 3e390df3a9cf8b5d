"""Error messages about a file: what was found, what is allowed, the nearest valid spelling."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trainers import wording

Keys = tuple[str | int, ...]
"""Path from the top of the file to a value: keys of mappings, indices of lists."""


@dataclass(frozen=True)
class Mistake:
    """One mistake. ``at_key``: report the place of the field's name, not of its value; ``place`` overrides both."""

    keys: Keys
    text: str
    at_key: bool = False
    place: str = ""


class Mistakes(ValueError):
    """Mistakes below one value, raised by pydantic validators to report them all at once."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(m.text for m in self.mistakes))


def quoted(value: Any) -> str:
    """Format ``value`` as in YAML, shortened for a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value if len(value) <= 60 else value[:57] + "..."}"'
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def nearest(value: Any, known: Iterable[str]) -> str:
    """Return ``; did you mean "x"?`` if a known word resembles ``value``, else a full stop."""
    near = wording.nearest(str(value), known)
    return f'; did you mean "{near}"?' if near else "."


def unknown_value(value: Any, known: Sequence[str], also: str = "") -> str:
    """Return the message about a value that is not in ``known``; ``also`` ends the list of allowed ones."""
    return f"found {quoted(value)}{nearest(value, known)} Allowed: {', '.join(known)}{also}."


def unknown_field(name: Any, known: Sequence[str]) -> str:
    """Return the message about a field that is not in ``known``."""
    return f"no such field{nearest(name, known)} Allowed: {', '.join(known)}."


def item_mistakes(items: Sequence[Any], problem: Callable[[Any], str | None]) -> list[Mistake]:
    """Return a mistake for each of ``items`` that has a ``problem`` or stands in the list twice, with its index."""
    found = []
    for i, item in enumerate(items):
        if text := problem(item) or (f"found {quoted(item)} twice in the list." if item in items[:i] else ""):
            found.append(Mistake((i,), text))
    return found


_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def mistakes_of(
    error: ValidationError, model: type[BaseModel], further: Mapping[str, str] | None = None
) -> list[Mistake]:
    """Convert pydantic's errors about ``model`` to mistakes.

    A field at the top that belongs into a section is answered with its full name; ``further``: name -> full name of
    fields that ``model`` does not list.
    """
    below: dict[str, str] = {}
    for name in model.model_fields:
        for inner_name in _fields_below(model, name):
            below[inner_name] = (
                f"{below[inner_name]} or {name}.{inner_name}" if inner_name in below else f"{name}.{inner_name}"
            )
    below |= further or {}
    found: list[Mistake] = []
    for each in error.errors(include_url=False):
        loc: Keys = tuple(each["loc"])
        inner = each.get("ctx", {}).get("error")
        if isinstance(inner, Mistakes):
            found += [dataclasses.replace(m, keys=(*loc, *m.keys)) for m in inner.mistakes]
        elif each["type"] == "missing":
            field = _field_at(model, loc)
            hint = f" {field.description}" if field and field.description else ""
            found.append(Mistake(loc, f"is missing.{hint}", at_key=True))
        elif each["type"] == "extra_forbidden":
            owner = _model_at(model, loc[:-1]) or model
            text = unknown_field(loc[-1], list(owner.model_fields))
            if len(loc) == 1 and (place := _place_below(str(loc[0]), below, owner)):
                text = f"no such field at the top of the file; did you mean {place}?"
            found.append(Mistake(loc, text, at_key=True))
        else:
            found.append(Mistake(loc, _message(each, model)))
    return found


def _place_below(name: str, below: Mapping[str, str], top: type[BaseModel]) -> str:
    """Return the full name of the field below the top that ``name`` is or resembles; "" if one at the top does."""
    if name in below:
        return below[name]
    near = None if wording.nearest(name, top.model_fields) else wording.nearest(name, below)
    return below[near] if near else ""


def _message(each: Any, model: type[BaseModel]) -> str:
    kind, value, field = each["type"], each["input"], _field_at(model, each["loc"])
    if kind == "value_error":
        return str(each["ctx"]["error"])
    if kind == "literal_error" and field is not None:
        return unknown_value(value, [str(word) for word in _literals(field.annotation)])
    if kind == "model_type":
        owner = _model_at(model, each["loc"]) or model
        return f"found {quoted(value)}; allowed: a mapping with the fields {', '.join(owner.model_fields)}."
    if kind == "bool_type" and value in ("no", "off", "yes", "on"):
        return f"found the word {quoted(value)}; allowed: true or false (YAML 1.2 reads yes, no, on and off as text)."
    bounds = _bounds(field)
    number = "a number" if field and float in _parts(field.annotation) else "a whole number"
    words = _KINDS.get(kind) or (number if bounds and isinstance(value, int | float) else "")
    if not words:
        return f"found {quoted(value)}: {each['msg']}."
    as_text = "the text " if isinstance(value, str) and kind != "string_type" else ""
    return f"found {as_text}{quoted(value)}; allowed: {words}{', ' + bounds if bounds else ''}."


def _bounds(field: FieldInfo | None) -> str:
    limits = {key: getattr(m, key) for m in (field.metadata if field else ()) for key in _BOUNDS if hasattr(m, key)}
    return " and ".join(f"{word} {quoted(limits[key])}" for key, word in _BOUNDS.items() if key in limits)


def _parts(annotation: Any) -> Iterable[Any]:
    """Yield the annotation and, recursively, the arguments of its unions and generics."""
    yield annotation
    if typing.get_origin(annotation) is not Literal:
        for inner in typing.get_args(annotation):
            yield from _parts(inner)


def _literals(annotation: Any) -> list[Any]:
    return [word for part in _parts(annotation) if typing.get_origin(part) is Literal for word in typing.get_args(part)]


def _model_at(model: type[BaseModel], loc: Keys) -> type[BaseModel] | None:
    if not loc:
        return model
    field = _field_at(model, loc)
    parts = _parts(field.annotation) if field else ()
    return next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)


def _fields_below(model: type[BaseModel], section: str) -> list[str]:
    found = _model_at(model, (section,))
    return list(found.model_fields) if found else []


def _field_at(model: type[BaseModel], loc: Keys) -> FieldInfo | None:
    """Return the field at ``loc``; for an item of a list, the list's field."""
    names = [key for key in loc if isinstance(key, str)]
    if not names:
        return None
    owner = _model_at(model, tuple(names[:-1]))
    return owner.model_fields.get(names[-1]) if owner else None
