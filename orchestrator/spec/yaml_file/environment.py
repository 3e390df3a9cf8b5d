"""Expand ``${NAME}`` in a file's strings from environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.spec.mistakes import Keys, Mistake, quoted

_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<sign>:[-?])(?P<text>.*))?", re.DOTALL)


@dataclass
class EnvironmentFiller:
    """Expand environment variables; collect mistakes about unset ones, and where defaults were used."""

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
    """Return the message about an unset variable. ``text``: an example and, after a comma, what the variable names."""
    example, _, what = (part.strip() for part in text.partition(","))
    holds = f"; it should name {what.rstrip('.')}" if what else ""
    return f"the environment variable {name} is not set{holds}. Type: export {name}={example or '...'}"


def escape(text: str) -> str:
    """Return the string that ``Document.expand`` turns back into ``text``."""
    return text.replace("${", "$${")
