"""The JSON Schema of the file."""

from __future__ import annotations

import jsonschema
from ruamel.yaml import YAML

from orchestrator.spec.schema import json_schema
from orchestrator.spec.space.fields import FIELDS
from tests.support.sweep_files import sweep


def test_the_schema_is_one_and_describes_every_field():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    described = 0
    for part in (schema, *(schema["$defs"][name] for name in schema["$defs"] if name.endswith("Spec"))):
        for name, value in part["properties"].items():
            about = schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else value
            assert about.get("description"), name
            described += 1
    assert described > 40
    assert schema["properties"]["search"]["properties"].keys() == FIELDS.keys() | {"configurations"}


def test_the_schema_finds_what_an_editor_can_find():
    validator, yaml = jsonschema.Draft202012Validator(json_schema()), YAML(typ="safe")
    assert validator.is_valid(
        yaml.load(sweep("dropout: {uniform: [0, 0.5], when: {head: [softmax, arcface]}}, head: arcface"))
    )
    assert validator.is_valid(yaml.load(sweep("configurations: [{name: a, dropout: 0.5}]", ", first: [{dropout: 0}]")))
    wrong = ["dropuot: 1", "dropout: 2", "view: center_crop", "dropout: {unifrom: [0, 1]}", "dropout: []"]
    wrong += ["head: {int: [1, 2]}", "configurations: [{}]", "dropout: {value: 0, choice: [0]}"]
    assert [text for text in wrong if validator.is_valid(yaml.load(sweep(text)))] == []
