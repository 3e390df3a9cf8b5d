"""What must fit together in the search, and conditions on the GPU: there and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.mistakes import Mistakes
from orchestrator.spec.space.domains import Choice, Constant, Uniform
from orchestrator.spec.space.section import plain_search, read_search
from orchestrator.spec.space.space import Case
from trainers.heads import Head

TALL = Head("tall", normalised=True, margin_function="trainers.heads:cosface_margin", default_margin=0.2)
"""A head of one's own without a largest margin."""


def mistakes(raw):
    with pytest.raises(Mistakes) as error:
        read_search(raw)
    return [(".".join(map(str, mistake.keys)), mistake.text) for mistake in error.value.mistakes]


# Conditions on the GPU


def test_a_case_may_ask_for_a_gpu():
    search = read_search(
        {
            "backbone": ["mobilenet_1.0", "vgg16"],
            "batch_size": [
                {"choice": [32, 64], "when": {"gpu_memory_gb": 16, "backbone": "vgg16"}},
                {"value": 64, "when": {"gpu_memory_gb": 12.5}},
                {"value": 16},
            ],
        }
    )
    field = search.space.field("batch_size")
    assert field.cases == (
        Case(Choice((32, 64)), (("backbone", ("vgg16",)),), 16.0),
        Case(Constant(64), (), 12.5),
        Case(Constant(16)),
    )
    assert read_search(plain_search(search)) == search
    assert search.on_gpu(0).space.field("batch_size").cases == (Case(Constant(16)),)
    assert search.on_gpu(14).space.field("batch_size").cases == (Case(Constant(64)),)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (0, "found 0; allowed: a number, above 0 and at most 10000."),
        ("16", 'found the text "16"; allowed: a number, above 0 and at most 10000.'),
        ([8, 16], "found a list; allowed: a number, above 0 and at most 10000."),
        (None, "found null; allowed: a number, above 0 and at most 10000."),
    ],
)
def test_how_much_memory_must_be_a_number(value, sentence):
    found = mistakes({"batch_size": [{"value": 64, "when": {"gpu_memory_gb": value}}, {"value": 8}]})
    assert found == [("batch_size.0.when.gpu_memory_gb", sentence)]


def test_an_unknown_condition_names_the_gpu_too():
    ((place, text),) = mistakes({"batch_size": {"value": 64, "when": {"gpu_memory": 16}}})
    assert place == "batch_size.when.gpu_memory"
    assert text.startswith('no such field; did you mean "gpu_memory_gb"?')
    assert "balance, gpu_memory_gb." in text


def test_configurations_take_the_constants_of_the_gpu():
    raw = {
        "batch_size": [{"value": 64, "when": {"gpu_memory_gb": 16}}, {"value": 16}],
        "configurations": [{"name": "a"}, {"name": "b", "batch_size": 8}],
    }
    search = read_search(raw)
    sizes = {gb: [values["batch_size"] for _, values in search.on_gpu(gb).configurations] for gb in (0, 24)}
    assert sizes == {0: [16, 8], 24: [64, 8]}
    assert read_search(plain_search(search)) == search


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([{"value": 8}, {"choice": [8, 16]}, {"int": [8, 64], "step": 8}]),
            st.none() | st.floats(0.1, 100) | st.integers(1, 100),
            st.none() | st.lists(st.sampled_from(["softmax", "arcface"]), min_size=1, unique=True),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_conditions_on_the_gpu_survive_there_and_back(cases):
    found = []
    for domain, memory, heads in cases:
        when = {**({"gpu_memory_gb": memory} if memory else {}), **({"head": heads} if heads else {})}
        found.append({**domain, **({"when": when} if when else {})})
        if not when:
            break
    search = read_search({"head": ["softmax", "arcface"], "batch_size": found})
    assert read_search(plain_search(search)) == search
    for memory in (0, 10, 1000):
        small = search.on_gpu(memory)
        assert read_search(plain_search(small)) == small


# Output strides


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (
            {"backbone": ["vgg16", "convnext_tiny", "resnet50", "nasnet_mobile"], "output_stride": [16, 32]},
            [
                (
                    "output_stride",
                    "16 is not supported by convnext_tiny, nasnet_mobile; add a condition, such as "
                    "{choice: [16, 32], when: {backbone: [vgg16, resnet50]}}.",
                )
            ],
        ),
        (
            {"backbone": ["vgg16", "convnext_tiny"], "output_stride": {"value": 16, "when": {"dropout": 0}}},
            [
                (
                    "output_stride",
                    "16 is not supported by convnext_tiny; add a condition, such as "
                    "{choice: [16, 32], when: {backbone: vgg16}}.",
                )
            ],
        ),
    ],
)
def test_a_stride_that_a_backbone_cannot_do(raw, found):
    assert mistakes(raw) == found


