"""Messages of errors that do not come from the sweep or the command itself."""

from __future__ import annotations

from orchestrator.errors import TransientError


def test_what_to_type_depends_on_who_reads_it() -> None:
    error = TransientError("the memory is full.", "close other programs", "--set budget.concurrent=1")
    assert str(error) == "the memory is full. Close other programs, then type the command again."
    assert error.of_sweep("orch sweep --resume --out x") == (
        "the memory is full. Close other programs, then resume: `orch sweep --resume --out x`. "
        "To need less memory, add `--set budget.concurrent=1`."
    )
    plain = TransientError("Ray failed.")
    assert str(plain) == "Ray failed. Type the command again."
    assert plain.of_sweep("orch sweep --resume") == "Ray failed. Resume: `orch sweep --resume`."
