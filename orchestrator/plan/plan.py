"""Make a ``Plan`` from a spec, photos, a machine and a calibration: what a sweep will do and cost. Pure.

Trials are drawn from the space and the sweep is simulated (``orchestrator.plan.simulation``) several times with random
scores; every figure is the mean of the runs, with the lowest and the highest.
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
from orchestrator.plan.playthrough import START, TOTAL, SimulatedOutcome, SimulatedSweep, SweepConditions
from orchestrator.plan.simulation import EFFORT
from orchestrator.spec.sweep import SweepSpec
from trainers.wording import GB

PLANNED_STAGES = (START, Stage.PREFILL, Stage.SEARCH, Stage.SELECT, Stage.REFIT, Stage.LEADERBOARD, TOTAL)
"""Stages of a plan in order. ``prefill`` is in worker-seconds, within search and refit; the others are wall time."""
DRAWS = 20
"""Default number of simulated sweeps."""
FEWEST_DRAWS = 5
"""Minimum number of simulated sweeps."""
DRAWN = "Images that are drawn in each epoch are counted on one thread and as if training waited for them."
"""Assumption of a plan with trials that draw copies or random crops anew."""
TRIALS_PLAYED = 10_000
"""Maximum simulated trials in all sweeps together; the mean of large sweeps varies less."""


@dataclass(frozen=True)
class Estimate:
    """A random figure: its mean, lowest and highest value over the simulated runs."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.fmean(values), min(values), max(values))


