"""The stage refit after every network was retrained: what is left out, and when there is no winner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import NoWinner
from orchestrator.ledger.segments import EventKind
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import data_identity
from orchestrator.sweep.refit import FinalModel, refit
from orchestrator.sweep.select import Winner
from tests.support.printed_lines import PrintedLines
from tests.support.tiny_fits import config, write_manifest
from trainers.config import TrialConfig, trial_id
from trainers.data.manifest import Manifest

Open = Callable[..., SweepContext]
BEST, SECOND = config(dropout=0.1), config(dropout=0.2)
WINNER = Winner("t1", BEST, "whole", "ensemble", "it is the best.", (("t2", SECOND),))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(write_manifest(tmp_path / "pictures"))


def fit_of(sweep: SweepContext, manifest: Manifest, trial: TrialConfig, state: str, reason: str = "") -> str:
    """Record the one fit of ``trial`` on train and validation as ended; return its id."""
    final = dataclasses.replace(trial, epochs=sweep.spec.budget.epochs)
    fit = trial_id(final, sweep.spec.budget.seed, f"{data_identity(manifest)}:train+validation")
    for each in ("PENDING", "RUNNING", state):
        payload = {"config": final.to_dict(), "number": 1} if each == "PENDING" else None
        said = reason if each == state else ""
        sweep.ledger.append(EventKind.TRIAL, trial=fit, stage="refit", state=each, reason=said, payload=payload)
    return fit


def test_what_failed_is_left_out_and_nothing_is_trained_again(
    open_sweep: Open, manifest: Manifest, printed: PrintedLines
) -> None:
    sweep = open_sweep()
    fit = fit_of(sweep, manifest, BEST, "COMPLETED")
    fit_of(sweep, manifest, SECOND, "FAILED", "the loss became NaN")
    sweep.paths.checkpoints.mkdir(parents=True)
    (sweep.paths.checkpoints / "left").touch()
    (model,) = refit(sweep, manifest, WINNER)
    assert (model.name, model.fit, model.group, model.configuration) == ("winner/seed-0", fit, "winner", "")
    assert model.config == dataclasses.replace(BEST, epochs=2)
    assert printed.lines == ["warning  runner-up-1/seed-0 is left out: the loss became NaN"]
    assert not sweep.paths.checkpoints.exists()
    assert "refit" not in sweep.state().stages


def test_a_winner_that_was_not_retrained_is_none(open_sweep: Open, manifest: Manifest) -> None:
    sweep = open_sweep()
    fit_of(sweep, manifest, BEST, "FAILED", "out of memory")
    fit_of(sweep, manifest, SECOND, "COMPLETED")
    with pytest.raises(NoWinner, match=r"every retraining of the winner failed; the logs are in .*logs"):
        refit(sweep, manifest, WINNER)


def test_the_group_is_that_of_all_seeds() -> None:
    assert FinalModel("runner-up-1/seed-3", "f", BEST).group == "runner-up-1"
