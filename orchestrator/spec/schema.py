"""JSON Schema of the file, for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.spec.space.fields import FIELDS, GPU_MEMORY, Names, Numbers
from orchestrator.spec.sweep import SweepSpec


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the file, for editors. Describes the shape; ``load_spec`` checks more."""
    schema = SweepSpec.model_json_schema(mode="validation")
    schema["properties"]["search"] = search_schema()
    schema["$defs"][CONDITION] = condition_schema()
    budget = schema["$defs"]["BudgetSpec"]
    budget["properties"]["first"] |= {"type": "array", "items": configuration_schema()}
    budget["required"].remove("trials")  # counted where `configurations` are given
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(json.dumps(schema))}


def configuration_schema(extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """JSON Schema of one configuration: a value for each named field."""
    properties = {name: {"description": rule.description, **rule.schema()} for name, rule in FIELDS.items()}
    return {"type": "object", "properties": {**(extra or {}), **properties}, "additionalProperties": False}


CONDITION = "Condition"
"""The name among ``$defs`` under which ``search_schema`` expects ``condition_schema``."""


def condition_schema() -> dict[str, Any]:
    """JSON Schema of a ``when``."""
    properties: dict[str, Any] = {
        name: {"anyOf": [rule.schema(), {"type": "array", "items": rule.schema(), "minItems": 1}]}
        for name, rule in FIELDS.items()
    }
    properties["gpu_memory_gb"] = {"description": GPU_MEMORY.description, **GPU_MEMORY.schema()}
    return {
        "description": "The case applies where each named field has (one of) the given values.",
        **{"type": "object", "properties": properties, "additionalProperties": False, "minProperties": 1},
    }


def search_schema() -> dict[str, Any]:
    """JSON Schema of the ``search`` part."""
    properties = {name: _field_schema(rule) for name, rule in FIELDS.items()}
    named = configuration_schema({"name": {"type": "string", "description": "The trial's name."}})
    properties["configurations"] = {
        "description": "Named trials, run as they stand; nothing else may vary then.",
        **{"type": "array", "minItems": 1, "items": {**named, "required": ["name"]}},
    }
    return {
        "description": "What may vary: a value, a list, a range, or a list of cases tried in order.",
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
