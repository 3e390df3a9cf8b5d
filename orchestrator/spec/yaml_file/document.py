"""A file's values and the place of each, so that every mistake names a line. Applies ``--set`` and ``${NAME}``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.spec.mistakes import Keys, Mistake, quoted
from orchestrator.spec.yaml_file.environment import EnvironmentFiller
from orchestrator.spec.yaml_file.reader import YamlReader

ALLOWED = " Allowed: "
"""What precedes the list of allowed words at the end of a mistake."""
LONG_LIST = 80
"""Minimum letters of a list that is not repeated."""


@dataclass(frozen=True)
class SettingRules:
    """How ``--set`` changes values that have a short form, and fields that exclude each other.

    ``short_forms``: path of a field -> key that a single word stands for, as ``name`` for ``sampler: tpe``.
    ``replaced``: top-level field -> key set anywhere below it -> sibling keys that it removes.
    """

    short_forms: Mapping[Keys, str] = field(default_factory=dict)
    replaced: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """The values of one file, their places, and the mistakes found so far.

    ``key_places`` and ``value_places``: ``FILE:LINE:COLUMN`` of a field's name and of its value. ``defaulted``: path of
    a value that took the default of ``${NAME:-default}`` -> NAME.
    """

    file: str
    data: dict[str, Any]
    key_places: Mapping[Keys, str] = field(default_factory=dict)
    value_places: Mapping[Keys, str] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()
    defaulted: Mapping[Keys, str] = field(default_factory=dict)

    def place(self, keys: Keys, at_key: bool = False) -> str:
        """Return ``FILE:LINE:COLUMN`` of a value, or with ``at_key`` of its name; or the ``--set ...`` that set it.

        For a value that is not in the file, return the place of the closest value around it.
        """
        if at_key and keys in self.key_places:
            return self.key_places[keys]
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.value_places:
                return self.value_places[keys[:length]]
        return f"{self.file}:1:1"

    def error(self, mistakes: Iterable[Mistake]) -> SpecError:
        """Return an error with all mistakes, one per line, in file order, and only the first about each value."""
        seen: dict[Keys, tuple[tuple[Any, ...], str]] = {}
        for number, mistake in enumerate((*self.mistakes, *mistakes)):
            place = mistake.place or self.place(mistake.keys, mistake.at_key)
            dotted = ".".join(map(str, mistake.keys))
            text = f"{place}: {dotted}: {mistake.text}" if dotted else f"{place}: {mistake.text}"
            key: Keys = mistake.keys if dotted else (mistake.text,)
            covered = any(key[:length] in seen for length in range(1, len(key) + 1))
            if not covered:
                seen[key] = (_reading_order(place, number), text)
        return SpecError("\n".join(_lists_once(text for _, text in sorted(seen.values()))))

    def expand(self, environ: Mapping[str, str]) -> Document:
        """Expand ``${NAME}`` in every string; ``$${`` is a literal ``${``.

        ``${NAME:-text}`` is ``text`` if NAME is unset or empty. Any other unset NAME is a mistake. With
        ``${NAME:?example, what it is}`` the message says what the variable should name; NAME must not be empty then.
        """
        filling = EnvironmentFiller(environ)
        data = filling.expand(self.data, ())
        mistakes = (*self.mistakes, *filling.mistakes)
        return dataclasses.replace(self, data=data, mistakes=mistakes, defaulted=filling.defaulted)

    def override(self, settings: Iterable[str], rules: SettingRules | None = None) -> Document:
        """Apply ``dotted.field=YAML`` settings, in order.

        A mapping replaces a scalar or a missing value on the way; a number indexes a list.
        """
        document = self
        for setting in settings:
            document = _set(document, setting, rules or SettingRules())
        return document


def _lists_once(texts: Iterable[str]) -> list[str]:
    """Shorten the lists of allowed words at the end of ``texts`` where an earlier text has the same long one."""
    found: list[str] = []
    lists: set[str] = set()
    for text in texts:
        before, allowed, words = text.rpartition(ALLOWED)
        if len(words) >= LONG_LIST and words in lists:
            text = f"{before}{allowed}as above."
        lists.add(words)
        found.append(text)
    return found


def _reading_order(place: str, number: int) -> tuple[Any, ...]:
    at = re.fullmatch(r"(.*):(\d+):(\d+)", place, re.DOTALL)
    return (0, int(at[2]), int(at[3]), number) if at and not place.startswith("--set ") else (1, 0, 0, number)


def read_document(text: str, file: str) -> Document:
    """Read one YAML mapping. Raises SpecError for invalid YAML; other mistakes go into ``Document.mistakes``."""
    reader = YamlReader(file)
    data = reader.read(text)
    document = Document(file, data, reader.key_places, reader.value_places, tuple(reader.mistakes))
    if data is None and not reader.mistakes:
        raise document.error([Mistake((), 'the file is empty; begin with "name: my-sweep".')])
    if not isinstance(data, dict):
        found = f'found {quoted(data)}; the file must be a mapping of fields, beginning with "name: my-sweep".'
        raise document.error([Mistake((), found)])
    return document


def _set(document: Document, setting: str, rules: SettingRules) -> Document:
    place = f"--set {setting}"
    dotted, sign, text = setting.partition("=")
    names = [name.strip() for name in dotted.split(".")]
    if not sign or not all(names):
        usage = Mistake((), "write a field, an equals sign and a value, as in --set budget.trials=5.", place=place)
        return dataclasses.replace(document, mistakes=(*document.mistakes, usage))
    reader = YamlReader(place)
    try:
        value = reader.read(text)
    except SpecError as error:
        reason = str(error).removeprefix(place).lstrip(":0123456789 ")
        broken = Mistake((), reason, place=place)
        return dataclasses.replace(document, mistakes=(*document.mistakes, broken))
    data, keys = _put(document.data, names, (), value, rules)
    made = {keys[:length] for length in range(1, len(keys) + 1)} - document.value_places.keys()

    def outside(places: Mapping[Keys, str]) -> dict[Keys, str]:
        return {at: where for at, where in places.items() if at[: len(keys)] != keys}

    return dataclasses.replace(
        document,
        data=data,
        key_places={**outside(document.key_places), **dict.fromkeys({keys, *made}, place)},
        value_places={**outside(document.value_places), **dict.fromkeys({keys, *made}, place)},
        mistakes=(
            *(m for m in document.mistakes if not m.keys or m.keys[: len(keys)] != keys),
            *(dataclasses.replace(m, keys=(*keys, *m.keys), place=place) for m in reader.mistakes),
        ),
    )


def _put(tree: Any, names: Sequence[str], above: Keys, value: Any, rules: SettingRules) -> tuple[Any, Keys]:
    """Return a copy of ``tree`` with ``value`` at ``names``, and the path of the value, with integers for indices."""
    if not names:
        return value, above
    name, *rest = names
    if isinstance(tree, list) and re.fullmatch(r"\d{1,6}", name, re.ASCII) and int(name) < len(tree):
        inner, keys = _put(tree[int(name)], rest, (*above, int(name)), value, rules)
        return [*tree[: int(name)], inner, *tree[int(name) + 1 :]], keys
    if above in rules.short_forms and isinstance(tree, str):
        tree = {rules.short_forms[above]: tree}
    mapping = tree if isinstance(tree, dict) else {}
    removed = rules.replaced.get(str(above[0]), {}).get(name, ()) if above and not rest else ()
    mapping = {other: kept for other, kept in mapping.items() if other not in removed}
    inner, keys = _put(mapping.get(name), rest, (*above, name), value, rules)
    return {**mapping, name: inner}, keys
