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
HELD_OUT = "held-out"
"""Name of the winner's networks that are trained without the validation photos, to choose its form on those; they are
on no leaderboard."""


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

    @property
    def member(self) -> str:
        """The name within its group: ``seed-0``, or that of a form, such as ``soup``."""
        return self.name.partition("/")[2]

    @property
    def is_form(self) -> bool:
        """Whether it is another form of the networks of its group, and so none of them."""
        return not self.member.startswith("seed-")


def refit(sweep: SweepContext, manifest: Manifest, winner: Winner) -> list[FinalModel]:
    """Retrain the winner and the runners-up, each with every seed; leave out those that fail, with a warning.

    Where a form of the winner is to be chosen, it is also trained without the validation photos: see
    ``held_out_networks``. Raises NoWinner if every fit of the winner fails.
    """
    from orchestrator.search.run import run_trials
    from orchestrator.search.source import FixedTrials, TrialRequest

    final = sweep.spec.final
    splits, epochs = final.splits, final.epochs or sweep.spec.budget.epochs
    start = sweep.spec.budget.seed if final.shares_start else None
    planned = _planned(sweep, manifest, winner)
    asked = [(model, seed, splits) for model, seed in planned]
    if final.trains_held_out:
        asked += [(model, seed, ("train",)) for model, seed in _held_out(sweep, manifest, winner)]
    requests = [
        TrialRequest(model.fit, model.name, number, sweep.fit_job(model.fit, model.config, seed, those, start))
        for number, (model, seed, those) in enumerate(asked, start=1)
    ]
    source = FixedTrials(requests)
    source.replay(sweep.ledger.events())
    if not source.exhausted:
        begun = {"fits": len(requests), "done": len(source.results), "splits": list(splits), "epochs": epochs}
        if final.trains_held_out:
            begun["held_out"] = sum(m.group == HELD_OUT and m.fit not in source.results for m, *_ in asked)
        sweep.record(EventKind.STAGE, stage=Stage.REFIT, state="BEGUN", payload=begun)
        run_trials(source, refit_settings(sweep, epochs), sweep.ledger, sweep.on_event)
        sweep.record(EventKind.STAGE, stage=Stage.REFIT, state="ENDED", payload={})
    remove_leftovers(sweep)
    records, good = sweep.state().trials, []
    for model, *_ in asked:
        if records[model.fit].state != TrialState.COMPLETED:
            sweep.warn(f"{model.name} is left out: {records[model.fit].reason}")
        elif model.group != HELD_OUT:
            good.append(model)
    if not any(m.group == WINNER for m in good):
        raise NoWinner(f"every retraining of the winner failed; the logs are in {sweep.paths.logs}.")
    return good


def remove_leftovers(sweep: SweepContext) -> None:
    """Remove what killed workers have left among the checkpoints, once every fit has ended."""
    if all(record.state.is_final for record in sweep.state().trials.values()):
        remove_checkpoint(sweep.paths.checkpoints)


def held_out_networks(
    sweep: SweepContext, manifest: Manifest, winner: Winner, models: list[FinalModel]
) -> list[FinalModel]:
    """Return the winner's networks that were trained without the validation photos.

    They are those of ``models`` where all are trained so; else those that ``refit`` trained besides, if they did not
    fail.
    """
    if "validation" not in sweep.spec.final.splits:
        return [model for model in models if model.group == WINNER]
    records = sweep.state().trials
    found = [model for model, _ in _held_out(sweep, manifest, winner) if model.fit in records]
    return [model for model in found if records[model.fit].state == TrialState.COMPLETED]


def fit_data(sweep: SweepContext, manifest: Manifest, splits: tuple[str, ...]) -> str:
    """Return what the ids of final fits hash of the data and of their start."""
    shared = f":start-{sweep.spec.budget.seed}" if sweep.spec.final.shares_start else ""
    return f"{data_identity(manifest)}:{'+'.join(splits)}{shared}"


def _planned(sweep: SweepContext, manifest: Manifest, winner: Winner) -> list[tuple[FinalModel, int]]:
    """List the networks to train, the winner's first, each with its seed."""
    known, data = sweep.state().trials, fit_data(sweep, manifest, sweep.spec.final.splits)
    found = []
    for place, (trial, chosen) in enumerate([(winner.trial, winner.config), *winner.runners_up]):
        group = f"runner-up-{place}" if place else WINNER
        given = given_name(known[trial]) if trial in known else ""
        found += _with_each_seed(sweep, group, chosen, data, given)
    return found


def _held_out(sweep: SweepContext, manifest: Manifest, winner: Winner) -> list[tuple[FinalModel, int]]:
    """List the winner's networks to train without the validation photos, each with its seed."""
    return _with_each_seed(sweep, HELD_OUT, winner.config, fit_data(sweep, manifest, ("train",)))


def _with_each_seed(
    sweep: SweepContext, group: str, chosen: TrialConfig, data: str, given: str = ""
) -> list[tuple[FinalModel, int]]:
    first, final = sweep.spec.budget.seed, sweep.spec.final
    config = dataclasses.replace(chosen, epochs=final.epochs or sweep.spec.budget.epochs)
    return [
        (FinalModel(f"{group}/seed-{seed}", trial_id(config, seed, data), config, given), seed)
        for seed in range(first, first + final.seeds)
    ]
