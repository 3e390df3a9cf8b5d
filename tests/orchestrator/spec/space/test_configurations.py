"""Named configurations."""

from __future__ import annotations

import re

import pytest

from orchestrator.spec.practice import PRACTICE
from tests.support.sweep_files import mistakes, sweep


def test_configurations_take_the_constants_next_to_them(load):
    text = (
        "name: ladder\ndata: {source: 'builtin:digits'}\nbudget: {epochs: 2}\nsearch:\n"
        "  image_size: 64\n  dropout: {value: 0.5, when: {head: softmax}}\n"
        "  configurations:\n"
        "    - {name: step-1, backbone: vgg16}\n    - {name: step-2, head: normface}\n"
        "    - {name: step-3, image_size: 96, dropout: 0}\n"
    )
    spec = load(text)
    assert spec.budget.trials == 3
    assert spec.configurations == (
        ("step-1", {"backbone": "vgg16", "image_size": 64, "dropout": 0.5, **PRACTICE}),
        ("step-2", {"head": "normface", "image_size": 64, "dropout": 0.0, **PRACTICE}),
        ("step-3", {"image_size": 96, "dropout": 0.0, **PRACTICE}),
    )
    assert [name for name, _ in load(text, "budget.trials=2").configurations] == ["step-1", "step-2"]


CONFIGURATIONS = [
    ("configurations: []", ["search.configurations: found an empty list; allowed: a list of named trials"]),
    ("configurations: [5]", ["search.configurations.0: found 5; allowed: a mapping of fields, each with one value."]),
    ("configurations: [{dropout: 0}]", ["search.configurations.0.name: is missing; every configuration needs one."]),
    ("configurations: [{name: 5}]", ["search.configurations.0.name: found 5; allowed: text that names the trial."]),
    (
        "configurations: [{name: a, dropout: [0, 0.1]}, {name: a, dropuot: 1, epochs: 3}]",
        [
            "search.configurations.0.dropout: found a list; allowed: a number",
            'search.configurations.1.name: found "a" twice; each configuration needs a unique name.',
            'search.configurations.1.dropuot: no such field; did you mean "dropout"? Allowed: name, backbone, ',
            "search.configurations.1.epochs: no such field. Allowed: name, backbone, ",
        ],
    ),
    (
        "configurations: [{name: a}], dropout: [0, 0.1], smoothing: {uniform: [0, 0.1]}",
        [
            "search.dropout: varies, but next to `configurations` every field takes a single value.",
            "search.smoothing: varies, but next to `configurations` every field takes a single value.",
        ],
    ),
    (
        "configurations: [{name: a}, {name: b, dropout: 0}, {name: c, margin: 0.1}, {name: d, image_size: 16}]",
        [
            'search.configurations.1: "b" is the same configuration as "a", and would not be trained again.',
            "search.configurations.2.margin: the head softmax has no margin; leave it out.",
            "search.configurations.3: image_size is 16, but mobilenet_1.0 needs at least 32 pixels.",
        ],
    ),
]


@pytest.mark.parametrize(("text", "expected"), CONFIGURATIONS)
def test_mistakes_in_configurations(load, text, expected):
    found = mistakes(load, sweep(text), "budget={epochs: 1}")
    assert len(found) == len(expected)
    for sentence, start in zip(found, expected, strict=True):
        assert re.sub(r"^f\.yaml:3:\d+: ", "", sentence).startswith(start)


def test_what_a_list_of_configurations_does_not_take(load):
    text = sweep("configurations: [{name: a}, {name: b, dropout: 0.1}]", ", sampler: random, first: [{dropout: 0}]")
    assert [sentence.split(": ", 1)[1] for sentence in mistakes(load, text)] == [
        "budget.trials: found 5, but search.configurations holds 2; remove it, or write at most 2.",
        "budget.sampler: random has nothing to propose with search.configurations; remove the sampler.",
        "budget.first: search.configurations run in their listed order; remove `first`.",
    ]
