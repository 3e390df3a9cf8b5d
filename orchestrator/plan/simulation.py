"""A sweep played from its costs, event by event, without a clock: who trains what when, and what is built. Pure.

Workers take what the real schedule gives them: a trial whose rows are ready, one of an architecture that they have
traced before any other; else rows that a waiting trial needs and nobody builds; else a share of a build that runs.
Scores are random, but for a leaning towards trials that train more, so a run is one of many that could happen;
``simulate`` is a function of its arguments.
"""

from __future__ import annotations

import bisect
import heapq
import math
import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from orchestrator.plan.calibration import Machine
from orchestrator.plan.stopping import GO, PAUSE, StoppingRule
from orchestrator.plan.workload import FitWork, PlannedRows
from orchestrator.search.scheduling import MAX_PREFILL_WORKERS

NOISE = 0.2
"""How far a score lies from what the trial is worth, which lies in (0, 1)."""
EFFORT = 0.7
"""How strongly what a trial is worth goes with how long it trains, as a correlation of ranks: more layers, more copies
and larger networks score better, as a rule. Among the 20 trials of a sweep of trashnet.yaml it was 0.77 (2026-11-24,
seconds of an epoch on stored features against the accuracy after two epochs)."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class PrefillCost:
    """Seconds of one row on one worker. ``decode``: (view, size) -> a photo; ``augment``: (recipe, size) -> a copy."""

    decode: Callable[[str, int], float]
    augment: Callable[[str, int], float]

    def of_image(self, rows: PlannedRows) -> float:
        """A copy is decoded anew and then augmented."""
        copy_s = self.augment(rows.recipe, rows.shelf.image_size) if rows.recipe else 0.0
        return self.decode(rows.shelf.view, rows.shelf.image_size) + copy_s


@dataclass(frozen=True)
class SimulationSettings:
    """What holds for a whole sweep. ``share``: False lets every trial run its frozen part itself.

    ``stores``: 1 where all nodes share one, else as many as nodes. ``trial_s``: a trial's own overhead. ``hours_s``:
    after which the search ends. ``fits``: whether a set of rows may be kept in the store.
    """

    machine: Machine
    cost: PrefillCost
    share: bool = True
    trial_s: float = 0.1
    hours_s: float = math.inf
    fits: Callable[[int], bool] = lambda size: True

    @property
    def stores(self) -> int:
        return 1 if self.machine.shared_store else max(self.machine.nodes, 1)


@dataclass
class Cluster:
    """What workers and stores hold, from one stage to the next. ``have``: ``PlannedRows.place`` -> count, per store."""

    have: list[dict[str, int]]
    networks: list[set[Hashable]]
    traced: list[set[Hashable]]

    @classmethod
    def cold(cls, terms: SimulationSettings, stored: dict[str, int]) -> Cluster:
        workers = range(terms.machine.workers)
        return cls([dict(stored) for _ in range(terms.stores)], [set() for _ in workers], [set() for _ in workers])

    def cool_down(self) -> None:
        """New processes: what they had opened and traced is gone, the stores stay."""
        for known in (*self.networks, *self.traced):
            known.clear()


@dataclass(frozen=True)
class SimulatedRun:
    """One run. ``seconds`` by the clock; ``build_s`` and ``busy_s`` in worker-seconds; ``epochs`` of each fit that was
    begun, in the order of the list; ``complete``: places of those that ran to their end, the best first.
    ``built``: ``PlannedRows.place`` -> rows made."""

    seconds: float
    build_s: float
    busy_s: float
    epochs: tuple[int, ...]
    complete: tuple[int, ...]
    built: dict[str, int]


def simulate(
    works: Sequence[FitWork], rule: StoppingRule, terms: SimulationSettings, cluster: Cluster, draw: random.Random
) -> SimulatedRun:
    """Run ``works`` in their order, each until ``rule`` lets it end. ``cluster`` is changed."""
    return _Play(works, rule, terms, cluster, draw).run()


@dataclass
class _Build:
    """Rows that are being made for one store; those who help share ``left_s`` evenly."""

    store: int
    rows: list[tuple[PlannedRows, int]]
    left_s: float
    network: Hashable
    open_s: float
    trace_s: float
    helpers: set[int] = field(default_factory=set)
    starting: int = 0
    since_s: float = 0.0
    version: int = 0


@dataclass
class _Trial:
    place: int
    worth: float
    epoch: int = 0
    target: int = 0


def standing(values: Sequence[float]) -> list[float]:
    """The quantile of the standard normal distribution at each value's rank, which equal values share; 0 on average."""
    ascending = sorted(values)
    ranks = [(bisect.bisect_left(ascending, value) + bisect.bisect_right(ascending, value)) / 2 for value in values]
    return [_NORMAL.inv_cdf(rank / len(values)) for rank in ranks]


