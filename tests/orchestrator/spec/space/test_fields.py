"""The table of fields: what each takes, in which spelling, and what it says to the rest."""

from __future__ import annotations

import jsonschema
import pytest

from orchestrator.spec.schema import condition_schema, configuration_schema
from orchestrator.spec.space.domains import DEFAULTS
from orchestrator.spec.space.fields import FIELDS, GPU_MEMORY, HIGHEST_MARGIN
from trainers.config import BALANCES, FUSIONS, OUTPUT_STRIDES, TrialConfig, canonical
from trainers.heads import HEADS

ALLOWED = [
    ("output_stride", 16, 16),
    ("output_stride", 32, 32),
    ("feature_fusion", True, "concat"),
    ("feature_fusion", False, "none"),
    ("feature_fusion", "sum", "sum"),
    ("mixup", 0, 0.0),
    ("mixup", 10, 10.0),
    ("cutmix", 0.2, 0.2),
    ("balance", "sampling", "sampling"),
    ("margin", 4, 4.0),
]
REFUSED = [
    ("output_stride", 8, "found 8; allowed: 16 or 32."),
    ("output_stride", True, "found true; allowed: 16 or 32."),
    ("output_stride", "16", 'found the text "16"; allowed: 16 or 32.'),
    ("output_stride", 16.5, "found 16.5; allowed: 16 or 32."),
    ("feature_fusion", "concatenate", 'found "concatenate"; did you mean "concat"? Allowed: none, concat, sum.'),
    ("feature_fusion", 1, "found 1. Allowed: none, concat, sum."),
    ("balance", True, "found true. Allowed: none, class_weights, sampling."),
    ("mixup", -0.1, "found -0.1; allowed: a number, at least 0 and at most 10."),
    ("cutmix", 11, "found 11; allowed: a number, at least 0 and at most 10."),
    (
        "optimizer",
        "adamw",
        'found "adamw"; adam with weight_decay above 0 is AdamW here, because the decay is decoupled.',
    ),
    (
        "optimizer",
        "AdamW",
        'found "AdamW"; adam with weight_decay above 0 is AdamW here, because the decay is decoupled.',
    ),
    ("optimizer", "adan", 'found "adan"; did you mean "adam"? Allowed: sgd, adam, rmsprop.'),
    ("view", True, "found true. Allowed: squash, "),
]


@pytest.mark.parametrize(("name", "value", "clean"), ALLOWED)
def test_what_a_field_takes_in_its_one_spelling(name, value, clean):
    assert FIELDS[name].problem(value) is None
    assert FIELDS[name].clean(value) == clean
    assert type(FIELDS[name].clean(value)) is type(clean)


@pytest.mark.parametrize(("name", "value", "sentence"), REFUSED)
def test_what_a_field_says_to_the_rest(name, value, sentence):
    assert str(FIELDS[name].problem(value)).startswith(sentence)


def test_the_schema_agrees_with_the_fields():
    validator = jsonschema.Draft202012Validator(configuration_schema())
    right = [validator.is_valid({name: value}) for name, value, _ in ALLOWED]
    wrong = [validator.is_valid({name: value}) for name, value, _ in REFUSED]
    assert right == [True] * 10
    assert wrong == [False] * 13


def test_every_closed_set_is_that_of_the_contract():
    for name, words in (("output_stride", OUTPUT_STRIDES), ("feature_fusion", FUSIONS), ("balance", BALANCES)):
        assert tuple(FIELDS[name].known()) == words
    assert list(FIELDS) == list(DEFAULTS)


def test_old_configurations_keep_their_ids():
    new = {"output_stride", "feature_fusion", "mixup", "cutmix", "balance"}
    assert canonical({name: DEFAULTS[name] for name in new}).non_defaults() == {}
    assert not new & canonical({"dropout": 0.5}).non_defaults().keys()
    assert {name for name in DEFAULTS if DEFAULTS[name] != getattr(TrialConfig(), name)} == set()


def test_no_head_takes_a_margin_that_the_file_refuses():
    tops = [top for top in HEADS.values() if top.has_margin]
    assert len(tops) >= 4
    assert [top.name for top in tops if top.largest_margin > HIGHEST_MARGIN] == []


def test_a_condition_may_ask_for_a_gpus_memory():
    validator = jsonschema.Draft202012Validator(condition_schema())
    assert validator.is_valid({"gpu_memory_gb": 16, "head": "softmax"})
    for wrong in (0, -1, "16 GB", [16]):
        assert not validator.is_valid({"gpu_memory_gb": wrong})
        assert GPU_MEMORY.problem(wrong)
    assert "gpu_memory_gb" not in configuration_schema()["properties"]
