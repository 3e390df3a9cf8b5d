"""The greedy soup: the average of those retrained networks that together are best on validation."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.ledger.kept import FILES, files_below
from orchestrator.ledger.segments import EventKind
from orchestrator.sweep.context import SweepContext
from orchestrator.sweep.probabilities import missing_jobs, predict_missing, read_probabilities
from orchestrator.sweep.refit import FinalModel
from trainers.metrics import log_loss
from trainers.wording import count


@dataclass(frozen=True)
class SoupStep:
    """One network offered to the soup: validation photos that the soup with it gets right, and whether it is kept."""

    model: str
    correct: int
    total: int
    kept: bool


@dataclass(frozen=True)
class GreedySoup:
    """``ingredients``: the networks kept, the best first. ``steps``: all that were offered, in order. ``tried``: ids of
    the averages that predicted validation."""

    ingredients: tuple[FinalModel, ...]
    steps: tuple[SoupStep, ...]
    tried: tuple[str, ...] = ()


def greedy_soup(
    sweep: SweepContext, members: Sequence[FinalModel], policy: str, seed: int, splits: tuple[str, ...]
) -> GreedySoup:
    """Choose the ingredients among ``members`` (Wortsman et al. 2022, "Model soups", recipe 1).

    In order of their validation accuracy under ``policy``, then of their log loss, each is added unless fewer
    validation photos are right with it. ``seed`` and ``splits``: of the photos that the members trained on.
    """
    predict_missing(sweep, [[m.fit for m in members]], "validation", policies=[policy])
    scored = [(*score(sweep, model.fit, policy), model) for model in members]
    scored.sort(key=lambda row: (-row[0], row[2], row[3].name))
    best, total, _, first = scored[0]
    chosen, steps, tried = [first], [SoupStep(first.name, best, total, True)], list[str]()
    for _, _, _, model in scored[1:]:
        tried.append(predicted(sweep, [*chosen, model], policy, seed, splits))
        correct, _, _ = score(sweep, tried[-1], policy)
        steps.append(SoupStep(model.name, correct, total, correct >= best))
        if correct >= best:
            best = correct
            chosen.append(model)
    return GreedySoup(tuple(chosen), tuple(steps), tuple(tried))


def predicted(
    sweep: SweepContext, members: Sequence[FinalModel], policy: str, seed: int, splits: tuple[str, ...]
) -> str:
    """Return the id of the average of ``members``, whose probabilities on validation are in the folder.

    Where they are, its weights need not be, see ``discard``.
    """
    fit = soup_id([member.fit for member in members])
    if missing_jobs(sweep, [fit], "validation", policies=[policy]):
        average(sweep, members, seed, splits)
        predict_missing(sweep, [[fit]], "validation", policies=[policy])
    return fit


def discard(sweep: SweepContext, soups: Iterable[str]) -> None:
    """Remove the weights of ``soups``, which have predicted all that they are needed for.

    The ledger says so first: whenever this process is killed, no file that should be there is missing. Resumed, the
    sweep asks again and removes the rest.
    """
    folders = [sweep.paths.fit(fit) for fit in dict.fromkeys(soups)]
    kept = sweep.kept()
    if gone := [sweep.paths.name_of(file) for folder in folders for file in kept.below(folder)]:
        sweep.record(EventKind.NOTE, payload={FILES: dict.fromkeys(gone)})
        sweep.ledger.flush()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def score(sweep: SweepContext, fit: str, policy: str) -> tuple[int, int, float]:
    """Return the validation photos that a network gets right, their number, and its log loss in nats."""
    stored = read_probabilities(sweep.kept(), fit, "validation", policy)
    rows, labels = stored["probabilities"], stored["labels"]
    return int((rows.argmax(1) == labels).sum()), len(labels), log_loss(np.asarray(rows, np.float64), labels)


def average(sweep: SweepContext, members: Sequence[FinalModel], seed: int, splits: tuple[str, ...]) -> str:
    """Return the id of the average of ``members``, which a worker writes as a fit unless it is there and whole."""
    from orchestrator.cluster.jobs import run_jobs  # Ray: seconds to import

    fits = sorted(member.fit for member in members)
    fit = soup_id(fits)
    kept, folder = sweep.kept(), sweep.paths.fit(fit)
    written = kept.below(folder)
    if written and not any(kept.state(file).is_damage for file in written):
        return fit
    kept.require(*(file for member in fits for file in kept.below(sweep.paths.fit(member))))
    gpus = sweep.gpus_per_trial()
    job = {
        "fits": [str(sweep.paths.fit(member).resolve()) for member in fits],
        "soup": sweep.fit_job(fit, members[0].config, seed, splits, start_seed=seed).to_dict(),
        "threads": 1,
        "gpu_memory_share": min(1.0, gpus),
    }
    run_jobs("trainers.forms.soup:average", [job], sweep.spec.resources.cpus, gpus=gpus, tell=sweep.warn)
    sweep.keep(files_below(folder))
    return fit


def soup_id(fits: Sequence[str]) -> str:
    """Return ten hex digits that name the average of ``fits``, whatever their order."""
    return hashlib.sha256(json.dumps(["soup", sorted(fits)]).encode()).hexdigest()[:10]


def soup_in_words(soup: GreedySoup) -> str:
    """Return a sentence on which networks the soup holds."""
    names = ", ".join(model.name.partition("/")[2] for model in soup.ingredients)
    last = [step for step in soup.steps if step.kept][-1]
    return (
        f"The soup averages {len(soup.ingredients)} of {count(len(soup.steps), 'network')} ({names}): "
        f"{last.correct} of {last.total} validation images."
    )
