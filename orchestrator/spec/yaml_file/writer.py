"""Write values as YAML that YAML 1.1 and 1.2 parsers read alike."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML

from orchestrator.spec.yaml_file.environment import escape


def write_yaml(values: Mapping[str, Any]) -> str:
    """Return YAML text that ``read_document`` and ``expand`` turn back into ``values``."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 10_000
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.representer.add_representer(str, _represent_text)
    yaml.representer.add_representer(float, _represent_number)
    text = io.StringIO()
    yaml.dump(_plain(values), text)
    return text.getvalue()


def _represent_text(representer: Any, text: str) -> Any:
    """Quote all but plain words: some other strings that ruamel leaves unquoted do not read back as written."""
    plain = re.fullmatch(r"[\w/.]([\w/.+ -]*[\w/.+-])?", text, re.ASCII)
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


def _represent_number(representer: Any, number: float) -> Any:
    """Add a decimal point: 1e-05 is a number in YAML 1.2 but a string in YAML 1.1, which most other tools read."""
    text = repr(number)
    if not math.isfinite(number) or "." in text:
        return representer.represent_float(number)
    return representer.represent_scalar("tag:yaml.org,2002:float", text.replace("e", ".0e"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return escape(value) if isinstance(value, str) else value
