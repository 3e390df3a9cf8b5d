"""Simulate the stages of a sweep from the costs of its fits: search, select, refit, leaderboard. Pure."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.ledger.stages import Stage
from orchestrator.plan.calibration import Calibration, Machine
from orchestrator.plan.estimates import Speeds
from orchestrator.plan.simulation import Cluster, PrefillCost, SimulationSettings, simulate
from orchestrator.plan.stopping import Never, StoppingRule, rule_of
from orchestrator.plan.workload import (
    TRAIN,
    EpochReads,
    FitWork,
    PhotoCounts,
    PlannedRows,
    StoreSettings,
    fit_work,
    judging_s,
    reads_of,
)
from orchestrator.search.next_step import known_ahead
from orchestrator.spec.sections.final import DISTILLED, SOUP
from orchestrator.spec.sweep import SweepSpec
from trainers.config import MEASURED_IMAGES, TrialConfig

START = "start"
"""Time until the first worker begins the search's work, without reading data and planning; no stage of the ledger."""
TOTAL = "total"
"""Time of all stages together."""
PROCESS_BYTES = 900 * 10**6
"""Bytes of a worker with TensorFlow and a small network, if the calibration has no figure."""
DRIVER_BYTES = 700 * 10**6
"""Bytes of the driver."""
DRAWING_S = 4.0
"""Seconds for the leaderboard's figures and files on the driver."""
VALUE_BYTES = {"float32": 4, "float16": 2}


@dataclass(frozen=True)
class SweepConditions:
    """The conditions of a sweep. ``stored``: ``PlannedRows.place`` -> rows in the store; ``cap_bytes``: its limit.

    ``precision``: dtype policy of the workers. ``store_dtype``: dtype of stored features. ``notes``: sentences for the
    plan's assumptions.
    """

    photos: PhotoCounts
    machine: Machine
    calibration: Calibration
    stored: Mapping[str, int] = field(default_factory=dict)
    cap_bytes: float = math.inf
    precision: str = "float32"
    store_dtype: str = "float32"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SimulatedOutcome:
    """One simulated sweep. ``stages``: stage -> seconds. ``epochs``: of each started trial.

    ``fits``: (fit, epochs) of the search; ``refits``: of the refits. ``rows``: (rows that are read, number computed,
    number stored before). ``complete``: trials that ran to their last epoch. ``judging_s``: worker-seconds of
    predicting.
    """

    stages: Mapping[str, float]
    epochs: tuple[int, ...]
    fits: tuple[tuple[FitWork, int], ...]
    refits: tuple[tuple[FitWork, int], ...]
    rows: tuple[tuple[PlannedRows, int, int], ...]
    complete: tuple[FitWork, ...]
    judging_s: float

    @property
    def ended(self) -> list[FitWork]:
        """Complete trials; all started ones if none is complete."""
        return list(self.complete) or [work for work, _ in self.fits]

    @property
    def works(self) -> list[FitWork]:
        """Every kind of started fit, without duplicates."""
        return list(dict.fromkeys(work for work, _ in (*self.fits, *self.refits)))


@dataclass(frozen=True)
class FormsCost:
    """Seconds of making and choosing the winner's form. ``worker_s``: without opening networks."""

    wall_s: float = 0.0
    worker_s: float = 0.0


