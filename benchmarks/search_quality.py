"""Samplers and schedulers against planted optima; writes docs/search-quality.md: ``make search-quality``.

Samplers run through the real ``OptunaSampler`` on objectives without a network (``planted.py``); schedulers through
the real Ray Tune on learning curves whose ends are known (``planted_curves.py``).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.common.planted import OBJECTIVES, Objective
from benchmarks.common.quality_page import PageFacts, SamplerRow, SchedulerRow, page
from orchestrator.cluster.ray_session import ray_session
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.state import TrialState, derive
from orchestrator.search.run import run_trials
from orchestrator.search.sampling import OptunaSampler, SamplerSettings
from orchestrator.search.settings import SchedulerSettings, SearchSettings
from orchestrator.search.source import FixedTrials, TrialRequest
from orchestrator.spec.sections.budget import SAMPLER_PACKAGES, SCHEDULERS
from trainers.config import TrialConfig
from trainers.contract import FitJob

PAGE = Path(__file__).resolve().parent.parent / "docs" / "search-quality.md"
FACTORY = "benchmarks.common.planted_curves:open_fit"
CURVES = ("orderly", "late bloomer")
PLANTED = "planted-best"
BEST_END, BEST_ENDS_BELOW = 0.95, 0.92
"""Where the planted best curve ends, and below which the others do."""


@dataclass(frozen=True)
class Effort:
    """How much is run. ``trials``: of one search. ``seeds``: searches for a row of the samplers' table, ``slow_seeds``
    for gp, which takes a minute each. ``curve_seeds``: searches over ``curves`` curves for a row of the schedulers'."""

    seeds: int = 30
    slow_seeds: int = 5
    trials: int = 40
    curve_seeds: int = 5
    curves: int = 27
    epochs: int = 27

    def seeds_of(self, sampler: str) -> int:
        return min(self.seeds, self.slow_seeds) if sampler == "gp" else self.seeds


# Samplers


def run_search(objective: Objective, sampler: str, trials: int, seed: int) -> float:
    """The regret of one search: the best there is less the true value of the trial that measured best."""
    settings = SamplerSettings(trials=trials, epochs=1, seed=seed, data="planted", sampler=sampler)
    proposer = OptunaSampler(objective.space, settings, lambda trial, config: FitJob(trial, config, seed, "planted"))
    found: list[tuple[float, float]] = []
    while (request := proposer.ask()) is not None:
        measured = objective.measured(request.job.config, seed)
        proposer.tell(request.id, TrialState.COMPLETED, [measured])
        found.append((measured, objective.value(request.job.config)))
    return objective.best - max(found)[1]


