"""The memory of the GPU: when it is measured, and what must fit it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import SpecError
from orchestrator.spec.gpu import replace_memory, with_gpu_memory
from orchestrator.spec.sweep import SweepSpec


@given(st.floats(0, 1000))
def test_a_number_that_was_given_is_never_measured(memory: float) -> None:
    values = {"name": "x", "data": {"source": "builtin:digits"}, "budget": {"trials": 1, "epochs": 1}}
    cases = [{"value": 64, "when": {"gpu_memory_gb": 16}}, {"value": 8}]
    spec = SweepSpec.model_validate({**values, "search": {"batch_size": cases}, "resources": {"gpu_memory_gb": memory}})
    assert with_gpu_memory(spec) is spec


def test_a_space_that_does_not_ask_is_never_measured() -> None:
    values = {"name": "x", "data": {"source": "builtin:digits"}, "budget": {"trials": 1, "epochs": 1}}
    spec = SweepSpec.model_validate({**values, "search": {"batch_size": 8}})
    assert spec.resources.gpu_memory_gb == "auto"
    assert with_gpu_memory(spec) is spec


def test_what_does_not_fit_the_memory_is_a_sentence_that_names_it() -> None:
    values = {"name": "x", "data": {"source": "builtin:digits"}}
    cases = [{"choice": [64, 128], "when": {"gpu_memory_gb": 16}}, {"choice": [8, 16]}]
    budget = {"trials": 1, "epochs": 1, "first": [{"batch_size": 128}]}
    spec = SweepSpec.model_validate({**values, "search": {"batch_size": cases}, "budget": budget})
    assert replace_memory(spec, 16.0).resources.gpu_memory_gb == 16.0
    with pytest.raises(
        SpecError, match=r"^with resources.gpu_memory_gb 8.0, as measured: budget.first.0: lies outside"
    ):
        replace_memory(spec, 8.0)