class SimulatedSweep:
    """Simulates sweeps of ``spec`` in ``situation``."""

    def __init__(self, spec: SweepSpec, situation: SweepConditions) -> None:
        self.spec, self.situation = spec, situation
        self.speeds = Speeds(situation.calibration, self._machine())
        self._settings = StoreSettings(situation.precision, VALUE_BYTES[situation.store_dtype])
        self._works: dict[tuple[TrialConfig, tuple[str, ...]], FitWork] = {}
        self._cost = PrefillCost(self.speeds.decode_s, self.speeds.augment_s)

    def _machine(self) -> Machine:
        """The machine with no more workers than ``budget.concurrent``."""
        machine, most = self.situation.machine, self.spec.budget.most_at_once
        return machine if most is None else dataclasses.replace(machine, workers=min(machine.workers, most))

    def work(self, config: TrialConfig, refit: tuple[str, ...] = ()) -> FitWork:
        """Return the costs of a fit; cached by the fields that decide them."""
        plain = dataclasses.replace(
            config,
            dropout=0.0,
            smoothing=0.0,
            learning_rate=1e-3,
            weight_decay=0.0,
            scale=None,
            margin=None,
            warmup=0.0,
            margin_warmup=0.0,
            bottom_rate=0.5 if config.bottom_rate < 1 else 1.0,
            ema=0.5 if config.ema else 0.0,
        )
        key = plain, refit
        if key not in self._works:
            made = fit_work(plain, self.situation.photos, self.speeds, refit, self._settings)
            self._works[key] = made
        return self._works[key]

    def run(self, trials: Sequence[TrialConfig], seed: str, share: bool = True) -> SimulatedOutcome:
        """Simulate the sweep of ``trials``. ``share``: False lets no trial share features."""
        spec, once = self.spec, self.situation.calibration
        hours = spec.budget.hours
        terms = self._terms(share, math.inf if hours is None else 3600 * hours)
        cluster, draw = Cluster.cold(terms, dict(self.situation.stored)), random.Random(seed)
        works = [self.work(config) for config in trials]
        searched = simulate(works, self._rule(), terms, cluster, draw)
        fits = tuple(zip(works, searched.epochs, strict=False))
        # Ray starts while the photos are read; the sweep waits for TensorFlow in the workers.
        stages = {START: once.worker_start_s, Stage.PREFILL: searched.build_s, Stage.SEARCH: searched.seconds}
        stages |= {Stage.SELECT: 0.0, Stage.REFIT: 0.0, Stage.LEADERBOARD: 0.0}
        refits: tuple[tuple[FitWork, int], ...] = ()
        judged_s, built = 0.0, dict(searched.built)
        chosen = [trials[place] for place in searched.complete[: 1 + spec.final.runners_up]]
        if chosen:
            cluster.cool_down()
            select_s = self._judging_s([self.work(chosen[0])], self.situation.photos.to_choose_on, share)
            stages[Stage.SELECT] = once.worker_start_s + self._spread_s([self.work(chosen[0])], select_s)
            again, terms = self._refits(chosen), self._terms(share, known=math.inf)
            rounds = [again, self._students(chosen[0])]
            for fits_of_round in filter(None, rounds):
                epochs = fits_of_round[0][1]
                refitted = simulate([work for work, _ in fits_of_round], Never(epochs), terms, cluster, draw)
                stages[Stage.REFIT] += once.worker_start_s + refitted.seconds
                stages[Stage.PREFILL] += refitted.build_s
                built = {p: built.get(p, 0) + refitted.built.get(p, 0) for p in {*built, *refitted.built}}
                cluster.cool_down()
            policy = random.Random(f"{seed}:policy").choice(spec.final.policies)  # which one wins is not known yet
            forms = self.forms_cost(chosen[0], policy, share)
            stages[Stage.REFIT] += forms.wall_s
            again = [each for fits_of_round in rounds for each in fits_of_round]
            models = self._shown(chosen)
            board_s = self._judging_s(models, sum(self.situation.photos.test), share)
            stages[Stage.LEADERBOARD] = DRAWING_S + once.worker_start_s + self._spread_s(models, board_s)
            refits, judged_s = tuple(again), select_s + forms.worker_s + board_s
        stages[TOTAL] = sum(seconds for stage, seconds in stages.items() if stage != Stage.PREFILL)
        return SimulatedOutcome(
            stages,
            searched.epochs,
            fits,
            refits,
            self._rows([work for work, _ in (*fits, *refits)], built),
            tuple(works[place] for place in searched.complete),
            judged_s,
        )

    def needed_s(self, trials: Sequence[TrialConfig], seed: str, share: bool = True) -> float:
        """Return the seconds of the search without a limit of hours."""
        terms = self._terms(share)
        works = [self.work(config) for config in trials]
        cluster = Cluster.cold(terms, dict(self.situation.stored))
        return simulate(works, self._rule(), terms, cluster, random.Random(seed)).seconds

    def _rule(self) -> StoppingRule:
        budget = self.spec.budget
        chosen = budget.scheduler
        return rule_of(chosen.name, budget.epochs, chosen.grace_epochs, chosen.reduction_factor, chosen.min_trials)

    def _terms(self, share: bool, hours_s: float = math.inf, known: float | None = None) -> SimulationSettings:
        """``known``: trials that depend on no result; None for what the file's sampler proposes."""
        cap, sampler = self.situation.cap_bytes, self.spec.budget.sampler
        if known is None:
            known = math.inf if self.spec.configurations else known_ahead(sampler.name, sampler.startup_trials)
        return SimulationSettings(
            self.speeds.machine,
            self._cost,
            share,
            self.situation.calibration.trial_s,
            hours_s,
            lambda size: size <= cap,
            known,
        )

    def _refits(self, chosen: Sequence[TrialConfig]) -> list[tuple[FitWork, int]]:
        """List the networks to retrain with their epochs, the winner's first, those without validation photos last."""
        final, epochs = self.spec.final, self.spec.final.epochs or self.spec.budget.epochs
        found = [(self.work(config, final.splits), epochs) for config in chosen for _ in range(final.seeds)]
        held_out = final.seeds if final.trains_held_out else 0
        return found + [(self.work(chosen[0], (TRAIN,)), epochs)] * held_out

    def _students(self, winner: TrialConfig) -> list[tuple[FitWork, int]]:
        """List the distilled networks to train with their epochs; [] if none is asked for or images are mixed."""
        final = self.spec.final
        if DISTILLED not in final.forms or winner.mixes_images:
            return []
        epochs = final.distillation.epochs or final.epochs or self.spec.budget.epochs
        every = [final.splits, (TRAIN,)] if final.trains_held_out else [final.splits]
        fixed = dataclasses.replace(winner, draws="fixed")  # the teacher answers once on each copy
        return [(self.work(fixed, splits), epochs) for splits in every]

    def forms_cost(self, winner: TrialConfig, policy: str, share: bool = True) -> FormsCost:
        """Return the cost of making the winner's forms and of choosing one of them on validation under ``policy``,
        without the epochs of the distilled networks.

        Networks, each soup that is tried and the distilled network predict validation one after the other, on all
        workers. One worker averages a soup, and one computes the answers of a teacher.
        """
        final, photos, work = self.spec.final, self.situation.photos, self.work(winner, self.spec.final.splits)
        if not final.makes_forms:
            return FormsCost()
        image_s = work.speed.predict_s + (0.0 if share else work.speed.prefix_s)
        judged = [[work] * final.seeds]  # the networks that have not seen the validation photos
        alone, answers = list[float](), list[float]()  # seconds of one worker in a network that it opens
        every = [(TRAIN,), final.splits] if final.trains_held_out else [final.splits]
        if SOUP in final.forms:
            tried = final.seeds - 1
            judged += [[work]] * tried
            if winner.batch_norm != "frozen" and winner.unfrozen_layers != 0:  # else there are no norms to measure
                alone = [self._measured(winner, splits) * image_s for splits in [every[0]] * tried + every[1:]]
        if self._students(winner):
            judged += [[work]]
            answers = [final.seeds * self._reads(winner, splits).train * image_s for splits in every]
        judging = [judging_s(works, self.speeds, photos.to_choose_on, [policy], share) for works in judged]
        wall_s = sum(self._spread_s([work], seconds) for seconds in judging)
        wall_s += sum(work.speed.open_s + seconds for seconds in alone)
        at_once = max(1, min(len(answers), self.speeds.machine.workers))
        wall_s += sum(work.speed.open_s + seconds for seconds in answers) / at_once
        return FormsCost(wall_s, sum((*judging, *alone, *answers)))

    def _reads(self, config: TrialConfig, splits: tuple[str, ...]) -> EpochReads:
        """Return what a refit on ``splits`` reads."""
        photos = self.situation.photos
        return reads_of(photos, config.framing, config.multiplier, config.recipe, splits, config.copies)

    def _measured(self, config: TrialConfig, splits: tuple[str, ...]) -> int:
        """Count the images over which the batch norms of a soup are measured."""
        return min(MEASURED_IMAGES, self._reads(config, splits).originals)

    def _shown(self, chosen: Sequence[TrialConfig]) -> list[FitWork]:
        """List the networks on the leaderboard."""
        final = self.spec.final
        forms = int(SOUP in final.forms) + len(self._students(chosen[0])[:1])
        seeds = [self.work(config, final.splits) for config in chosen for _ in range(final.seeds)]
        return seeds + [self.work(chosen[0], final.splits)] * forms

    def _judging_s(self, works: Sequence[FitWork], images: int, share: bool) -> float:
        return judging_s(works, self.speeds, images, self.spec.final.policies, share)

    def _spread_s(self, works: Sequence[FitWork], seconds: float) -> float:
        """Return the wall time if workers divide the images and each opens every network once."""
        opened = dict.fromkeys((work.prefix, work.speed.open_s + work.speed.prefix_trace_s) for work in works)
        return seconds / self.speeds.machine.workers + sum(open_s for _, open_s in opened)

    def _rows(self, works: Sequence[FitWork], built: Mapping[str, int]) -> tuple[tuple[PlannedRows, int, int], ...]:
        most: dict[str, PlannedRows] = {}
        for work in dict.fromkeys(works):
            for rows in work.rows:
                if rows.place not in most or most[rows.place].count < rows.count:
                    most[rows.place] = rows
        stored = self.situation.stored
        found = [(rows, built.get(p, 0), min(stored.get(p, 0), rows.count)) for p, rows in most.items()]
        return tuple(each for each in found if each[1] or each[2])

    def row_s(self, rows: PlannedRows) -> float:
        """Return the seconds to compute one row of a simulated fit on one worker."""
        return rows.prefix_s if rows.shelf.layer else self._cost.of_image(rows)

    def floor_s(self, fits: Sequence[tuple[FitWork, int]]) -> float:
        """Return the minimum wall time of ``fits``, each with its epochs.

        Missing rows are computed once, trainable parts run at their best speed, and the workers share evenly.
        """
        stored = self.situation.stored
        lacking: dict[str, tuple[int, float]] = {}

        def want(rows: PlannedRows, seconds: float) -> bool:
            count = rows.count - stored.get(rows.place, 0)
            if count > lacking.get(rows.place, (0, 0.0))[0]:
                lacking[rows.place] = (count, seconds)
            return count > 0

        for work, epochs in fits:
            if not epochs:
                continue
            through = {(r.split, r.recipe, r.shelf.view): want(r, r.prefix_s) for r in work.features}
            for rows in work.head_features:
                want(rows, rows.prefix_s)
            for rows in work.images:
                if through.get((rows.split, rows.recipe, rows.shelf.view), True):
                    want(rows, self._cost.of_image(rows))
        seconds = sum(count * each_s for count, each_s in lacking.values())
        seconds += sum(epochs * work.bare_epoch_s + work.head_s for work, epochs in fits if epochs)
        return seconds / self.speeds.machine.workers

    def final_floor_s(self, outcome: SimulatedOutcome) -> float:
        """Return ``floor_s`` of the stages after the search, including rows that only the refits read."""
        both = self.floor_s([*outcome.fits, *outcome.refits]) - self.floor_s(outcome.fits)
        return both + outcome.judging_s / self.speeds.machine.workers

    def memory_bytes(self, works: Sequence[FitWork]) -> float:
        """Return the maximum memory of all workers and the driver together."""
        # With a GPU, the activations of a batch are in its memory.
        most = 0 if self.speeds.machine.gpus else max((work.memory_bytes for work in works), default=0)
        worker = max(self.situation.calibration.worker_bytes, PROCESS_BYTES + most)
        return DRIVER_BYTES + self.speeds.machine.workers * worker

    def checkpoint_bytes(self, works: Sequence[FitWork]) -> float:
        """Return the bytes of the checkpoints, one per worker."""
        return self.speeds.machine.workers * max((work.state_bytes for work in works), default=0)

    def model_bytes(self, outcome: SimulatedOutcome) -> float:
        """Return the bytes of the weights of complete trials and refits, the winner's twice, and of as many soups as
        there are at once: those tried, or the chosen one and its like on all photos."""
        final = self.spec.final
        winners = [work for work, _ in outcome.refits[: final.seeds]]
        at_once = max(final.seeds - 1, 1 + int(final.trains_held_out)) if SOUP in final.forms else 0
        soups = winners[:1] * at_once
        models = [*outcome.complete, *(work for work, _ in outcome.refits), *winners, *soups]
        return float(sum(work.model_bytes for work in models))

    def longest_s(self, works: Sequence[FitWork], share: bool = True) -> float:
        """Return the seconds of the longest trial with stored rows, including opening and tracing."""
        epochs = self.spec.budget.epochs
        epoch_s = [work.epoch_s if share else work.live_epoch_s for work in works]
        once_s = [work.speed.open_s + work.speed.trace_s + work.head_s for work in works]
        return max((once + epochs * each for once, each in zip(once_s, epoch_s, strict=True)), default=0.0)
