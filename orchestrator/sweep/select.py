"""The stage ``select``: choose the winner and its crop policy on validation."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.errors import NoWinner
from orchestrator.evaluation.policy_choice import PolicyScore, choose_policy
from orchestrator.evaluation.selection import Candidate, SelectionRule, choose, pareto_front
from orchestrator.evaluation.variance import groups_of_hashes
from orchestrator.ledger.naming import label
from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialRecord
from orchestrator.paths import command_line
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.data import fold_sizes, images_to_choose_on
from orchestrator.sweep.probabilities import predict_missing, read_probabilities
from trainers.config import TrialConfig
from trainers.data.manifest import Manifest
from trainers.images.policies import crop_names
from trainers.metrics import log_loss


@dataclass(frozen=True)
class Winner:
    """The choice on validation: a configuration, its crop policy and its form, with the reasons.

    ``front``: with several objectives, the trials that no other beats in all of them, as ``orch show`` lists them.
    ``chosen_among``: number of trials that could have been chosen; it is no part of the record.
    """

    trial: str
    config: TrialConfig
    policy: str
    form: str
    reason: str
    runners_up: tuple[tuple[str, TrialConfig], ...]
    front: tuple[dict[str, Any], ...] = ()
    chosen_among: int = 1

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


def select(sweep: SweepContext, manifest: Manifest) -> Winner:
    """Choose the winner and its crop policy on validation. Raises NoWinner."""
    records = {r.id: r for r in sweep.state().trials.values() if r.stage == Stage.SEARCH}
    epochs, final, objectives = sweep.spec.budget.epochs, sweep.spec.final, sweep.spec.objective
    candidates = [candidate(r, epochs, manifest) for r in records.values()]
    rule = SelectionRule(final.choose.best or objectives[0], final.choose.at_least, final.choose.at_most)
    try:
        selection = choose(candidates, final.runners_up, rule)
    except NoWinner as error:
        resume = command_line("sweep", "--resume", "--out", sweep.paths.root)
        raise NoWinner(f"{error} To resume, type `{resume}`, with the options that this names.") from error
    trial = records[selection.winner.id]
    front = pareto_front(candidates, objectives) if len(objectives) > 1 else ()

    predict_missing(sweep, [[trial.id]], "validation")
    scores: list[PolicyScore] = []
    kept = sweep.kept()
    correct: dict[str, np.ndarray] = {}
    groups: list[str] = []
    for name in final.policies:
        stored = read_probabilities(kept, trial.id, "validation", name)
        correct[name] = stored["probabilities"].argmax(1) == stored["labels"]
        groups = groups_of_hashes(stored["sha256"], manifest.table["sha256"], manifest.table["group"])
        loss = log_loss(stored["probabilities"].astype(float), stored["labels"])
        scores.append(PolicyScore(name, int(correct[name].sum()), len(stored["labels"]), loss, len(crop_names(name))))
    choice = choose_policy(scores, correct, groups)

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
        chosen_among=sum(c.is_eligible and math.isfinite(c.val_accuracy) for c in candidates),
    )
    if sweep.state().stages.get(Stage.SELECT, {}).get("winner") != winner.to_dict():
        payload = {"winner": winner.to_dict(), "policies": [dataclasses.asdict(s) for s in scores]}
        sweep.record(EventKind.STAGE, stage=Stage.SELECT, state="ENDED", payload=payload)
    return winner


def candidate(record: TrialRecord, epochs: int, manifest: Manifest) -> Candidate:
    """Return a trial as selection sees it. With folds, its accuracy is the mean over all their images."""
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
