"""Simulate a sweep from its costs, event by event, without a clock: which worker trains or computes what. Pure.

The search's own ``next_step`` decides what a free worker does. Scores are random, and trials that train longer tend to
score higher, so a run is one of many that could happen; ``simulate`` is a function of its arguments.
"""

from __future__ import annotations

import bisect
import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from orchestrator.plan.calibration import Machine
from orchestrator.plan.stopping import GO, PAUSE, StoppingRule
from orchestrator.plan.workload import FitWork, PlannedRows
from orchestrator.search.next_step import (
    MAX_PREFILL_WORKERS,
    FeatureSet,
    StartPrefill,
    WaitingTrial,
    may_ask,
    next_step,
)

NOISE = 0.2
"""Width of the uniform noise that is added to a trial's worth, which is in (0, 1), at each report."""
EFFORT = 0.7
"""Rank correlation between a trial's worth and its seconds per epoch: more layers, more copies and larger networks
usually score better. Among the 20 trials of a sweep of trashnet.yaml it was 0.77 (2026-11-24,
seconds of an epoch on stored features against the accuracy after two epochs)."""

_NORMAL = NormalDist()


@dataclass(frozen=True)
class PrefillCost:
    """Seconds per row on one worker. ``decode``: (view, size) -> photo; ``augment``: (recipe, size) -> copy."""

    decode: Callable[[str, int], float]
    augment: Callable[[str, int], float]

    def of_image(self, rows: PlannedRows) -> float:
        """Return the seconds of one decoded image, or of one copy: its photo is decoded once for all of them."""
        if rows.recipe:
            return self.augment(rows.recipe, rows.shelf.image_size)
        return self.decode(rows.shelf.view, rows.shelf.image_size)

    def of_images(self, made: Sequence[tuple[PlannedRows, int]], images: Sequence[PlannedRows]) -> float:
        """Return the seconds of the images that one build makes: (rows, how many of them).

        ``images``: all that the fit reads. Photos whose originals are stored already are decoded again for new copies.
        """
        seconds = sum(count * self.of_image(rows) for rows, count in made)
        decoded = {(rows.split, rows.shelf.view): count for rows, count in made if not rows.recipe}
        photos = {(rows.split, rows.shelf.view): rows for rows in images if not rows.recipe}
        for rows, count in made:
            original = photos.get((rows.split, rows.shelf.view))
            if rows.recipe and original is not None:
                again = min(count, original.count) - decoded.get((rows.split, rows.shelf.view), 0)
                seconds += max(again, 0) * self.of_image(original)
        return seconds


@dataclass(frozen=True)
class SimulationSettings:
    """What is constant in a sweep.

    ``share``: False lets every trial run its own prefix. ``trial_s``: overhead of one trial. ``hours_s``: seconds after
    which the search ends. ``fits``: bytes -> whether the store may keep them. ``known_ahead``: number of trials that
    are proposed before results decide the next one.
    """

    machine: Machine
    cost: PrefillCost
    share: bool = True
    trial_s: float = 0.1
    hours_s: float = math.inf
    fits: Callable[[int], bool] = lambda size: True
    known_ahead: float = 0

    @property
    def stores(self) -> int:
        """1 if all nodes share a store, otherwise one per node."""
        return 1 if self.machine.shared_store else max(self.machine.nodes, 1)


@dataclass
class Cluster:
    """What stores and workers hold, from stage to stage.

    ``have``: per store, ``PlannedRows.place`` -> rows. ``networks``, ``traced``: per worker, networks it has opened and
    architectures it has traced.
    """

    have: list[dict[str, int]]
    networks: list[set[Hashable]]
    traced: list[set[Hashable]]

    @classmethod
    def cold(cls, terms: SimulationSettings, stored: dict[str, int]) -> Cluster:
        workers = range(terms.machine.workers)
        return cls([dict(stored) for _ in range(terms.stores)], [set() for _ in workers], [set() for _ in workers])

    def cool_down(self) -> None:
        """Forget opened networks and traces, as in new processes; the stores stay."""
        for known in (*self.networks, *self.traced):
            known.clear()


@dataclass(frozen=True)
class SimulatedRun:
    """One simulated run.

    ``seconds``: wall time. ``build_s``, ``busy_s``: worker-seconds of prefills, and of everything. ``epochs``: of each
    started fit, in order. ``complete``: places of the fits that ran to their last epoch, the best first. ``built``:
    ``PlannedRows.place`` -> rows computed.
    """

    seconds: float
    build_s: float
    busy_s: float
    epochs: tuple[int, ...]
    complete: tuple[int, ...]
    built: dict[str, int]


def simulate(
    works: Sequence[FitWork], rule: StoppingRule, terms: SimulationSettings, cluster: Cluster, draw: random.Random
) -> SimulatedRun:
    """Simulate ``works`` in order, each until its last epoch or until ``rule`` stops it. Updates ``cluster``."""
    return _Run(works, rule, terms, cluster, draw).run()