def interval_of_mean(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of ``values`` (n >= 2,) by Student's t, which is right for few values too. Pure."""
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def compare_samplers(effort: Effort, samplers: Sequence[str]) -> list[SamplerRow]:
    """A row for each objective and sampler; the difference to random is paired by seed."""
    rows = []
    for objective in OBJECTIVES:
        random = _regrets(objective, "random", effort)
        rows.append(SamplerRow(objective.name, "random", len(random), float(random.mean()), interval_of_mean(random)))
        for sampler in [name for name in objective.samplers if name in samplers]:
            regrets = _regrets(objective, sampler, effort)
            better = random[: len(regrets)] - regrets
            rows.append(
                SamplerRow(
                    *(objective.name, sampler, len(regrets), float(regrets.mean()), interval_of_mean(regrets)),
                    gain=float(better.mean()),
                    gain_interval=interval_of_mean(better),
                    wins=float((better > 0).mean()),
                )
            )
    return rows


def _regrets(objective: Objective, sampler: str, effort: Effort) -> np.ndarray:
    """The regret of each seed's search."""
    seeds = range(effort.seeds_of(sampler))
    found = np.array([run_search(objective, sampler, effort.trials, seed) for seed in seeds])
    print(f"{objective.name}, {sampler}: mean regret {found.mean():.4f} of {len(found)} searches", flush=True)
    return found


def available(samplers: Iterable[str]) -> list[str]:
    """Those whose package is installed."""
    needed = {name: SAMPLER_PACKAGES.get(name) for name in samplers}
    return [name for name, package in needed.items() if not package or importlib.util.find_spec(package)]


# Schedulers


def curves(kind: str, count: int, epochs: int, seed: int) -> list[tuple[str, TrialConfig]]:
    """``count`` named trials in random order, one of them the planted best. Pure.

    orderly: all rise equally fast, so the early leader leads at the end. late bloomer: the planted best is
    slow, and a third of the others are quick.
    """
    random = np.random.default_rng([seed, CURVES.index(kind)])
    ends = random.uniform(0.5, BEST_ENDS_BELOW, count - 1)
    late = kind == "late bloomer"
    paces = random.choice([0.08, 0.15, 0.25], count - 1) if late else np.full(count - 1, 0.15)
    found = [
        (f"other-{i}", TrialConfig(dropout=float(1 - end), smoothing=float(pace), epochs=epochs))
        for i, (end, pace) in enumerate(zip(ends, paces, strict=True))
    ]
    best = TrialConfig(dropout=1 - BEST_END, smoothing=0.25 if late else 0.15, epochs=epochs)
    found.insert(int(random.integers(count)), (PLANTED, best))
    return found


@dataclass(frozen=True)
class CurveRun:
    """One search over curves. ``epochs``: spent in all. ``end``: the true end of the trial that would win."""

    survived: bool
    epochs: int
    end: float
    states: dict[str, int] = field(default_factory=dict)


def run_curves(scheduler: SchedulerSettings, trials: Sequence[tuple[str, TrialConfig]], seed: int) -> CurveRun:
    """Train ``trials`` under ``scheduler`` through Ray Tune, two at once. Ray is up already."""
    requests = [
        TrialRequest(f"{name}-{seed}", name, number, FitJob(f"{name}-{seed}", config, seed, "planted"))
        for number, (name, config) in enumerate(trials, start=1)
    ]
    with tempfile.TemporaryDirectory(prefix="orch-quality-") as temporary:
        folder = Path(temporary)
        settings = SearchSettings(
            epochs=trials[0][1].epochs,
            logs=folder / "logs",
            storage=folder / "ray",
            factory=FACTORY,
            scheduler=scheduler,
            concurrent=2,
        )
        with Ledger(folder / "ledger") as ledger:
            run_trials(FixedTrials(requests), settings, ledger)
            state = derive(ledger.events())
    records = list(state.trials.values())
    completed = [record for record in records if record.state == TrialState.COMPLETED]
    winner = max(completed, key=lambda record: record.val_accuracy, default=None)
    return CurveRun(
        survived=any(record.name == PLANTED for record in completed),
        epochs=sum(len(record.epochs) for record in records),
        end=1 - winner.config["dropout"] if winner else 0.0,
        states=state.counts(),
    )


def compare_schedulers(effort: Effort, names: Sequence[str] = tuple(SCHEDULERS)) -> list[SchedulerRow]:
    """A row for each kind of curves and scheduler; every scheduler sees the same curves in the same order."""
    rows = []
    full = effort.curves * effort.epochs
    with ray_session(cpus=2):
        for kind in CURVES:
            for name in names:
                runs = []
                for seed in range(effort.curve_seeds):
                    trials = curves(kind, effort.curves, effort.epochs, seed)
                    runs.append(run_curves(SchedulerSettings(name), trials, seed))
                spent = np.array([run.epochs / full for run in runs])
                lost = np.array([BEST_END - run.end for run in runs])
                survived = sum(run.survived for run in runs)
                print(f"{kind}, {name}: survived {survived} of {len(runs)}, epochs {spent.mean():.2f}", flush=True)
                rows.append(SchedulerRow(kind, name, survived, len(runs), float(spent.mean()), float(lost.mean())))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything and write the page."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    usual = Effort()
    parser = argparse.ArgumentParser(description="Samplers and schedulers against planted optima.")
    parser.add_argument("--seeds", type=int, default=usual.seeds, help="searches a sampler and objective")
    parser.add_argument("--slow-seeds", type=int, default=usual.slow_seeds, help="the same for gp, which is slow")
    parser.add_argument("--trials", type=int, default=usual.trials, help="trials of each search")
    parser.add_argument("--curve-seeds", type=int, default=usual.curve_seeds, help="searches a scheduler and kind")
    parser.add_argument("--curves", type=int, default=usual.curves, help="trials of each of those")
    parser.add_argument("--epochs", type=int, default=usual.epochs, help="epochs of a full trial there")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write (default docs/search-quality.md)")
    asked = parser.parse_args(given)
    effort = Effort(asked.seeds, asked.slow_seeds, asked.trials, asked.curve_seeds, asked.curves, asked.epochs)
    every = sorted({name for objective in OBJECTIVES for name in objective.samplers})
    here = available(every)
    facts = PageFacts(
        date=f"{datetime.date.today()}",
        command=shlex.join(["python", "-m", "benchmarks.search_quality", *given]),
        spaces={objective.name: objective.description for objective in OBJECTIVES},
        missing=[name for name in every if name not in here],
        trials=effort.trials,
        curve_seeds=effort.curve_seeds,
        curves=effort.curves,
        epochs=effort.epochs,
    )
    asked.out.write_text(page(compare_samplers(effort, here), compare_schedulers(effort), facts), encoding="utf-8")
    print(f"written: {asked.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
