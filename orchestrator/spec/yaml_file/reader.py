"""Read YAML 1.2 into plain values and record the place of each."""

from __future__ import annotations

import math
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from orchestrator.errors import SpecError
from orchestrator.spec.mistakes import Keys, Mistake, quoted

MOST_VALUES = 20_000
"""Maximum values in one file, an alias counted at each use: a few lines of nested aliases could fill the memory."""
LARGEST_WHOLE_NUMBER = 2**63 - 1
"""Maximum absolute value of an integer."""
_LEAKS = (ValueError, AttributeError, TypeError, LookupError, AssertionError, NotImplementedError)
"""Exceptions that ruamel raises instead of a YAMLError for some invalid directives, tags and escapes."""


class YamlReader:
    """Convert ruamel's nodes to plain values; record the place of each, and mistakes."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.key_places: dict[Keys, str] = {}
        self.value_places: dict[Keys, str] = {}
        self.mistakes: list[Mistake] = []
        self.seen = 0

    def read(self, text: str) -> Any:
        """Return the value of ``text``; None if it is empty. Raises SpecError for invalid YAML."""
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
            self._note(node, keys, f"found {quoted(text)}; it is not a number.")
            return None
        self._note(node, keys, f"the tag {node.tag} has no meaning here; leave it out.")
        return None

    def _text(self, node: ScalarNode, keys: Keys) -> str:
        """Return the scalar's text, with surrogate pairs of \\u escapes joined into one character."""
        joined = str(node.value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if "\ufffd" in joined and "\ufffd" not in node.value:
            self._note(node, keys, "an escape from \\ud800 to \\udfff is half a character; add its other half.")
        return joined

    def _bounded(self, node: ScalarNode, keys: Keys, number: int | float) -> int | float | None:
        if isinstance(number, float) and math.isfinite(number):
            return number
        if isinstance(number, int) and abs(number) <= LARGEST_WHOLE_NUMBER:
            return number
        problem = "it is not a finite number" if isinstance(number, float) else "it is too large"
        self._note(node, keys, f"found {quoted(str(node.value))[1:-1]}; {problem}.")
        return None


def _whole_number(text: str) -> int:
    text = text.replace("_", "").lower()
    base = {"0x": 16, "0o": 8, "0b": 2}.get(text.lstrip("+-")[:2], 10)
    return int(text, base)


def _number(text: str) -> float:
    return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
