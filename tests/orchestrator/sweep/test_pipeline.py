"""How a sweep that failed is recorded, and what it says to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayError

from orchestrator.cluster.memory_kills import MemoryKill, gave_up
from orchestrator.errors import OrchError, TransientError
from orchestrator.ledger.segments import EventKind
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.open import open_existing, write_spec
from orchestrator.sweep.pipeline import SweepRequest, _recorded
from tests.support.printed_lines import PrintedLines

FULL = gave_up(MemoryKill(22.1, 23.5, 1.0), 8, "--set budget.concurrent=1")


@pytest.mark.parametrize("error", [FULL, TransientError("Ray failed: its node is gone.")])
def test_a_sweep_that_ray_or_the_machine_failed_says_how_to_resume_this_one(
    error: TransientError,
    open_sweep: Callable[..., SweepContext],
    printed: PrintedLines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = open_sweep()  # outside runs/
    write_spec(sweep.paths, sweep.spec)
    with pytest.raises(OrchError) as caught, _recorded(sweep, SweepRequest(None), None, printed.reporter):
        raise error from RayError()
    text = str(caught.value)
    assert text.startswith(error.what)
    assert "type the command again" not in text
    last = sweep.ledger.events()[-1]
    assert (last.kind, last.state, last.reason) == (EventKind.SWEEP, "FAILED", text)
    sweep.ledger.close()

    monkeypatch.chdir(tmp_path.parent)
    command, *options = re.findall(r"`(.+?)`", text)
    words = shlex.split(command)
    assert words[:4] == ["orch", "sweep", "--resume", "--out"]
    opened = open_existing(Path(words[4]), None, [option.removeprefix("--set ") for option in options], None)
    assert opened.paths.ledger.resolve() == sweep.paths.ledger.resolve()
    assert opened.spec.budget.concurrent == (1 if error is FULL else sweep.spec.budget.concurrent)