def test_a_stride_that_no_backbone_here_can_do():
    ((place, text),) = mistakes({"backbone": "inception_v3", "output_stride": 16})
    assert place == "output_stride"
    assert text.startswith(
        "16 is not supported by inception_v3; leave it out, or add a backbone that supports it: mobilenet_0.25"
    )
    assert "resnet50, " in text
    assert "convnext" not in text


def test_strides_that_fit():
    backbones = ["vgg16", "convnext_tiny"]
    for stride in (
        32,
        {"choice": [16, 32], "when": {"backbone": "vgg16"}},
        [{"value": 32, "when": {"backbone": "convnext_tiny"}}, {"choice": [16, 32]}],
    ):
        read_search({"backbone": backbones, "output_stride": stride})
    # the first case leaves convnext_tiny to the second where the GPU is small
    first = {"value": 32, "when": {"backbone": "convnext_tiny", "gpu_memory_gb": 8}}
    ((place, _),) = mistakes({"backbone": backbones, "output_stride": [first, {"choice": [16, 32]}]})
    assert place == "output_stride.1"


def test_a_stride_takes_no_range():
    found = mistakes({"output_stride": {"int": [16, 32]}})
    assert found == [
        ("output_stride.int", "output_stride holds a few numbers, so it takes a value or a list, not a range.")
    ]


# Margins and scales


@pytest.mark.parametrize(
    ("raw", "place", "text"),
    [
        (
            {"head": ["cosface", "sphereface"], "margin": {"uniform": [0.05, 0.4]}},
            "margin",
            "found a number from 0.05 to 0.4, but sphereface takes margins from 1 to 4; add an earlier case, "
            "such as {uniform: [1, 4], when: {head: sphereface}}.",
        ),
        (
            {
                "head": ["arcface", "sphereface"],
                "margin": [{"value": 0.5, "when": {"head": "sphereface"}}, {"value": 2}],
            },
            "margin.0",
            "found 0.5, but sphereface takes margins from 1 to 4; add an earlier case, such as "
            "{uniform: [1, 4], when: {head: sphereface}}.",
        ),
        (
            {"head": "cosface", "margin": [None, 0.2, 1.5]},
            "margin",
            "found one of null, 0.2, 1.5, but cosface takes margins from 0 to 1; add an earlier case, "
            "such as {uniform: [0, 1], when: {head: cosface}}.",
        ),
    ],
)
def test_a_margin_outside_its_heads_range(raw, place, text):
    assert mistakes(raw)[0] == (place, text)


def test_the_range_that_a_mistake_shows_is_itself_right():
    wrong = {"head": ["arcface", "softmax"], "margin": {"uniform": [0.1, 3]}}
    ((_, text),) = mistakes(wrong)
    assert "{uniform: [0, 1.57], when: {head: arcface}}" in text
    read_search({**wrong, "margin": {"uniform": [0, 1.57], "when": {"head": "arcface"}}})


def test_margins_by_head_fit():
    search = read_search(
        {
            "head": ["softmax", "sphereface", "cosface", "arcface", "tests.orchestrator.spec.space.test_section:TALL"],
            "margin": [
                {"uniform": [1.1, 2], "when": {"head": "sphereface"}},
                {"uniform": [0.05, 0.4], "when": {"head": "cosface"}},
                {"value": 4, "when": {"head": "tests.orchestrator.spec.space.test_section:TALL"}},
                {"uniform": [0.05, 0.5]},
            ],
        }
    )
    assert search.space.domains("margin")[-1] == Uniform(0.05, 0.5)


def test_sphereface_has_no_scale():
    found = mistakes({"head": "sphereface", "scale": 16})
    assert found == [("scale", "the head sphereface has no scale; leave it out, or add a head that has one.")]
    read_search({"head": ["sphereface", "cosface"], "scale": {"value": 16, "when": {"head": "cosface"}}})


def test_named_configurations_must_fit_too():
    found = mistakes(
        {
            "configurations": [
                {"name": "a", "backbone": "convnext_tiny", "output_stride": 16},
                {"name": "b", "backbone": "vgg16", "output_stride": 16},
                {"name": "c", "head": "sphereface", "margin": 0.2},
                {"name": "d", "head": "sphereface", "margin": 1.5},
                {"name": "e", "head": "sphereface", "scale": 16},
                {"name": "f", "feature_fusion": True},
                {"name": "g", "feature_fusion": "concat"},
                {"name": "h", "mixup": 0.2, "unfrozen_layers": 0},
            ]
        }
    )
    assert found == [
        ("configurations.0", "output_stride is 16, but convnext_tiny only takes 32."),
        ("configurations.2", "margin is 0.2, but sphereface takes 1 to 4."),
        ("configurations.4.scale", "the head sphereface has no scale; leave it out."),
        ("configurations.6", '"g" is the same configuration as "f", and would not be trained again.'),
    ]