@dataclass(frozen=True)
class PlannedPrefill:
    """Rows that the sweep reads from the store. ``rows`` are computed, ``stored`` exist before; means over runs.

    ``seconds``: worker-seconds to compute them, without decoding if the images have an entry of their own.
    """

    what: str
    rows: float
    stored: float
    bytes: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a sweep will do and cost; means over the simulated runs.

    ``trials``: of its budget, or all of its space; ``begun``: those that start within its hours; ``rungs``: (epochs,
    trials that reach them). ``stages``: ``PLANNED_STAGES`` -> seconds. ``unshared...``: the same if trials share no
    features. ``needed``: seconds of the search without a limit of hours. ``floor_s``: seconds of the search, and
    ``whole_floor_s`` of all stages after the start, if each unique image were decoded once, each unique prefix ran once
    over each image, and each trainable part ran at the device's best speed for that part alone. ``disk``: maximum bytes
    of features, images, checkpoints and models. ``memory_bytes``: of all workers together. ``longest_trial_s``: of the
    longest complete trial that waits for nothing, in the run in which that is shortest.
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
        """Total time without shared features over the total time with them."""
        return self.unshared[TOTAL].mean / max(self.stages[TOTAL].mean, 1e-9)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``, also after JSON."""
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
    """Return the plan of ``spec``; equal arguments give equal plans."""
    draws = max(min(draws, TRIALS_PLAYED // spec.budget.trials), min(draws, FEWEST_DRAWS))
    simulated = SimulatedSweep(spec, situation)
    shared, alone, asked = [], [], []
    needed_s: dict[bool, list[float]] = {True: [], False: []}
    for number in range(draws):
        trials = trials_of(spec, random.Random(f"{seed}:{number}"), lambda config: simulated.work(config).epoch_s)
        asked.append(len(trials))
        if spec.budget.hours is not None and number < FEWEST_DRAWS:
            for share, found in needed_s.items():
                found.append(simulated.needed_s(trials, f"{seed}:{number}", share))
        shared.append(simulated.run(trials, f"{seed}:{number}", share=True))
        alone.append(simulated.run(trials, f"{seed}:{number}", share=False))
    keys = {work.key for outcome in shared for work in outcome.works}
    estimated = keys & simulated.speeds.estimated
    return Plan(
        name=spec.name,
        trials=math.floor(_mean(asked)),
        begun=_mean(len(outcome.epochs) for outcome in shared),
        unshared_begun=_mean(len(outcome.epochs) for outcome in alone),
        epochs=spec.budget.epochs,
        rungs=_rungs(shared, spec.budget.epochs),
        builds=_builds(shared, simulated),
        stages=_stages(shared),
        unshared=_stages(alone),
        needed=Estimate.of(needed_s[True] or [outcome.stages[Stage.SEARCH] for outcome in shared]),
        unshared_needed=Estimate.of(needed_s[False] or [outcome.stages[Stage.SEARCH] for outcome in alone]),
        floor_s=_mean(simulated.floor_s(o.fits) for o in shared),
        whole_floor_s=_mean(simulated.floor_s(o.fits) + simulated.final_floor_s(o) for o in shared),
        disk=_disk(shared, simulated),
        memory_bytes=max(simulated.memory_bytes(o.works) for o in shared),
        longest_trial_s=min(simulated.longest_s(o.ended) for o in shared),
        unshared_longest_trial_s=min(simulated.longest_s(o.ended, share=False) for o in alone),
        machine=simulated.speeds.machine,
        measured_parts=len(keys) - len(estimated),
        estimated_parts=len(estimated),
        assumptions=(
            *_assumptions(spec, situation, keys, estimated),
            *([DRAWN] if any(work.drawn_s for outcome in shared for work in outcome.works) else []),
        ),
    )


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _stages(outcomes: Sequence[SimulatedOutcome]) -> dict[str, Estimate]:
    return {stage: Estimate.of([outcome.stages[stage] for outcome in outcomes]) for stage in PLANNED_STAGES}


def _rungs(outcomes: Sequence[SimulatedOutcome], epochs: int) -> tuple[tuple[int, float], ...]:
    """Return (epochs, mean trials that reach them) for the epochs at which trials stop or end."""
    ends = sorted({done for outcome in outcomes for done in outcome.epochs if done} | {epochs})
    if len(ends) > 12:
        ends = sorted({ends[round(place * (len(ends) - 1) / 11)] for place in range(12)})
    return tuple((end, _mean(sum(done >= end for done in outcome.epochs) for outcome in outcomes)) for end in ends)


def _builds(outcomes: Sequence[SimulatedOutcome], simulated: SimulatedSweep) -> tuple[PlannedPrefill, ...]:
    """Return one entry per shelf that any run reads: prefixes first, then by cost."""
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
            seconds[what] = seconds.get(what, 0.0) + made * simulated.row_s(each) / len(outcomes)
    builds = [PlannedPrefill(what, rows[what], stored[what], size[what], seconds[what]) for what in rows]
    return tuple(sorted(builds, key=lambda build: (build.what.startswith("images"), -build.seconds, build.what)))


def _disk(outcomes: Sequence[SimulatedOutcome], simulated: SimulatedSweep) -> dict[str, float]:
    def written(images: bool) -> float:
        return max(
            sum(made * each.shelf.row_bytes for each, made, _ in outcome.rows if (not each.shelf.layer) == images)
            for outcome in outcomes
        )

    return {
        "features": written(images=False),
        "images": written(images=True),
        "checkpoints": max(simulated.checkpoint_bytes(outcome.works) for outcome in outcomes),
        "models": max(simulated.model_bytes(outcome) for outcome in outcomes),
    }


def _assumptions(
    spec: SweepSpec, situation: SweepConditions, keys: set[PartKey], estimated: set[PartKey]
) -> tuple[str, ...]:
    """Return the assumptions of the plan, one sentence each."""
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
    """Return why the sweep should not start, a sentence each: it exceeds its ``hours``, or the disk.

    The hours are those of the search. They are too few if not even the fastest simulated run starts all trials within
    them, or if its longest trial alone exceeds them. ``cap_bytes``: bytes that the store may grow before it evicts.
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
    """Return warnings for a sweep that may start, a sentence each: costs that the plan cannot predict."""
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
    """Format a duration: "40 s", "12 min", "3.4 h", "2.1 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86_400:.1f} days"
