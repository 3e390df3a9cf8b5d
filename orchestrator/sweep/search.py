"""The stage ``search``: run trials until the budget is used up."""

from __future__ import annotations

import dataclasses
from typing import Any

from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import data_identity
from orchestrator.sweep.settings import search_settings
from trainers.config import TrialConfig, canonical, trial_id
from trainers.contract import FitJob
from trainers.data.manifest import Manifest


def search(sweep: SweepContext, manifest: Manifest) -> None:
    """Run trials until the budget is used up."""
    from orchestrator.search.run import run_trials  # Ray: seconds to import

    budget = sweep.spec.budget
    source = _source(sweep, manifest)
    source.replay(sweep.ledger.events())
    before = sweep.state()
    known = [r for r in before.trials.values() if r.stage == Stage.SEARCH and r.state.is_final]
    if before.stages.get(Stage.SEARCH, {}).get("state") == "ENDED" and len(known) >= budget.trials:
        return
    begun = {"trials": budget.trials, "share": sweep.share, "folds": manifest.folds}
    sweep.record(EventKind.STAGE, stage=Stage.SEARCH, state="BEGUN", payload=begun)
    outcome = run_trials(source, search_settings(sweep), sweep.ledger, sweep.on_event)
    counts = _search_state(sweep)
    sweep.record(
        EventKind.STAGE, stage=Stage.SEARCH, state="ENDED", payload={"states": counts, "reason": outcome.ended}
    )


def _source(sweep: SweepContext, manifest: Manifest) -> Any:
    from orchestrator.search.sampling import OptunaSampler, SamplerSettings
    from orchestrator.search.source import FixedTrials, TrialRequest

    spec, budget = sweep.spec, sweep.spec.budget
    data = data_identity(manifest)

    def make_job(fit_id: str, config: TrialConfig) -> FitJob:
        job = sweep.fit_job(fit_id, config, budget.seed, ("train",))
        return dataclasses.replace(job, folds=spec.data.folds, measure_speed=spec.measures_speed)

    if spec.configurations:
        requests: list[TrialRequest] = []
        seen: set[str] = set()
        for name, values in spec.configurations:
            config = canonical({**values, "epochs": budget.epochs})
            fit_id = trial_id(config, budget.seed, data)
            if fit_id in seen:
                sweep.note(Stage.SEARCH, f"{name} is the same configuration as one before it, and trained once")
                continue
            seen.add(fit_id)
            requests.append(TrialRequest(fit_id, name, len(requests) + 1, make_job(fit_id, config)))
        return FixedTrials(requests)
    settings = SamplerSettings(
        trials=budget.trials,
        epochs=budget.epochs,
        seed=budget.seed,
        data=data,
        sampler=budget.sampler.name,
        startup_trials=budget.sampler.startup_trials,
        first=tuple(budget.first),
        objectives=spec.objective,
    )
    return OptunaSampler(spec.space, settings, make_job)


def _search_state(sweep: SweepContext) -> dict[str, int]:
    found = [r.state for r in sweep.state().trials.values() if r.stage == Stage.SEARCH]
    return {str(state): found.count(state) for state in TrialState if state in found}
