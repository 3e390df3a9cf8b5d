"""The stages of a sweep up to the final models: data, search, select, refit. None of them reads the test split.

A stage reads the ledger and the sweep's folder, does what is missing there, and records its result. So ``--resume``
needs no case of its own: it runs the same stages again, and what is done is not redone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cluster.checkpoint import remove_checkpoint
from orchestrator.errors import NoWinner
from orchestrator.ledger.naming import given_name
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import data_identity
from orchestrator.sweep.select import Winner
from orchestrator.sweep.settings import _refit_settings
from trainers.config import TrialConfig, trial_id
from trainers.data.manifest import Manifest

if TYPE_CHECKING:
    pass

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


# --- data ---------------------------------------------------------------------------------------------------------


# --- search -------------------------------------------------------------------------------------------------------


# --- select -------------------------------------------------------------------------------------------------------


# --- refit --------------------------------------------------------------------------------------------------------


def refit(sweep: SweepContext, manifest: Manifest, winner: Winner) -> list[FinalModel]:
    """Retrain the winner and the runners-up, each with every seed; those that FAILED are left out, with a sentence.

    Raises NoWinner where none of the winner's fits came through.
    """
    from orchestrator.search.run import run_trials
    from orchestrator.search.source import FixedTrials, TrialRequest

    final = sweep.spec.final
    splits = ("train", "validation") if final.refit == "train+validation" else ("train",)
    epochs = final.epochs or sweep.spec.budget.epochs
    models: list[FinalModel] = []
    requests: list[TrialRequest] = []
    known = sweep.state().trials
    chosen_ones = [(winner.trial, winner.config), *winner.runners_up]
    for place, (trial, chosen) in enumerate(chosen_ones):
        group = f"runner-up-{place}" if place else WINNER
        given = given_name(known[trial]) if trial in known else ""
        config = dataclasses.replace(chosen, epochs=epochs)
        for seed in range(sweep.spec.budget.seed, sweep.spec.budget.seed + final.seeds):
            name = f"{group}/seed-{seed}"
            fit_id = trial_id(config, seed, f"{data_identity(manifest)}:{'+'.join(splits)}")
            models.append(FinalModel(name, fit_id, config, given))
            requests.append(TrialRequest(fit_id, name, len(requests) + 1, sweep.fit_job(fit_id, config, seed, splits)))

    source = FixedTrials(requests)
    source.replay(sweep.ledger.events())
    if not source.exhausted:
        sweep.record(
            EventKind.STAGE,
            stage=Stage.REFIT,
            state="BEGUN",
            payload={"fits": len(requests), "done": len(source.results)},
        )
        left = len(requests) - len(source.results)
        sweep.tell(f"refit    {left} networks on {' + '.join(splits)}, {epochs} epochs each")
        run_trials(source, _refit_settings(sweep, epochs), sweep.ledger, sweep.show)
        sweep.record(EventKind.STAGE, stage=Stage.REFIT, state="ENDED", payload={})
    records = sweep.state().trials
    if all(record.state.is_final for record in records.values()):
        remove_checkpoint(sweep.paths.checkpoints)  # a killed worker may have left files there
    good = [m for m in models if records[m.fit].state == TrialState.COMPLETED]
    for model in models:
        if model not in good:
            sweep.tell(f"warning  {model.name} is left out: {records[model.fit].reason}")
    if not any(m.group == WINNER for m in good):
        raise NoWinner(f"every retraining of the winner failed; the logs are in {sweep.paths.logs}.")
    return good


# --- settings -----------------------------------------------------------------------------------------------------
