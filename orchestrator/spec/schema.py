"""JSON Schema of the file, for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.spec.space.fields import FIELDS, GPU_MEMORY, Names, Numbers
from orchestrator.spec.sweep import SweepSpec


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the file, for editors. ``load_spec`` checks more than this schema."""
    schema = SweepSpec.model_json_schema(mode="validation")
    schema["properties"]["search"] = search_schema()
    schema["$defs"][CONDITION] = condition_schema()
    budget = schema["$defs"]["BudgetSpec"]
    budget["properties"]["first"] |= {"type": "array", "items": configuration_schema()}
    budget["required"].remove("trials")  # defaults to the number of `configurations`
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(json.dumps(schema))}


def configuration_schema(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON Schema of one configuration: a value for each field. ``extra``: further properties."""
    properties = {name: {"description": rule.description, **rule.schema()} for name, rule in FIELDS.items()}
    return {"type": "object", "properties": {**(extra or {}), **properties}, "additionalProperties": False}


CONDITION = "Condition"
"""Key in ``$defs`` under which ``search_schema`` refers to ``condition_schema``."""


def condition_schema() -> dict[str, Any]:
    """Return the JSON Schema of a ``when``."""
    properties: dict[str, Any] = {
        name: {"anyOf": [rule.schema(), {"type": "array", "items": rule.schema(), "minItems": 1}]}
        for name, rule in FIELDS.items()
    }
    properties["gpu_memory_gb"] = {"description": GPU_MEMORY.description, **GPU_MEMORY.schema()}
    return {
        "description": "The case applies if every named field has the given value, or one of the listed values.",
        **{"type": "object", "properties": properties, "additionalProperties": False, "minProperties": 1},
    }


def search_schema() -> dict[str, Any]:
    """Return the JSON Schema of the ``search`` section."""
    properties = {name: _field_schema(rule) for name, rule in FIELDS.items()}
    named = configuration_schema({"name": {"type": "string", "description": "The trial's name."}})
    properties["configurations"] = {
        "description": "Named trials to run instead of a search; every other field takes a single value.",
        **{"type": "array", "minItems": 1, "items": {**named, "required": ["name"]}},
    }
    return {
        "description": "What to search: for each field a value, a list, a range, or a list of cases, of which the "
        "first that matches applies.",
        **{"type": "object", "properties": properties, "additionalProperties": False},
    }


def _field_schema(rule: Numbers | Names) -> dict[str, Any]:
    value = rule.schema()
    ends: dict[str, Any] = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    choice = {"type": "array", "items": value, "minItems": 1}
    kinds: dict[str, Any] = {"value": value, "choice": choice}
    if isinstance(rule, Numbers):
        kinds["int"] = {**ends, "items": {"type": "integer"}}
        if not rule.whole:
            kinds |= {"uniform": ends, "loguniform": ends}
    extras = {"step": {"type": "integer", "minimum": 1}, "log": {"type": "boolean"}} if "int" in kinds else {}
    case = {
        **{
            "type": "object",
            "properties": {**kinds, **extras, "when": {"$ref": f"#/$defs/{CONDITION}"}},
            "additionalProperties": False,
        },
        "oneOf": [{"required": [kind]} for kind in kinds],
    }
    forms = [value, choice, case, {"type": "array", "items": case, "minItems": 1}]
    return {"description": rule.description, "anyOf": forms}
