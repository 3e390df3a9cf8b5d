"""The stages of a sweep up to the final models: data, search, select, refit. None of them reads the test split.

A stage reads the ledger and the sweep's folder, does what is missing there, and records its result. So ``--resume``
needs no case of its own: it runs the same stages again, and what is done is not redone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator import unfinished
from orchestrator.classcounts import class_count_lines
from orchestrator.errors import DataError, NoWinner
from orchestrator.ledger import Event, EventKind, TrialRecord, TrialState
from orchestrator.paths import cache_folder
from orchestrator.predicting import predict_missing, read_probabilities
from orchestrator.run_updates import given_name, label
from orchestrator.running import RunningSweep
from orchestrator.selection import Candidate, PolicyScore, Rule, choose, choose_policy, pareto_front
from orchestrator.show import front_lines
from orchestrator.spec import SweepSpec
from orchestrator.stagetimes import BUILD
from trainers.contract import FitJob, TrainerError, TrialConfig, canonical, trial_id
from trainers.manifest import DataSource, Manifest, build_manifest
from trainers.metrics import log_loss
from trainers.policies import policy as find_policy

if TYPE_CHECKING:
    from orchestrator.search import SearchSettings

SEARCH, REFIT = "search", "refit"
FILL = "trainers.filling:fill"
WINNER = "winner"
"""Name of the winner's models on the leaderboard; those after it are ``runner-up-1`` and so on."""


