"""One network distilled from the ensemble: the winner's configuration, trained on the ensemble's probabilities."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.ledger.segments import EventKind
from orchestrator.ledger.stages import Stage
from orchestrator.ledger.state import TrialState
from orchestrator.spec.sections.final import DISTILLED
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.refit import HELD_OUT, FinalModel, fit_data, remove_leftovers
from orchestrator.sweep.settings import refit_settings
from trainers.config import trial_id
from trainers.contract import Distillation, FitJob
from trainers.data.manifest import Manifest

ANSWERS = "teacher"
"""Name of the file of a teacher's answers, in place of a crop policy's."""


@dataclass(frozen=True)
class Teacher:
    """``members``: networks whose mean probabilities a student learns; ``splits``: what they and it train on."""

    members: tuple[FinalModel, ...]
    splits: tuple[str, ...]


def distil(sweep: SweepContext, manifest: Manifest, teachers: Sequence[Teacher]) -> list[FinalModel] | None:
    """Train a student of each teacher; return them, or None with a warning if one fails or cannot be trained."""
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import
    from orchestrator.search.run import run_trials
    from orchestrator.search.source import FixedTrials, TrialRequest

    if teachers[0].members[0].config.mixes_images:
        sweep.warn(
            "there is no distilled network: the winner mixes images (mixup, cutmix), and the ensemble's probabilities "
            "are of whole photos"
        )
        return None
    students = [_student(sweep, manifest, teacher) for teacher in teachers]
    requests = [
        TrialRequest(model.fit, model.name, number, job)
        for number, (model, job) in enumerate(students, start=1 + _numbers(sweep))
    ]
    source = FixedTrials(requests)
    source.replay(sweep.ledger.events())
    jobs = [_teaching(sweep, teacher, job) for teacher, (_, job) in zip(teachers, students, strict=True)]
    if wanted := [job for job in jobs if job is not None]:
        cpus, gpus = sweep.spec.resources.cpus, sweep.gpus_per_trial()
        run_jobs("trainers.forms.teacher:answer", wanted, cpus, gpus=gpus, tell=sweep.warn)
        sweep.keep(Path(job["output"]) for job in wanted)
    if not source.exhausted:
        epochs = students[0][0].config.epochs
        begun: dict[str, Any] = {
            "fits": len(requests),
            "done": len(source.results),
            "splits": list(teachers[-1].splits),
        }
        if held_out := sum(model.group == HELD_OUT and model.fit not in source.results for model, _ in students):
            begun["held_out"] = held_out
        sweep.record(EventKind.STAGE, stage=Stage.REFIT, state="BEGUN", payload=begun | {"epochs": epochs})
        run_trials(source, refit_settings(sweep, epochs), sweep.ledger, sweep.on_event)
        sweep.record(EventKind.STAGE, stage=Stage.REFIT, state="ENDED", payload={})
    remove_leftovers(sweep)
    records = sweep.state().trials
    for model, _ in students:
        if records[model.fit].state != TrialState.COMPLETED:
            sweep.warn(f"{model.name} is left out: {records[model.fit].reason}")
            return None
    return [model for model, _ in students]


def _student(sweep: SweepContext, manifest: Manifest, teacher: Teacher) -> tuple[FinalModel, FitJob]:
    """Return the network that learns from a teacher, and its job. Its copies are fixed: the answers are stored."""
    first, how = teacher.members[0], sweep.spec.final.distillation
    config = dataclasses.replace(first.config, epochs=how.epochs or first.config.epochs, draws="fixed")
    seed, fits = sweep.spec.budget.seed, sorted(member.fit for member in teacher.members)
    taught = hashlib.sha256(json.dumps([fits, how.temperature, how.alpha]).encode()).hexdigest()[:10]
    fit = trial_id(config, seed, f"{fit_data(sweep, manifest, teacher.splits)}:distilled-{taught}")
    answers = str(sweep.paths.probabilities(fit, "train", ANSWERS).resolve())
    start = seed if sweep.spec.final.shares_start else None
    distillation = Distillation(answers, how.temperature, how.alpha)
    job = sweep.fit_job(fit, config, seed, teacher.splits, start, distillation)
    return FinalModel(f"{first.group}/{DISTILLED}", fit, config, first.configuration), job


def _teaching(sweep: SweepContext, teacher: Teacher, job: FitJob) -> dict[str, Any] | None:
    """Return the job that writes a teacher's answers; None if they are there and whole."""
    kept, file = sweep.kept(), sweep.paths.probabilities(job.id, "train", ANSWERS)
    if kept.recorded(file) is not None and not kept.state(file).is_damage:
        return None
    kept.require(*(each for member in teacher.members for each in kept.below(sweep.paths.fit(member.fit))))
    return {
        "fits": [str(sweep.paths.fit(member.fit).resolve()) for member in teacher.members],
        "student": job.to_dict(),
        "output": str(file.resolve()),
        "threads": 1,
        "gpu_memory_share": min(1.0, sweep.gpus_per_trial()),
    }


def _numbers(sweep: SweepContext) -> int:
    """Count the refit's other networks, after which the students are numbered."""
    final = sweep.spec.final
    return final.seeds * (1 + final.runners_up + int(final.trains_held_out))
