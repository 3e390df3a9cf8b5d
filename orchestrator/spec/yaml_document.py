"""YAML text -> plain values, each with its place in the file, so that every mistake can name a line.

Here ``${ENV}`` is filled in and ``--set`` is laid over the file. Knows nothing of what a sweep is.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from orchestrator.errors import SpecError
from orchestrator.spec.mistakes import Keys, Mistake, quoted

MOST_VALUES = 20_000
"""Values in one file, each alias counted anew: a few lines of nested aliases could fill the memory."""
LARGEST_WHOLE_NUMBER = 2**63 - 1
_LEAKS = (ValueError, AttributeError, TypeError, LookupError, AssertionError, NotImplementedError)
"""What ruamel lets through, instead of a YAMLError, for a few broken directives, tags and escapes."""


@dataclass(frozen=True)
class SettingRules:
    """How ``--set`` reaches into a file's short forms.

    ``short_forms``: where a word stands for a mapping, and the name under which the word is kept in it.
    ``replaced``: below a top-level field, the names that a new name beside them pushes out.
    """

    short_forms: Mapping[Keys, str] = field(default_factory=dict)
    replaced: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """The values of one file, and where each stands. ``mistakes`` are those found so far.

    ``defaulted``: where ``${NAME:-default}`` stood for a variable that is not set, and its name.
    """

    file: str
    data: dict[str, Any]
    key_places: Mapping[Keys, str] = field(default_factory=dict)
    value_places: Mapping[Keys, str] = field(default_factory=dict)
    mistakes: tuple[Mistake, ...] = ()
    defaulted: Mapping[Keys, str] = field(default_factory=dict)

    def place(self, keys: Keys, at_key: bool = False) -> str:
        """``FILE:LINE:COLUMN`` of the value (or its name), or of the nearest thing around it; or ``--set ...``."""
        if at_key and keys in self.key_places:
            return self.key_places[keys]
        for length in range(len(keys), -1, -1):
            if keys[:length] in self.value_places:
                return self.value_places[keys[:length]]
        return f"{self.file}:1:1"

    def error(self, mistakes: Iterable[Mistake]) -> SpecError:
        """All mistakes, one a line, in the order of the file. Of several about one value only the first counts."""
        told: dict[Keys, tuple[tuple[Any, ...], str]] = {}
        for number, mistake in enumerate((*self.mistakes, *mistakes)):
            place = mistake.place or self.place(mistake.keys, mistake.at_key)
            dotted = ".".join(map(str, mistake.keys))
            text = f"{place}: {dotted}: {mistake.text}" if dotted else f"{place}: {mistake.text}"
            key: Keys = mistake.keys if dotted else (mistake.text,)
            covered = any(key[:length] in told for length in range(1, len(key) + 1))
            if not covered:
                told[key] = (_reading_order(place, number), text)
        return SpecError("\n".join(text for _, text in sorted(told.values())))

    def expand(self, environ: Mapping[str, str]) -> Document:
        """Fill in ``${NAME}`` in every text; ``$${`` stands for a plain ``${``.

        ``${NAME:-text}`` is ``text`` where NAME is unset or empty. An unset name without it becomes a mistake, which
        says with ``${NAME:?text}`` what the variable should hold; ``text`` begins with an example.
        """
        filling = _Filling(environ)
        data = filling.expand(self.data, ())
        mistakes = (*self.mistakes, *filling.mistakes)
        return dataclasses.replace(self, data=data, mistakes=mistakes, defaulted=filling.defaulted)

    def override(self, settings: Iterable[str], rules: SettingRules | None = None) -> Document:
        """Lay ``dotted.field=YAML`` settings over the values, in order.

        A mapping is made where a scalar or nothing was; a number steps into a list.
        """
        document = self
        for setting in settings:
            document = _set(document, setting, rules or SettingRules())
        return document


def _reading_order(place: str, number: int) -> tuple[Any, ...]:
    at = re.fullmatch(r"(.*):(\d+):(\d+)", place, re.DOTALL)
    return (0, int(at[2]), int(at[3]), number) if at and not place.startswith("--set ") else (1, 0, 0, number)


# Reading


def read_document(text: str, file: str) -> Document:
    """Read one YAML mapping. Raises SpecError for broken YAML; smaller mistakes go into ``Document.mistakes``."""
    reader = _Reader(file)
    data = reader.read(text)
    document = Document(file, data, reader.key_places, reader.value_places, tuple(reader.mistakes))
    if data is None and not reader.mistakes:
        raise document.error([Mistake((), 'the file is empty; it needs fields, the first of them "name: my-sweep".')])
    if not isinstance(data, dict):
        found = f'found {quoted(data)}; the file must be a mapping of fields, the first of them "name: my-sweep".'
        raise document.error([Mistake((), found)])
    return document


class _Reader:
    """Turns ruamel's nodes into plain values; notes where each stood."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.key_places: dict[Keys, str] = {}
        self.value_places: dict[Keys, str] = {}
        self.mistakes: list[Mistake] = []
        self.seen = 0

    def read(self, text: str) -> Any:
        """Raises SpecError for text that is not YAML."""
        try:
            node = YAML(typ="safe", pure=True).compose(text)
            return None if node is None else self._value(node, (), ())
        except RecursionError as error:
            raise SpecError(f"{self.file}: lists and mappings are nested too deep to be read.") from error
        except YAMLError as error:
            raise SpecError(self._broken(error, text)) from error
        except _LEAKS as error:
            raise SpecError(f"{self.file}: this is not YAML: {error}") from error

    def _broken(self, error: YAMLError, text: str) -> str:
        mark = isinstance(error, MarkedYAMLError) and (error.problem_mark or error.context_mark)
        place = f"{self.file}:{mark.line + 1}:{mark.column + 1}" if mark else self.file
        if not isinstance(error, MarkedYAMLError):
            return f"{place}: this is not YAML: {' '.join(str(error).split())}"
        problem = error.problem or error.context or "it cannot be read"
        if "'\\t'" in problem:
            return f"{place}: found a tab; YAML is indented with spaces only."
        if "another document" in problem:
            return f"{place}: found a second document (---); one file holds one sweep."
        context = f" ({error.context})" if error.context and error.context != problem else ""
        line = text.splitlines()[mark.line : mark.line + 1] if mark else []
        hint = ' Inside [ ] and { }, a text with ${NAME} needs quotes: "${NAME}".' if "${" in "".join(line) else ""
        return f"{place}: this is not YAML: {problem}{context}.{hint}"

    def _place(self, node: Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _note(self, node: Node, keys: Keys, text: str) -> None:
        self.mistakes.append(Mistake(keys, text, place=self._place(node)))

    def _value(self, node: Node, keys: Keys, around: tuple[Node, ...]) -> Any:
        self.value_places[keys] = self._place(node)
        self.seen += 1
        if self.seen > MOST_VALUES:
            raise SpecError(f"{self._place(node)}: more than {MOST_VALUES} values, aliases counted each time.")
        if any(node is outer for outer in around):
            self._note(node, keys, "an alias that contains itself.")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, keys)
        if not str(node.tag).startswith("tag:yaml.org,2002:"):
            self._note(node, keys, f"the tag {node.tag} has no meaning here; leave it out.")
        if isinstance(node, SequenceNode):
            return [self._value(item, (*keys, i), (*around, node)) for i, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)
        return self._mapping(node, keys, around)

    def _mapping(self, node: MappingNode, keys: Keys, around: tuple[Node, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._note(key_node, keys, "a field's name must be a word, not a list or a mapping.")
                continue
            name = self._text(key_node, keys)
            if name in values:
                first = self.key_places[(*keys, name)].removeprefix(f"{self.file}:").partition(":")[0]
                self._note(key_node, (*keys, name), f"written twice; the first is in line {first}.")
                continue
            self.key_places[(*keys, name)] = self._place(key_node)
            values[name] = self._value(value_node, (*keys, name), (*around, node))
        return values

    def _scalar(self, node: ScalarNode, keys: Keys) -> Any:
        kind, text = str(node.tag).removeprefix("tag:yaml.org,2002:"), self._text(node, keys)
        if kind in ("str", "timestamp", "value", "merge"):
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in ("true", "yes", "on", "y")
        try:
            if kind in ("int", "float"):
                return self._bounded(node, keys, _whole_number(text) if kind == "int" else _number(text))
        except ValueError:
            self._note(node, keys, f"found {quoted(text)}; it looks like a number but is none.")
            return None
        self._note(node, keys, f"the tag {node.tag} has no meaning here; leave it out.")
        return None

    def _text(self, node: ScalarNode, keys: Keys) -> str:
        """The scalar's text, with two \\u escapes that stand for one character joined."""
        joined = str(node.value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "\ufffd" in joined and "\ufffd" not in node.value:
            self._note(node, keys, "half a character: a \\ud800 ... \\udfff escape needs its other half.")
        return joined

    def _bounded(self, node: ScalarNode, keys: Keys, number: int | float) -> int | float | None:
        if isinstance(number, float) and math.isfinite(number):
            return number
        if isinstance(number, int) and abs(number) <= LARGEST_WHOLE_NUMBER:
            return number
        why = "that is no number to work with" if isinstance(number, float) else "that is too large"
        self._note(node, keys, f"found {quoted(str(node.value))[1:-1]}; {why}.")
        return None


def _whole_number(text: str) -> int:
    text = text.replace("_", "").lower()
    base = {"0x": 16, "0o": 8, "0b": 2}.get(text.lstrip("+-")[:2], 10)
    return int(text, base)


def _number(text: str) -> float:
    return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))


# Environment and --set

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<sign>:[-?])(?P<text>.*))?", re.DOTALL)


@dataclass
class _Filling:
    """Fills in environment variables; notes which are not set."""

    environ: Mapping[str, str]
    mistakes: list[Mistake] = field(default_factory=list)
    defaulted: dict[Keys, str] = field(default_factory=dict)

    def expand(self, value: Any, keys: Keys) -> Any:
        if isinstance(value, dict):
            return {name: self.expand(inner, (*keys, name)) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.expand(inner, (*keys, i)) for i, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        return _VARIABLE.sub(lambda found: self._variable(found, keys), value)

    def _variable(self, found: re.Match[str], keys: Keys) -> str:
        if found[1] is None:
            return "${"
        inside = _INSIDE.fullmatch(found[1])
        if inside is None or not found[0].endswith("}"):
            self.mistakes.append(
                Mistake(keys, f"found {quoted(found[0])}; write an environment variable as ${{NAME}}.")
            )
            return found[0]
        name, sign, text = inside["name"], inside["sign"], inside["text"]
        value = self.environ.get(name)
        if value or (value is not None and sign is None):
            return value
        if sign == ":-":
            self.defaulted[keys] = name
            return text
        self.mistakes.append(Mistake(keys, _unset(name, text or "")))
        return found[0]


def _unset(name: str, text: str) -> str:
    """The sentence for a variable that is not set. ``text``: an example, and after a comma what it is."""
    example, _, what = (part.strip() for part in text.partition(","))
    holds = f"; it should name {what.rstrip('.')}" if what else ""
    return f"the environment variable {name} is not set{holds}. Type: export {name}={example or '...'}"


def escape(text: str) -> str:
    """The text that ``Document.expand`` turns back into ``text``."""
    return text.replace("${", "$${")


def _set(document: Document, setting: str, rules: SettingRules) -> Document:
    place = f"--set {setting}"
    dotted, sign, text = setting.partition("=")
    names = [name.strip() for name in dotted.split(".")]
    if not sign or not all(names):
        usage = Mistake((), "write a field, an equals sign and a value, as in --set budget.trials=5.", place=place)
        return dataclasses.replace(document, mistakes=(*document.mistakes, usage))
    reader = _Reader(place)
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
    """A copy of ``tree`` with ``value`` at ``names``, and the keys that these names turned out to be."""
    if not names:
        return value, above
    name, *rest = names
    if isinstance(tree, list) and re.fullmatch(r"\d{1,6}", name, re.ASCII) and int(name) < len(tree):
        inner, keys = _put(tree[int(name)], rest, (*above, int(name)), value, rules)
        return [*tree[: int(name)], inner, *tree[int(name) + 1 :]], keys
    if above in rules.short_forms and isinstance(tree, str):
        tree = {rules.short_forms[above]: tree}
    mapping = tree if isinstance(tree, dict) else {}
    pushed_out = rules.replaced.get(str(above[0]), {}).get(name, ()) if above and not rest else ()
    mapping = {other: kept for other, kept in mapping.items() if other not in pushed_out}
    inner, keys = _put(mapping.get(name), rest, (*above, name), value, rules)
    return {**mapping, name: inner}, keys