@dataclass(frozen=True)
class Winner:
    """What was chosen on validation: a configuration, its crop policy and its form, with the reasons.

    ``front``: with several objectives, the trials that no other beats in all of them, as ``orch show`` lists them.
    """

    trial: str
    config: TrialConfig
    policy: str
    form: str
    reason: str
    runners_up: tuple[tuple[str, TrialConfig], ...]
    front: tuple[dict[str, Any], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        facts = {
            "trial": self.trial,
            "model": self.form,
            "policy": self.policy,
            "reason": self.reason,
            "config": self.config.non_defaults(),
            "runners_up": [trial for trial, _ in self.runners_up],
        }
        return facts | ({"front": list(self.front)} if self.front else {})


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


def prepare_data(sweep: RunningSweep) -> Manifest:
    """The manifest of the sweep, made on the first call. Raises DataError."""
    if sweep.paths.manifest.is_file():
        return Manifest.read(sweep.paths.manifest)
    source = data_source(sweep.spec)
    sweep.tell(f"data     reading {', '.join(sweep.spec.data.sources)}")
    try:
        manifest, report = build_manifest(source)
    except TrainerError as error:
        raise DataError(str(error)) from error
    sweep.paths.data_report.write_text("\n".join(report.lines()) + "\n")
    manifest.write(sweep.paths.manifest)
    sizes = manifest.table["split"].value_counts().to_dict()
    sweep.record(
        EventKind.STAGE,
        stage="data",
        state="ENDED",
        payload={"fingerprint": manifest.fingerprint, "classes": list(manifest.classes), "images": sizes},
    )
    sweep.tell(f"data     {_split_words(manifest)}")
    for i, line in enumerate(class_count_lines(manifest, sweep.spec)):
        sweep.tell(f"{'' if i else 'classes':8s} {line}")
    for warning in report.warnings:
        sweep.tell(f"warning  {warning}")
    return manifest


def data_source(spec: SweepSpec) -> DataSource:
    """What the file says of the photos, for ``build_manifest``."""
    data = spec.data
    splits = None if data.splits == "own" else (data.splits.train, data.splits.validation, data.splits.test)
    return DataSource(
        source=data.source,
        splits=splits,
        seed=data.seed,
        duplicates=data.duplicates,
        cache=cache_folder(),
        folds=data.folds,
    )


def _split_words(manifest: Manifest) -> str:
    sizes = manifest.table["split"].value_counts().to_dict()
    if manifest.folds:
        use = f"{images_to_choose_on(manifest)} in {manifest.folds} folds to train and choose on"
    else:
        use = f"{sizes.get('train', 0)} to train on, {sizes.get('validation', 0)} to choose on"
    return (
        f"{len(manifest.table)} images of {len(manifest.classes)} classes: {use}, {sizes.get('test', 0)} to judge on "
        "at the end"
    )


def images_to_choose_on(manifest: Manifest) -> int:
    """Images that a trial's validation figures are taken over: those of the validation split, or of all folds."""
    return sum(fold_sizes(manifest)) if manifest.folds else int((manifest.table["split"] == "validation").sum())


def fold_sizes(manifest: Manifest) -> tuple[int, ...]:
    """How many images lie in fold 1, 2, ...; () without folds."""
    return tuple(int((manifest.table["fold"] == fold).sum()) for fold in range(1, manifest.folds + 1))


def data_identity(manifest: Manifest) -> str:
    """What a trial's id takes of the data: the images with their labels and splits, and the seed of their copies."""
    return f"{manifest.fingerprint}-{manifest.seed}"


# --- search -------------------------------------------------------------------------------------------------------


def search(sweep: RunningSweep, manifest: Manifest) -> None:
    """Run trials until the budget is used up."""
    from orchestrator.search import run_trials  # Ray: seconds to import

    budget = sweep.spec.budget
    source = _source(sweep, manifest)
    source.replay(sweep.ledger.events())
    before = sweep.state()
    known = [r for r in before.trials.values() if r.stage == SEARCH and r.state.is_final]
    if before.stages.get(SEARCH, {}).get("state") == "ENDED" and len(known) >= budget.trials:
        return
    sweep.record(EventKind.STAGE, stage=SEARCH, state="BEGUN", payload={"trials": budget.trials})
    frozen = "run each frozen part once" if sweep.share else "run the frozen part in every epoch, as --no-share asks"
    sweep.tell(f"search   starting workers; they decode each photo once and {frozen}")
    if manifest.folds:
        sweep.tell(f"search   each trial is {manifest.folds} fits, one a fold; its figures are their means")
    outcome = run_trials(source, _search_settings(sweep), sweep.ledger, sweep.show)
    counts = _search_state(sweep)
    sweep.record(EventKind.STAGE, stage=SEARCH, state="ENDED", payload={"states": counts, "reason": outcome.ended})
    sweep.tell(f"search   {', '.join(f'{count} {state}' for state, count in counts.items())}. {outcome.ended}".rstrip())


def _source(sweep: RunningSweep, manifest: Manifest) -> Any:
    from orchestrator.proposer import FixedSource, Proposer, ProposerSettings, TrialRequest  # Optuna: a second

    spec, budget = sweep.spec, sweep.spec.budget
    fingerprint = data_identity(manifest)

    def make_job(fit_id: str, config: TrialConfig) -> FitJob:
        job = sweep.fit_job(fit_id, config, budget.seed, ("train",))
        return dataclasses.replace(job, folds=spec.data.folds, measure_speed=spec.measures_speed)

    if spec.configurations:
        requests: list[TrialRequest] = []
        seen: set[str] = set()
        for name, values in spec.configurations:
            config = canonical({**values, "epochs": budget.epochs})
            fit_id = trial_id(config, budget.seed, fingerprint)
            if fit_id in seen:
                sweep.tell(f"note     {name} is the same configuration as one before it, and trained once")
                continue
            seen.add(fit_id)
            requests.append(TrialRequest(fit_id, name, len(requests) + 1, make_job(fit_id, config)))
        return FixedSource(requests)
    settings = ProposerSettings(
        trials=budget.trials,
        epochs=budget.epochs,
        seed=budget.seed,
        fingerprint=fingerprint,
        sampler=budget.sampler.name,
        startup_trials=budget.sampler.startup_trials,
        first=tuple(budget.first),
        objectives=spec.objective,
    )
    return Proposer(spec.space, settings, make_job)


def _search_state(sweep: RunningSweep) -> dict[str, int]:
    found = [r.state for r in sweep.state().trials.values() if r.stage == SEARCH]
    return {str(state): found.count(state) for state in TrialState if state in found}


# --- select -------------------------------------------------------------------------------------------------------


def select(sweep: RunningSweep, manifest: Manifest) -> Winner:
    """The winner and its crop policy, on validation alone. Raises NoWinner."""
    records = {r.id: r for r in sweep.state().trials.values() if r.stage == SEARCH}
    epochs, final, objectives = sweep.spec.budget.epochs, sweep.spec.final, sweep.spec.objective
    candidates = [candidate(r, epochs, manifest) for r in records.values()]
    rule = Rule(final.choose.best or objectives[0], final.choose.at_least, final.choose.at_most)
    selection = choose(candidates, final.runners_up, rule)
    trial = records[selection.winner.id]
    front = pareto_front(candidates, objectives) if len(objectives) > 1 else ()

    predict_missing(sweep, [[trial.id]], "validation")
    scores = []
    for name in final.policies:
        stored = read_probabilities(sweep.paths, trial.id, "validation", name)
        hits = int((stored["probabilities"].argmax(1) == stored["labels"]).sum())
        loss = log_loss(stored["probabilities"].astype(float), stored["labels"])
        scores.append(PolicyScore(name, hits, len(stored["labels"]), loss, find_policy(name).crops))
    choice = choose_policy(scores)

    winner = Winner(
        trial=trial.id,
        config=TrialConfig(**trial.config),
        policy=choice.policy,
        form=final.winner_form if final.seeds > 1 else "single",
        reason=f"{selection.reason} {choice.reason}",
        runners_up=tuple((c.id, TrialConfig(**records[c.id].config)) for c in selection.runners_up),
        front=tuple(
            {
                "trial": c.id,
                "name": c.name,
                "values": {name: c.value(name) for name in objectives},
                "chosen": c.id == trial.id,
            }
            for c in front
        ),
    )
    earlier = sweep.state().stages.get("select", {}).get("winner")
    if earlier != winner.to_dict():
        payload = {"winner": winner.to_dict(), "policies": [dataclasses.asdict(s) for s in scores]}
        sweep.record(EventKind.STAGE, stage="select", state="ENDED", payload=payload)
    for i, line in enumerate(front_lines(winner.to_dict())):
        sweep.tell(f"{'' if i else 'front':8s} {line}")
    sweep.tell(f"winner   {winner.reason}")
    return winner


def candidate(record: TrialRecord, epochs: int, manifest: Manifest) -> Candidate:
    """A trial as selection sees it. With folds it is as accurate as the mean over all their images."""
    accuracy, images = record.val_accuracy, images_to_choose_on(manifest)
    seconds = [e["seconds"] for e in record.epochs if e.get("seconds") is not None]
    parts = zip(record.fold_val_accuracy, fold_sizes(manifest), strict=True) if manifest.folds else [(accuracy, images)]
    known = math.isfinite(accuracy)
    return Candidate(
        id=record.id,
        name=label(record),
        state=str(record.state),
        epochs_done=len(record.epochs),
        epochs_full=epochs,
        val_accuracy=accuracy,
        val_loss=record.figure("val_loss"),
        val_correct=sum(round(share * size) for share, size in parts) if known else None,
        val_total=images,
        cost=float(np.median(seconds)) if seconds else math.nan,
        val_macro_f1=record.figure("val_macro_f1"),
        images_per_s=record.figure("images_per_s"),
        folds=manifest.folds,
    )


# --- refit --------------------------------------------------------------------------------------------------------


def refit(sweep: RunningSweep, manifest: Manifest, winner: Winner) -> list[FinalModel]:
    """Retrain the winner and the runners-up, each with every seed; those that FAILED are left out, with a sentence.

    Raises NoWinner where none of the winner's fits came through.
    """
    from orchestrator.proposer import FixedSource, TrialRequest
    from orchestrator.search import run_trials

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

    source = FixedSource(requests)
    source.replay(sweep.ledger.events())
    if not source.exhausted:
        sweep.record(
            EventKind.STAGE, stage=REFIT, state="BEGUN", payload={"fits": len(requests), "done": len(source.results)}
        )
        left = len(requests) - len(source.results)
        sweep.tell(f"refit    {left} networks on {' + '.join(splits)}, {epochs} epochs each")
        run_trials(source, _refit_settings(sweep, epochs), sweep.ledger, sweep.show)
        sweep.record(EventKind.STAGE, stage=REFIT, state="ENDED", payload={})
    records = sweep.state().trials
    if all(record.state.is_final for record in records.values()):
        unfinished.remove(sweep.paths.checkpoints)  # a killed worker may have left files there
    good = [m for m in models if records[m.fit].state == TrialState.COMPLETED]
    for model in models:
        if model not in good:
            sweep.tell(f"warning  {model.name} is left out: {records[model.fit].reason}")
    if not any(m.group == WINNER for m in good):
        raise NoWinner(f"every retraining of the winner failed; the logs are in {sweep.paths.logs}.")
    return good


# --- settings -----------------------------------------------------------------------------------------------------


def _search_settings(sweep: RunningSweep) -> SearchSettings:
    from orchestrator.search import SchedulerSettings

    budget = sweep.spec.budget
    chosen = budget.scheduler
    first = sweep.spec.objective[0]
    scheduler = SchedulerSettings(chosen.name, chosen.grace_epochs, chosen.reduction_factor, chosen.min_trials, first)
    hours_left_s = math.inf if budget.hours is None else 3600 * budget.hours - seconds_searched(sweep.ledger.events())
    return dataclasses.replace(
        _refit_settings(sweep, budget.epochs),
        stage=SEARCH,
        objectives=sweep.spec.objective,
        scheduler=scheduler,
        hours_left_s=max(hours_left_s, 0.0),
        target_accuracy=math.inf if budget.target_accuracy is None else budget.target_accuracy,
    )


def _refit_settings(sweep: RunningSweep, epochs: int) -> SearchSettings:
    from orchestrator.search import SchedulerSettings, SearchSettings

    budget, resources = sweep.spec.budget, sweep.spec.resources
    return SearchSettings(
        epochs=epochs,
        logs=sweep.paths.logs.resolve(),
        storage=sweep.paths.ray.resolve(),
        scheduler=SchedulerSettings("none"),
        cpus=resources.cpus,
        gpus=sweep.gpus_per_trial(),
        concurrent=budget.most_at_once,
        retries=budget.retries,
        fill=FILL,
        stage=REFIT,
    )


def seconds_searched(events: Sequence[Event]) -> float:
    """How long trials of the search have run, and the store was filled for them, so far; the pauses between two
    processes left out. Pure."""
    total, first, last = 0.0, math.nan, math.nan
    searched: set[str] = set()
    for event in events:
        if event.kind == EventKind.SWEEP:  # a new process
            total += 0.0 if math.isnan(first) else last - first
            first = math.nan
        elif (event.trial and event.stage == SEARCH) or (event.stage == BUILD and event.data["for"] in searched):
            searched.add(event.trial)
            first = event.time_s if math.isnan(first) else first
            last = event.time_s
    return total + (0.0 if math.isnan(first) else last - first)