@dataclass
class _Build:
    """Rows that are being computed for one store; ``helpers`` share ``left_s`` (worker-seconds) evenly.

    ``starting``: workers that still open the network. ``since_s``: time at which ``left_s`` was updated.
    """

    store: int
    features: FeatureSet
    rows: list[tuple[PlannedRows, int]]
    left_s: float
    network: Hashable
    open_s: float
    trace_s: float
    helpers: set[int] = field(default_factory=set)
    starting: int = 0
    since_s: float = 0.0
    version: int = 0

    @property
    def workers(self) -> int:
        return len(self.helpers) + self.starting


@dataclass
class _Trial:
    place: int
    worth: float
    request: WaitingTrial
    epoch: int = 0
    target: int = 0


def standing(values: Sequence[float]) -> list[float]:
    """Return the standard normal quantile at each value's rank; equal values share a rank."""
    ascending = sorted(values)
    ranks = [(bisect.bisect_left(ascending, value) + bisect.bisect_right(ascending, value)) / 2 for value in values]
    return [_NORMAL.inv_cdf(rank / len(values)) for rank in ranks]


class _Run:
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
        self.last_trace: dict[int, Hashable] = dict.fromkeys(self.idle)
        self._feature_sets: dict[tuple[tuple[str, int], ...], FeatureSet] = {}
        self._settled: list[set[FeatureSet]] = [set() for _ in range(terms.stores)]
        self.built: dict[str, int] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def run(self) -> SimulatedRun:
        self._dispatch()
        while self._events and self._events[0][0] <= self.terms.hours_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
            self._dispatch()
        if self._events:  # the hours are used up
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

    def _at(self, after_s: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now_s + after_s, self._count, event))

    # --- who does what

    def _dispatch(self) -> None:
        """Give every idle worker something to do, if there is anything."""
        resting: list[int] = []
        without_work: set[int] = set()  # stores; what one worker cannot find there, no other can
        while self.idle:
            worker = self.idle.pop(0)
            store = worker % self.terms.stores
            if store in without_work or not self._assign(worker, store):
                without_work.add(store)
                resting.append(worker)
        self.idle = resting

    def _assign(self, worker: int, store: int) -> bool:
        """Start what ``next_step`` decides for ``worker``; return False if there is nothing for it."""
        slots, active = self.terms.machine.workers, len(self.running)
        while self.asked < len(self.works) and may_ask(
            len(self.waiting), active, slots, self.asked < self.terms.known_ahead
        ):
            self._ask()
        filling: Counter[FeatureSet] = Counter()
        for build in self.builds:
            if build.store == store:
                filling[build.features] += build.workers
        waiting = [trial.request for trial in self.waiting]
        step = next_step(waiting, self._settled_in(store), filling, self.last_trace[worker])
        if step is None:
            return False
        if isinstance(step, StartPrefill):
            return self._prefill(worker, store, self.waiting[step.place])
        self._start(worker, self.waiting.pop(step.place))
        return True

    def _ask(self) -> None:
        work = self.works[self.asked]
        chance = self.draw.gauss(0.0, 1.0)
        worth = _NORMAL.cdf(EFFORT * self.effort[self.asked] + math.sqrt(1 - EFFORT**2) * chance)
        rows = tuple((each.place, each.count) for each in self._needed(work))
        features = self._feature_sets.setdefault(rows, FeatureSet((len(self._feature_sets),)))
        trial = _Trial(self.asked, worth, WaitingTrial(features, work.architecture))
        self.asked += 1
        self.trials.append(trial)
        self.waiting.append(trial)

    def _settled_in(self, store: int) -> set[FeatureSet]:
        """Return the feature sets of waiting trials whose rows ``store`` has, and others that it had before."""
        settled = self._settled[store]
        for trial in self.waiting:
            if trial.request.features not in settled and not self._missing(trial, store):
                settled.add(trial.request.features)
        return settled

    def _missing(self, trial: _Trial, store: int) -> list[tuple[PlannedRows, int]]:
        """Return the rows that ``trial`` reads and ``store`` lacks, each with the count that is stored."""
        have = self.cluster.have[store]
        rows = self._needed(self.works[trial.place])
        return [(each, have.get(each.place, 0)) for each in rows if have.get(each.place, 0) < each.count]

    def _needed(self, work: FitWork) -> tuple[PlannedRows, ...]:
        own = work.features if self._stored(work) else work.images
        return own + (work.head_features if self.terms.share else ())

    def _stored(self, work: FitWork) -> bool:
        """Return whether the fit reads features from the store; otherwise it runs its prefix in every epoch."""
        return work.has_prefix and self.terms.share and self.terms.fits(sum(rows.bytes for rows in work.features))

    # --- trials

    def _start(self, worker: int, trial: _Trial) -> None:
        work = self.works[trial.place]
        once_s = self.terms.trial_s + self._opening_s(worker, work)
        if trial.epoch == 0:
            self.rule.add(trial.place)
            once_s += work.head_s + (0.0 if self.terms.share else work.head_features_s)
        self.running[worker] = trial
        self._train(worker, trial, once_s)

    def _opening_s(self, worker: int, work: FitWork) -> float:
        networks, traced = self.cluster.networks[worker], self.cluster.traced[worker]
        seconds = 0.0 if work.network in networks else work.speed.open_s
        seconds += 0.0 if work.architecture in traced else work.speed.trace_s
        networks.add(work.network)
        traced.add(work.architecture)
        return seconds

    def _train(self, worker: int, trial: _Trial, once_s: float = 0.0) -> None:
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
            self._train(worker, trial)
            return
        if not is_last and verdict.action == PAUSE:
            self.paused[trial.place] = trial
        del self.running[worker]
        self.last_trace[worker] = self.works[trial.place].architecture
        self.idle.insert(0, worker)  # as Tune does: started workers are reused before others start

    # --- rows

    def _prefill(self, worker: int, store: int, trial: _Trial) -> bool:
        """Compute the rows of ``trial`` that no worker computes, or help those that do; return False if none may."""
        claimed = self._claimed(store)
        missing = self._missing(trial, store)
        open_rows = [
            (rows, max(have, claimed.get(rows.place, 0)))
            for rows, have in missing
            if claimed.get(rows.place, 0) < rows.count
        ]
        if open_rows:
            self._begin(worker, store, trial, open_rows)
            return True
        places = {rows.place for rows, _ in missing}
        helped = [
            build
            for build in self.builds
            if build.store == store
            and build.workers < MAX_PREFILL_WORKERS
            and any(rows.place in places for rows, _ in build.rows)
        ]
        if not helped:
            return False
        self._join(worker, max(helped, key=self._remaining_s))
        return True

    def _claimed(self, store: int) -> dict[str, int]:
        """Return ``PlannedRows.place`` -> rows that are being computed; other trials wait for them."""
        claimed: dict[str, int] = {}
        for build in self.builds:
            if build.store == store:
                for rows, _ in build.rows:
                    claimed[rows.place] = max(claimed.get(rows.place, 0), rows.count)
        return claimed

    def _begin(self, worker: int, store: int, trial: _Trial, open_rows: list[tuple[PlannedRows, int]]) -> None:
        work = self.works[trial.place]
        have, seconds = self.cluster.have[store], 0.0
        made: list[tuple[PlannedRows, int]] = []
        decoded: list[tuple[PlannedRows, int]] = []
        images = {(r.split, r.recipe, r.shelf.view): r for r in work.images}
        claimed = self._claimed(store)
        for rows, there in open_rows:
            image = images[rows.split, rows.recipe, rows.shelf.view]
            lacking = max(rows.count - max(there, have.get(image.place, 0), claimed.get(image.place, 0)), 0)
            if lacking:
                decoded.append((image, lacking))
                made.append((image, rows.count - lacking))
            if rows.shelf.layer:
                seconds += (rows.count - there) * rows.prefix_s
                made.append((rows, there))
        seconds += self.terms.cost.of_images(decoded, work.images)
        through = any(rows.shelf.layer for rows, _ in open_rows)
        speed = work.speed
        build = _Build(
            store,
            trial.request.features,
            made,
            seconds,
            work.network,
            speed.open_s if through else 0.0,
            speed.prefix_trace_s if through else 0.0,
        )
        self.builds.append(build)
        self._join(worker, build)

    def _remaining_s(self, build: _Build) -> float:
        """Return the seconds that ``build`` still takes with all its workers."""
        done_s = (self.now_s - build.since_s) * len(build.helpers)
        return max(build.left_s - done_s, 0.0) / max(build.workers, 1)

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
        if build not in self.builds:  # the others have finished
            self.idle.insert(0, worker)
            return
        self._update(build)
        build.helpers.add(worker)
        self._schedule_end(build)

    def _update(self, build: _Build) -> None:
        """Subtract the work done since the last update."""
        done_s = min((self.now_s - build.since_s) * len(build.helpers), build.left_s)
        build.left_s -= done_s
        build.since_s = self.now_s
        self.busy_s += done_s
        self.build_s += done_s

    def _schedule_end(self, build: _Build) -> None:
        build.version += 1
        version = build.version
        self._at(build.left_s / len(build.helpers), lambda: self._done(build, version))

    def _done(self, build: _Build, version: int) -> None:
        if version != build.version:
            return  # a worker has joined since
        self._update(build)
        self.builds.remove(build)
        have = self.cluster.have[build.store]
        for rows, there in build.rows:
            have[rows.place] = max(have.get(rows.place, 0), rows.count)
            self.built[rows.place] = self.built.get(rows.place, 0) + rows.count - there
        self.idle[:0] = sorted(build.helpers)