class _Play:
    def __init__(
        self,
        works: Sequence[FitWork],
        rule: StoppingRule,
        terms: SimulationSettings,
        cluster: Cluster,
        draw: random.Random,
    ) -> None:
        self.works, self.rule, self.terms, self.cluster, self.draw = works, rule, terms, cluster, draw
        self.now_s = self.build_s = self.busy_s = 0.0
        self.idle = list(range(terms.machine.workers))
        self.asked = 0
        self.waiting: list[_Trial] = []
        self.paused: dict[int, _Trial] = {}
        self.builds: list[_Build] = []
        self.running: dict[int, _Trial] = {}
        self.effort = standing([work.epoch_s for work in works])
        self.trials: list[_Trial] = []
        self.complete: list[_Trial] = []
        self.built: dict[str, int] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def run(self) -> SimulatedRun:
        self._dispatch()
        while self._events and self._events[0][0] <= self.terms.hours_s:
            self.now_s, _, happen = heapq.heappop(self._events)
            happen()
            self._dispatch()
        if self._events:  # the hours are over
            self.now_s = self.terms.hours_s
        best = sorted(self.complete, key=lambda trial: -trial.worth)
        return SimulatedRun(
            self.now_s,
            self.build_s,
            self.busy_s,
            tuple(trial.epoch for trial in self.trials),
            tuple(trial.place for trial in best),
            self.built,
        )

    def _at(self, after_s: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now_s + after_s, self._count, happen))

    # --- who does what

    def _dispatch(self) -> None:
        """Give every idle worker something to do, if there is anything."""
        resting: list[int] = []
        while self.idle:
            worker = self.idle.pop(0)
            if not self._give(worker, 1 + len(self.idle) + len(resting)):
                resting.append(worker)
        self.idle = resting

    def _give(self, worker: int, free: int) -> bool:
        store = worker % self.terms.stores
        while True:
            trial = self._ready(worker, store)
            if trial is not None:
                self.waiting.remove(trial)
                self._start(worker, trial)
                return True
            if self.asked == len(self.works) or len(self.waiting) >= free:
                break
            self._ask()
        return self._build_new(worker, store) or self._help(worker, store)

    def _ask(self) -> None:
        chance = self.draw.gauss(0.0, 1.0)
        worth = _NORMAL.cdf(EFFORT * self.effort[self.asked] + math.sqrt(1 - EFFORT**2) * chance)
        trial = _Trial(self.asked, worth)
        self.asked += 1
        self.trials.append(trial)
        self.waiting.append(trial)

    def _ready(self, worker: int, store: int) -> _Trial | None:
        """The first waiting trial whose rows are there, rather one that this worker has traced."""
        ready = [trial for trial in self.waiting if not self._missing(trial, store)]
        warm = self.cluster.traced[worker]
        return next((t for t in ready if self.works[t.place].architecture in warm), ready[0] if ready else None)

    def _missing(self, trial: _Trial, store: int) -> list[tuple[PlannedRows, int]]:
        have = self.cluster.have[store]
        rows = self._needed(self.works[trial.place])
        return [(each, have.get(each.place, 0)) for each in rows if have.get(each.place, 0) < each.count]

    def _needed(self, work: FitWork) -> tuple[PlannedRows, ...]:
        return work.features if self._stored(work) else work.images

    def _stored(self, work: FitWork) -> bool:
        """Whether the fit reads features from the store, or runs its prefix in every epoch."""
        return work.has_prefix and self.terms.share and self.terms.fits(sum(rows.bytes for rows in work.features))

    # --- trials

    def _start(self, worker: int, trial: _Trial) -> None:
        work = self.works[trial.place]
        if trial.epoch == 0:
            self.rule.add(trial.place)
        once_s = self.terms.trial_s + self._opening_s(worker, work)
        self.running[worker] = trial
        self._go_on(worker, trial, once_s)

    def _opening_s(self, worker: int, work: FitWork) -> float:
        networks, traced = self.cluster.networks[worker], self.cluster.traced[worker]
        seconds = 0.0 if work.network in networks else work.speed.open_s
        seconds += 0.0 if work.architecture in traced else work.speed.trace_s
        networks.add(work.network)
        traced.add(work.architecture)
        return seconds

    def _go_on(self, worker: int, trial: _Trial, once_s: float = 0.0) -> None:
        work = self.works[trial.place]
        trial.target = self.rule.next_epoch(trial.place, trial.epoch)
        live = work.has_prefix and not self._stored(work)
        epoch_s = work.live_epoch_s if live else work.epoch_s
        seconds = once_s + (trial.target - trial.epoch) * epoch_s
        self.busy_s += seconds
        self._at(seconds, lambda: self._reported(worker, trial))

    def _reported(self, worker: int, trial: _Trial) -> None:
        trial.epoch = trial.target
        is_last = trial.epoch >= self.rule.epochs
        if is_last:
            self.complete.append(trial)
            verdict = self.rule.ended(trial.place)
        else:
            score = trial.worth + NOISE * (self.draw.random() - 0.5)
            verdict = self.rule.report(trial.place, trial.epoch, score)
        for place in verdict.resumed:
            self.waiting.insert(0, self.paused.pop(place))
        for place in verdict.stopped:
            self.paused.pop(place, None)
        if not is_last and verdict.action == GO:
            self._go_on(worker, trial)
            return
        if not is_last and verdict.action == PAUSE:
            self.paused[trial.place] = trial
        del self.running[worker]
        self.idle.append(worker)

    # --- rows

    def _build_new(self, worker: int, store: int) -> bool:
        """Begin the rows that the trial which waits longest needs and nobody makes."""
        claimed = self._claimed(store)
        for trial in self.waiting:
            open_rows = [
                (rows, max(have, claimed.get(rows.place, 0)))
                for rows, have in self._missing(trial, store)
                if claimed.get(rows.place, 0) < rows.count
            ]
            if open_rows:
                self._begin(worker, store, self.works[trial.place], open_rows)
                return True
        return False

    def _claimed(self, store: int) -> dict[str, int]:
        """How many rows of each kind somebody makes; who needs them too waits for those."""
        claimed: dict[str, int] = {}
        for build in self.builds:
            if build.store == store:
                for rows, _ in build.rows:
                    claimed[rows.place] = max(claimed.get(rows.place, 0), rows.count)
        return claimed

    def _begin(self, worker: int, store: int, work: FitWork, open_rows: list[tuple[PlannedRows, int]]) -> None:
        have, seconds = self.cluster.have[store], 0.0
        made: list[tuple[PlannedRows, int]] = []
        images = {(r.split, r.recipe, r.shelf.view): r for r in work.images}
        claimed = self._claimed(store)
        for rows, there in open_rows:
            image = images[rows.split, rows.recipe, rows.shelf.view]
            lacking = max(rows.count - max(there, have.get(image.place, 0), claimed.get(image.place, 0)), 0)
            seconds += lacking * self.terms.cost.of_image(image)
            if lacking:
                made.append((image, rows.count - lacking))
            if rows.shelf.layer:
                seconds += (rows.count - there) * work.speed.prefix_s
                made.append((rows, there))
        through = any(rows.shelf.layer for rows, _ in open_rows)
        speed = work.speed
        build = _Build(
            store,
            made,
            seconds,
            work.network,
            speed.open_s if through else 0.0,
            speed.prefix_trace_s if through else 0.0,
        )
        self.builds.append(build)
        self._join(worker, build)

    def _help(self, worker: int, store: int) -> bool:
        """Join the build that has most left for each who makes it, where that ends it sooner."""
        for build in sorted((b for b in self.builds if b.store == store), key=lambda b: -self._left_s(b)):
            is_full = len(build.helpers) + build.starting >= MAX_PREFILL_WORKERS
            if not is_full and self._left_s(build) > self._entry_s(worker, build):
                self._join(worker, build)
                return True
        return False

    def _left_s(self, build: _Build) -> float:
        done_s = (self.now_s - build.since_s) * len(build.helpers)
        return max(build.left_s - done_s, 0.0) / max(len(build.helpers) + build.starting, 1)

    def _entry_s(self, worker: int, build: _Build) -> float:
        return build.trace_s + (0.0 if build.network in self.cluster.networks[worker] else build.open_s)

    def _join(self, worker: int, build: _Build) -> None:
        entry_s = self._entry_s(worker, build)
        if build.open_s:
            self.cluster.networks[worker].add(build.network)
        build.starting += 1
        self.busy_s += entry_s
        self.build_s += entry_s
        self._at(entry_s, lambda: self._joined(worker, build))

    def _joined(self, worker: int, build: _Build) -> None:
        build.starting -= 1
        if build not in self.builds:  # the others were done before
            self.idle.append(worker)
            return
        self._settle(build)
        build.helpers.add(worker)
        self._expect(build)

    def _settle(self, build: _Build) -> None:
        """Take what was done since the last change from what is left."""
        done_s = min((self.now_s - build.since_s) * len(build.helpers), build.left_s)
        build.left_s -= done_s
        build.since_s = self.now_s
        self.busy_s += done_s
        self.build_s += done_s

    def _expect(self, build: _Build) -> None:
        build.version += 1
        version = build.version
        self._at(build.left_s / len(build.helpers), lambda: self._done(build, version))

    def _done(self, build: _Build, version: int) -> None:
        if version != build.version:
            return  # somebody joined meanwhile
        self._settle(build)
        self.builds.remove(build)
        have = self.cluster.have[build.store]
        for rows, there in build.rows:
            have[rows.place] = max(have.get(rows.place, 0), rows.count)
            self.built[rows.place] = self.built.get(rows.place, 0) + rows.count - there
        self.idle.extend(sorted(build.helpers))
