"""A batch that is too small for its parts and the GPUs of a trial is a mistake of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.spec.load import load_spec, open_spec
from tests.support.sweep_files import Load, mistakes, sweep

TWO, FOUR = "resources: {gpus: 2}\n", "resources: {gpus: 4}\n"


@pytest.mark.parametrize(
    ("search", "rest"),
    [
        ("batch_size: 1", ""),
        ("batch_size: 4, accumulation_steps: 64, unfrozen_layers: 5", ""),  # 4 parts of one image on one GPU
        ("batch_size: 1", "resources: {gpus: 0.5}\n"),
        ("batch_size: 4, accumulation_steps: 2, unfrozen_layers: 5", TWO),
        ("batch_size: 4, accumulation_steps: 4", TWO),  # nothing below the head is trained, so there are no parts
        ("batch_size: [8, 16], accumulation_steps: [1, 2, 4], unfrozen_layers: 5", TWO),
        ("accumulation_steps: {int: [1, 8]}, unfrozen_layers: 5", FOUR),
    ],
)
def test_batches_that_can_be_divided(load: Load, search: str, rest: str) -> None:
    assert load(sweep(search, rest=rest))


@pytest.mark.parametrize(
    ("search", "rest", "found"),
    [
        (
            "batch_size: 8, accumulation_steps: 8, unfrozen_layers: 5",
            TWO,
            [
                "3:45: search.accumulation_steps: a batch of 8 in 8 accumulation_steps has parts of 1 image, too few "
                "to divide among resources.gpus: 2; write at most 4, or a batch_size of at least 16."
            ],
        ),
        (
            "batch_size: [8, 16, 32], accumulation_steps: [1, 8], unfrozen_layers: [0, 5]",
            TWO,
            [
                "3:55: search.accumulation_steps: a batch of 8 in 8 accumulation_steps has parts of 1 image, too few "
                "to divide among resources.gpus: 2; write at most 4, such as an earlier case {value: 4, when: "
                "{batch_size: 8}}, or a batch_size of at least 16."
            ],
        ),
        (
            "batch_size: [8, 16, 64], accumulation_steps: [{value: 1, when: {head: softmax}}, {int: [2, 8]}], "
            "head: [softmax, normface], unfrozen_layers: 5",
            FOUR,
            [
                "3:91: search.accumulation_steps.1: a batch of 8 in 8 accumulation_steps has parts of 1 image, too few "
                "to divide among resources.gpus: 4; write at most 2, such as an earlier case {value: 2, when: "
                "{batch_size: [8, 16]}}, or a batch_size of at least 32."
            ],
        ),
        (
            "batch_size: {int: [2, 64]}",
            FOUR,
            [
                "3:22: search.batch_size: a batch of 2 has parts of 2 images, too few to divide among "
                "resources.gpus: 4; write at least 4, or fewer GPUs."
            ],
        ),
        (
            "dropout: [0, 0.1]",
            "resources: {gpus: 64}\n",
            [
                "5:19: resources.gpus: a batch of 32 has parts of 32 images, too few to divide among "
                "resources.gpus: 64; write at most 32, or add search.batch_size with at least 64."
            ],
        ),
        (
            "configurations: [{name: a}, {name: b, batch_size: 4, accumulation_steps: 4, unfrozen_layers: 5}]",
            TWO,
            [
                "3:38: search.configurations.1: a batch of 4 in 4 accumulation_steps has parts of 1 image, too few to "
                "divide among resources.gpus: 2; write a batch_size of at least 8, accumulation_steps of at most 2, or "
                "fewer GPUs."
            ],
        ),
        (
            "batch_size: [{value: 16, when: {gpu_memory_gb: 24}}, {value: 8}], accumulation_steps: 8, "
            "unfrozen_layers: 5",
            "resources: {gpus: 2, gpu_memory_gb: auto}\n",
            [
                "3:96: search.accumulation_steps: a batch of 8 in 8 accumulation_steps has parts of 1 image, too few "
                "to divide among resources.gpus: 2; write at most 4, or a batch_size of at least 16."
            ],
        ),
    ],
)
def test_batches_that_cannot_be_divided(load: Load, search: str, rest: str, found: list[str]) -> None:
    text = sweep(search, rest=rest)
    if "configurations" in search:
        text = text.replace("trials: 5, ", "")
    assert [line.partition(":")[2] for line in mistakes(load, text)] == found


def test_a_sweep_that_began_with_such_batches_goes_on_unless_it_is_given_more_gpus(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(sweep("batch_size: [2, 8], unfrozen_layers: 5", rest=TWO))
    few = load_spec(str(file))
    more = few.model_copy(update={"resources": few.resources.model_copy(update={"gpus": 4.0})})
    file.write_text(sweep("batch_size: [2, 8], unfrozen_layers: 5", rest=FOUR))
    assert open_spec(str(file), begun=more).spec.resources.gpus == 4
    with pytest.raises(Exception, match="a batch of 2 has parts of 2 images"):
        open_spec(str(file), begun=few)
