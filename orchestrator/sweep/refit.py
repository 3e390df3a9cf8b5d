"""The stage ``refit``: retrain the winner and the runners-up with every seed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from orchestrator.cluster.checkpoint import remove_checkpoint
from orchestrator.errors import NoWinner
from orchestrator.ledger.naming import given_name
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import data_identity
from orchestrator.sweep.select import Winner
from orchestrator.sweep.settings import refit_settings
from trainers.config import TrialConfig, trial_id
from trainers.data.manifest import Manifest

WINNER = "winner"
"""Name of the winner's models on the leaderboard; the others are ``runner-up-1``, ``runner-up-2``, ..."""


@dataclass(frozen=True)
class FinalModel:
    """One retrained network: ``name`` on the leaderboard (``winner/seed-0``) and the id of its fit.

    ``configuration``: the name that a person gave it among ``search.configurations``, else "".
    """

    name: str
    fit: str
    config: TrialConfig
    configuration: str = ""

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]


def refit(sweep: SweepContext, manifest: Manifest, winner: Winner) -> list[FinalModel]:
    """Retrain the winner and the runners-up, each with every seed; leave out those that fail, with a warning.

    Raises NoWinner if every fit of the winner fails.
    """
    from orchestrator.search.run import run_trials
    from orchestrator.search.source import FixedTrials, TrialRequest

    splits = ("train", "validation") if sweep.spec.final.refit == "train+validation" else ("train",)
    epochs = sweep.spec.final.epochs or sweep.spec.budget.epochs
    planned = _planned(sweep, manifest, winner, splits, epochs)
    requests = [
        TrialRequest(model.fit, model.name, number, sweep.fit_job(model.fit, model.config, seed, splits))
        for number, (model, seed) in enumerate(planned, start=1)
    ]
    source = FixedTrials(requests)
    source.replay(sweep.ledger.events())
    if not source.exhausted:
        begun = {"fits": len(requests), "done": len(source.results), "splits": list(splits), "epochs": epochs}
        sweep.record(EventKind.STAGE, stage=Stage.REFIT, state="BEGUN", payload=begun)
        run_trials(source, refit_settings(sweep, epochs), sweep.ledger, sweep.on_event)
        sweep.record(EventKind.STAGE, stage=Stage.REFIT, state="ENDED", payload={})
    records = sweep.state().trials
    if all(record.state.is_final for record in records.values()):
        remove_checkpoint(sweep.paths.checkpoints)  # a killed worker may have left files there
    good = []
    for model, _ in planned:
        if records[model.fit].state == TrialState.COMPLETED:
            good.append(model)
        else:
            sweep.warn(f"{model.name} is left out: {records[model.fit].reason}")
    if not any(m.group == WINNER for m in good):
        raise NoWinner(f"every retraining of the winner failed; the logs are in {sweep.paths.logs}.")
    return good


def _planned(
    sweep: SweepContext, manifest: Manifest, winner: Winner, splits: tuple[str, ...], epochs: int
) -> list[tuple[FinalModel, int]]:
    """List the networks to train, the winner's first, each with its seed."""
    known, data = sweep.state().trials, f"{data_identity(manifest)}:{'+'.join(splits)}"
    first = sweep.spec.budget.seed
    found = []
    for place, (trial, chosen) in enumerate([(winner.trial, winner.config), *winner.runners_up]):
        group = f"runner-up-{place}" if place else WINNER
        given = given_name(known[trial]) if trial in known else ""
        config = dataclasses.replace(chosen, epochs=epochs)
        for seed in range(first, first + sweep.spec.final.seeds):
            model = FinalModel(f"{group}/seed-{seed}", trial_id(config, seed, data), config, given)
            found.append((model, seed))
    return found
