"""Spec, photos, machine and calibration -> ``Plan``: what a sweep will do and take, before it does. Pure.

Trials are drawn from the space and the sweep is played (``orchestrator.plan.simulation``) many times over with scores
that chance has a part in; every figure is the mean, with the lowest and the highest.
"""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from orchestrator.ledger.stages import Stage
from orchestrator.plan.calibration import Machine, PartKey
from orchestrator.plan.draws import CANDIDATES, LEARNING, trials_of
from orchestrator.plan.estimates import STAND_IN, unknown_backbones
from orchestrator.plan.playthrough import SimulatedOutcome, SimulatedSweep, SweepConditions
from orchestrator.plan.simulation import EFFORT
from orchestrator.plan.stage_times import START, TOTAL
from orchestrator.spec.sweep import SweepSpec

STAGES = (START, Stage.PREFILL, Stage.SEARCH, Stage.SELECT, Stage.REFIT, Stage.LEADERBOARD, TOTAL)
"""In their order. ``prefill`` is in worker-seconds, and lies inside search and refit; the others are by the clock."""
DRAWS = 20
FEWEST_DRAWS = 5
TRIALS_PLAYED = 10_000
"""Sweeps of many trials are played less often: their mean is steadier anyway."""
GB = 10**9


@dataclass(frozen=True)
class Estimate:
    """A figure that depends on chance: its mean, and the lowest and highest of the runs that were played."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.fmean(values), min(values), max(values))


@dataclass(frozen=True)
class PlannedPrefill:
    """Rows that the sweep takes from the store. ``rows`` are computed, ``stored`` were there before; means over runs.

    ``seconds``: worker-seconds of computing them, decoding their images left out where those are a line of their own.
    """

    what: str
    rows: float
    stored: float
    bytes: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a sweep will do and take. ``trials``: of its budget, or all that its space holds; ``begun``: those that it
    comes to within its hours; ``rungs``: (epochs, trials that come so far). Means over the runs that were played.

    ``stages``: of ``STAGES``. ``unshared...``: the same where every trial is for itself. ``needed``:
    what the search would take if its hours did not end it. ``floor_s``: what the search, and
    ``whole_floor_s`` what all after the start would take if each unique image were decoded once, each unique prefix ran
    once over each image, and each trainable part ran for its epochs at the best speed of the device on that part alone.
    ``disk``: bytes of features, images, checkpoints and models that are written, at the most. ``memory_bytes``: of all
    workers at once. ``longest_trial_s``: of the longest trial that runs to its end and waits for nothing, in the run in
    which that is shortest.
    """

    name: str
    trials: int
    begun: float
    unshared_begun: float
    epochs: int
    rungs: tuple[tuple[int, float], ...]
    builds: tuple[PlannedPrefill, ...]
    stages: Mapping[str, Estimate]
    unshared: Mapping[str, Estimate]
    needed: Estimate
    unshared_needed: Estimate
    floor_s: float
    whole_floor_s: float
    disk: Mapping[str, float]
    memory_bytes: float
    longest_trial_s: float
    unshared_longest_trial_s: float
    machine: Machine
    measured_parts: int
    estimated_parts: int
    assumptions: tuple[str, ...] = ()

    @property
    def disk_bytes(self) -> float:
        return sum(self.disk.values())

    @property
    def store_bytes(self) -> float:
        return self.disk["features"] + self.disk["images"]

    @property
    def saving(self) -> float:
        """How many times as long the sweep would take with every trial for itself."""
        return self.unshared[TOTAL].mean / max(self.stages[TOTAL].mean, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave, through JSON as well."""
        values = dict(values)
        values["rungs"] = tuple((int(epochs), float(trials)) for epochs, trials in values["rungs"])
        values["builds"] = tuple(PlannedPrefill(**build) for build in values["builds"])
        values |= {name: Estimate(**values[name]) for name in ("needed", "unshared_needed")}
        for name in ("stages", "unshared"):
            values[name] = {stage: Estimate(**span) for stage, span in values[name].items()}
        values["machine"] = Machine(**values["machine"])
        values["assumptions"] = tuple(values["assumptions"])
        return cls(**values)


def make_plan(spec: SweepSpec, situation: SweepConditions, draws: int = DRAWS, seed: int = 0) -> Plan:
    """The plan of ``spec``. The same arguments give the same plan."""
    draws = max(min(draws, TRIALS_PLAYED // spec.budget.trials), min(draws, FEWEST_DRAWS))
    campaign = SimulatedSweep(spec, situation)
    shared, alone, asked = [], [], []
    needed_s: dict[bool, list[float]] = {True: [], False: []}
    for number in range(draws):
        trials = trials_of(spec, random.Random(f"{seed}:{number}"), lambda config: campaign.work(config).epoch_s)
        asked.append(len(trials))
        if spec.budget.hours is not None and number < FEWEST_DRAWS:
            for share, found in needed_s.items():
                found.append(campaign.needed_s(trials, f"{seed}:{number}", share))
        shared.append(campaign.run(trials, f"{seed}:{number}", share=True))
        alone.append(campaign.run(trials, f"{seed}:{number}", share=False))
    keys = {work.key for outcome in shared for work in outcome.works}
    estimated = keys & campaign.speeds.estimated
    return Plan(
        name=spec.name,
        trials=math.floor(_mean(asked)),
        begun=_mean(len(outcome.epochs) for outcome in shared),
        unshared_begun=_mean(len(outcome.epochs) for outcome in alone),
        epochs=spec.budget.epochs,
        rungs=_rungs(shared, spec.budget.epochs),
        builds=_builds(shared, campaign),
        stages=_stages(shared),
        unshared=_stages(alone),
        needed=Estimate.of(needed_s[True] or [outcome.stages[Stage.SEARCH] for outcome in shared]),
        unshared_needed=Estimate.of(needed_s[False] or [outcome.stages[Stage.SEARCH] for outcome in alone]),
        floor_s=_mean(campaign.floor_s(o.fits) for o in shared),
        whole_floor_s=_mean(campaign.floor_s(o.fits) + campaign.final_floor_s(o) for o in shared),
        disk=_disk(shared, campaign),
        memory_bytes=max(campaign.memory_bytes(o.works) for o in shared),
        longest_trial_s=min(campaign.longest_s(o.ended) for o in shared),
        unshared_longest_trial_s=min(campaign.longest_s(o.ended, share=False) for o in alone),
        machine=campaign.speeds.machine,
        measured_parts=len(keys) - len(estimated),
        estimated_parts=len(estimated),
        assumptions=_assumptions(spec, situation, keys, estimated),
    )


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _stages(outcomes: Sequence[SimulatedOutcome]) -> dict[str, Estimate]:
    return {stage: Estimate.of([outcome.stages[stage] for outcome in outcomes]) for stage in STAGES}


def _rungs(outcomes: Sequence[SimulatedOutcome], epochs: int) -> tuple[tuple[int, float], ...]:
    """Epochs at which some trial stopped, or all that ran to the end, and how many came so far."""
    ends = sorted({done for outcome in outcomes for done in outcome.epochs if done} | {epochs})
    if len(ends) > 12:
        ends = sorted({ends[round(place * (len(ends) - 1) / 11)] for place in range(12)})
    return tuple((end, _mean(sum(done >= end for done in outcome.epochs) for outcome in outcomes)) for end in ends)


def _builds(outcomes: Sequence[SimulatedOutcome], campaign: SimulatedSweep) -> tuple[PlannedPrefill, ...]:
    """One for each shelf that any run reads, prefixes first, the dearest first."""
    rows: dict[str, float] = {}
    stored: dict[str, float] = {}
    size: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for outcome in outcomes:
        for each, made, there in outcome.rows:
            what = each.shelf.what
            rows[what] = rows.get(what, 0.0) + made / len(outcomes)
            stored[what] = stored.get(what, 0.0) + there / len(outcomes)
            size[what] = size.get(what, 0.0) + made * each.shelf.row_bytes / len(outcomes)
            seconds[what] = seconds.get(what, 0.0) + made * campaign.row_s(each) / len(outcomes)
    builds = [PlannedPrefill(what, rows[what], stored[what], size[what], seconds[what]) for what in rows]
    return tuple(sorted(builds, key=lambda build: (build.what.startswith("images"), -build.seconds, build.what)))


def _disk(outcomes: Sequence[SimulatedOutcome], campaign: SimulatedSweep) -> dict[str, float]:
    def written(images: bool) -> float:
        return max(
            sum(made * each.shelf.row_bytes for each, made, _ in outcome.rows if (not each.shelf.layer) == images)
            for outcome in outcomes
        )

    return {
        "features": written(images=False),
        "images": written(images=True),
        "checkpoints": max(campaign.checkpoint_bytes(outcome.works) for outcome in outcomes),
        "models": max(campaign.model_bytes(outcome) for outcome in outcomes),
    }


def _assumptions(
    spec: SweepSpec, situation: SweepConditions, keys: set[PartKey], estimated: set[PartKey]
) -> tuple[str, ...]:
    """What the figures take for granted, one sentence each."""
    machine, budget = situation.machine, spec.budget
    found = [f"Measured on {situation.calibration.machine}; all workers were busy at once."]
    if estimated:
        found.append(
            f"{len(estimated)} of {len(keys)} kinds of network were not measured; their times are estimates based on "
            "the most similar network that was (number of multiplications at its speed). So is decoding at other sizes."
        )
    stand_ins = unknown_backbones(key for key in keys if key in estimated)
    if stand_ins:
        found.append(f"{', '.join(stand_ins)}: neither in the table nor measured; estimated as if it were {STAND_IN}.")
    if not spec.configurations:
        found.append("Trials are sampled uniformly from the space.")
        if budget.sampler.name in LEARNING and budget.trials > budget.sampler.startup_trials:
            found[-1] = (
                f"The first {budget.sampler.startup_trials} trials are sampled uniformly from the space. Then "
                f"{budget.sampler.name} is assumed to propose the one of {CANDIDATES} samples that trains longest."
            )
    found.append(
        f"Scores are random, but trials that train longer tend to score better (correlation {EFFORT:g}; estimated, as "
        "is what the sampler proposes, from one sweep of TrashNet)."
    )
    if budget.target_accuracy is not None:
        found.append("target_accuracy is not predicted: the search runs to its end.")
    if not machine.measured:
        found += _about_machine(machine)
    return (*found, *situation.notes)


def _about_machine(machine: Machine) -> list[str]:
    found = [
        f"Simulated: {machine.workers} worker{'s' * (machine.workers > 1)} on {machine.nodes} "
        f"node{'s' * (machine.nodes > 1)}"
        + (f", {machine.gpus:g} GPU{'s' * (machine.gpus != 1)} ({machine.name})." if machine.gpus else "."),
        "Decoding, augmenting and the start take each worker as long as here. The driver, the network between nodes "
        "and the disks are no bottleneck. The store is empty and has no limit.",
    ]
    if machine.network_factor != 1:
        factor = machine.network_factor
        times = f"{factor:,.0f}" if factor >= 100 else f"{factor:.3g}"
        found.append(
            f"Networks run {times} times as fast there as on one worker here, whatever their "
            "layers; a training step on a GPU takes at least 1 ms."
        )
    if machine.nodes > 1:
        found.append(
            "All nodes share one store."
            if machine.shared_store
            else "Each node has a store of its own and fills it with what its own trials need."
        )
    return found


def refusals(
    plan: Plan,
    hours: float | None = None,
    free_bytes: float = math.inf,
    cap_bytes: float = math.inf,
    share: bool = True,
) -> list[str]:
    """Why the sweep should not start, a sentence each: it cannot fit its ``hours``, or the disk.

    The hours are the search's. They are too few where not even the quickest run that was played tries all trials
    within them, and hopeless where its longest trial does not come to its end. ``cap_bytes``: what the store may grow
    by; beyond that it evicts.
    """
    found = []
    limit_s = math.inf if hours is None else 3600 * hours
    longest_s = plan.longest_trial_s if share else plan.unshared_longest_trial_s
    needed = plan.needed if share else plan.unshared_needed
    begun = plan.begun if share else plan.unshared_begun
    if longest_s > limit_s:
        found.append(
            f"one trial alone takes {format_duration(longest_s)}, more than the {hours:g} hours of the search; "
            "raise budget.hours, or try fewer epochs, smaller images or fewer unfrozen layers."
        )
    elif needed.low > limit_s:
        reached = f"about {begun:.0f}" if begun < plan.trials else "not all"  # a plan made without hours does not say
        found.append(
            f"the search takes {format_duration(needed.mean)}, more than its {hours:g} hours, which {reached} of its "
            f"{plan.trials} trials come to; raise budget.hours, or lower budget.trials or budget.epochs."
        )
    store = plan.store_bytes if share else plan.disk["images"]
    peak = plan.disk_bytes - plan.store_bytes + min(store, cap_bytes)
    if peak > free_bytes:
        found.append(
            f"the sweep writes {peak / GB:.1f} GB and {free_bytes / GB:.1f} GB are free; free some "
            "(orch cache prune), move ORCH_CACHE to a larger disk, or search fewer sizes, boundaries or multipliers."
        )
    return found


def cautions(plan: Plan, cap_bytes: float = math.inf, share: bool = True) -> list[str]:
    """What a person should know of a sweep that may start, a sentence each: it costs time that no plan foretells."""
    found = []
    store = plan.store_bytes if share else plan.disk["images"]
    if store > cap_bytes:
        found.append(
            f"the store would hold {store / GB:.1f} GB and may hold {cap_bytes / GB:.1f} GB, so what was "
            "computed is evicted and computed again, which the hours do not count; raise ORCH_CACHE_GB, or set "
            "resources.store_dtype to float16."
        )
    has = plan.machine.memory_bytes
    if has and plan.memory_bytes > has:
        found.append(
            f"the workers would hold {plan.memory_bytes / GB:.1f} GB of memory at once and the machine has "
            f"{has / GB:.1f} GB; let fewer trials run at once with budget.concurrent."
        )
    return found


def format_duration(seconds: float) -> str:
    """A duration for a person: "40 s", "12 min", "3.4 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} days"


@dataclass(frozen=True)
class StageComparison:
    """A stage as it was planned and as it was. ``actual_s`` is NaN where the sweep did not come so far."""

    stage: str
    planned_s: float
    low_s: float
    high_s: float
    actual_s: float

    @property
    def ratio(self) -> float:
        """Actual over planned; NaN where either is nothing."""
        return self.actual_s / self.planned_s if self.planned_s > 0 else math.nan


def compare_stages(plan: Plan, actual_s: Mapping[str, float], share: bool = True) -> list[StageComparison]:
    """Plan against actual, a row a stage of ``STAGES``. The total is over the stages that both know."""
    planned = plan.stages if share else plan.unshared
    rows = []
    for stage in STAGES[:-1]:
        span = planned[stage]
        rows.append(StageComparison(stage, span.mean, span.low, span.high, actual_s.get(stage, math.nan)))
    done = [row for row in rows if row.stage != Stage.PREFILL and math.isfinite(row.actual_s)]
    total = [sum(getattr(row, name) for row in done) for name in ("planned_s", "low_s", "high_s", "actual_s")]
    return [*rows, StageComparison(TOTAL, *total)] if done else rows
