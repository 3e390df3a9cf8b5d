"""The search section: conditions on the GPU, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.spec.space.domains import Choice, Constant
from orchestrator.spec.space.section import plain_search, read_search
from orchestrator.spec.space.space import Case
from tests.support.spaces import mistakes


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
    assert "draws, decode, gpu_memory_gb." in text


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


def test_a_stride_takes_no_range():
    found = mistakes({"output_stride": {"int": [16, 32]}})
    assert found == [
        ("output_stride.int", "output_stride holds a few numbers, so it takes a value or a list, not a range.")
    ]
