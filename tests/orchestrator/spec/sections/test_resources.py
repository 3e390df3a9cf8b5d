"""The `resources` section."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.spec.sections.resources import LARGEST_MEMORY_GB, ResourcesSpec


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 2, 1024, "auto"])
def test_a_trial_may_have_a_fraction_of_a_gpu_or_whole_ones(gpus: Any) -> None:
    assert ResourcesSpec(gpus=gpus).gpus == gpus


@pytest.mark.parametrize("gpus", [-1, 1.5, 1025, True, "all", None])
def test_other_numbers_of_gpus_are_refused(gpus: Any) -> None:
    with pytest.raises(ValidationError, match="allowed: a fraction of a GPU from 0 to 1, a whole number, or auto"):
        ResourcesSpec(gpus=gpus)


def test_the_memory_is_a_number_of_gb_or_measured() -> None:
    given: tuple[Any, ...] = (0, 15.9, LARGEST_MEMORY_GB, "auto")
    assert tuple(ResourcesSpec(gpu_memory_gb=memory).gpu_memory_gb for memory in given) == given
    for wrong in (-0.1, LARGEST_MEMORY_GB + 1, False, "16"):
        with pytest.raises(ValidationError, match="allowed: a number of GB, at least 0, or auto to measure it"):
            ResourcesSpec(gpu_memory_gb=wrong)  # type: ignore[arg-type]
